"""Tiny models with random weights, in Hugging Face format, with their manifests."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from workflow_scripts.common.manifest import Manifest
from workflow_scripts.models.resolve_model import describe

VOCABULARY = 40
LAYERS = 3
SIZES: dict[str, object] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 8,  # shorter than the rows, so that local attention shows
    "initializer_range": 0.3,  # large enough for the soft-caps to matter
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2: dict[str, object] = {"n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 64}
OTHER_SIZES: dict[str, dict[str, object]] = {
    "gpt2": GPT2 | {k: SIZES[k] for k in ("vocab_size", "bos_token_id", "eos_token_id")},
    "gemma3": {
        "text_config": SIZES,
        "vision_config": {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 1,
        "image_token_index": 39,
        "boi_token_index": 38,
        "eoi_token_index": 37,
    },
    "gpt_neox": {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim")},
}
ARCHITECTURES = (
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "olmo",
    "olmo2",
    "qwen2",
    "qwen3",
)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of VOCABULARY words."""
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{f"w{n}": n for n in range(3, VOCABULARY)}}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
    ).save_pretrained(folder)


def write_folder(folder: Path, architecture: str, seed: int = 0) -> Path:
    """Write a model with random weights and its tokenizer; return the folder."""
    torch.manual_seed(seed)
    sizes = OTHER_SIZES.get(architecture, SIZES)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:  # else every norm is the identity
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_model(folder: Path, architecture: str = "llama", seed: int = 0) -> Path:
    """Write a model and its manifest; return the manifest's path."""
    write_folder(folder / "weights", architecture, seed)
    path = folder / "model.json"
    manifest: Manifest = describe(folder.name, folder / "weights", None, None, False, path)
    manifest.write(path)
    return path
