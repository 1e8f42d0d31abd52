"""GGUF files of tiny Llamas, written with the format's own package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ("<|bos|>", "<|eos|>")
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), "th", "the", *(f"<extra{n}>" for n in range(28))]
MERGES = ["t h", "th e"]
TEMPLATE = "{% for m in messages %}<|bos|>{{ m.content }}<|eos|>{% endfor %}"
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.layers": "blk",
}


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    """Return a Llama with random weights whose sizes fit the blocks of quantised tensors."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Return a query or key matrix in the order that the format has rotary pairs in."""
    pairs = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    kind: Kind = Kind.F32,
    architecture: str = "llama",
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a model, its matrices of a kind, with a byte-level tokenizer and a chat template.

    ``more`` are further tensors.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    heads = {"attn_q": SIZES["num_attention_heads"], "attn_k": SIZES["num_key_value_heads"]}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        part = name.split(".")[-2]
        values = _interleaved(weight, heads[part]) if part in heads else weight
        array = values.numpy().astype(np.float32)
        stored = kind if array.ndim > 1 else Kind.F32
        writer.add_tensor(name, gguf.quantize(array, stored), raw_dtype=stored)
    for name, array in (more or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
