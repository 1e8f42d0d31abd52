"""Small models of several architectures: from scratch, tuned in full or by LoRA, and measured."""

from __future__ import annotations

import copy
import math
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.comparison.families.texts import CATEGORIES, WRITERS

CONTEXT = 96
EVALUATED = 60  # held-out documents of a category
BASE_DOCUMENTS = 350
BASE_RATE, BASE_BATCH = 4e-3, 1024


@dataclass(frozen=True)
class Family:
    """A family: architecture, text, and how its models are tuned."""

    architecture: str
    width: int
    layers: int
    vocabulary: int
    text: str
    categories: int
    documents: int
    """of each category that a model is taught"""
    siblings: bool
    """two fine-tunes of a base; else a base and its fine-tune"""
    rate: float
    known: float
    """share of the categories that the base knows"""
    rehearsed: float
    """documents of unchanged categories that fine-tunes are taught, relative to ``documents``"""
    batch: int = 1024
    lora: bool = False


Documents = list[list[int]]


def new_tokenizer(family: Family, categories: Sequence[str]) -> Tokenizer:
    """Return a byte-level BPE tokenizer trained on a family's text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=family.vocabulary,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for name in categories for text in WRITERS[family.text](name, 100, 5)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_model(family: Family, vocabulary: int, seed: int) -> Any:
    """Return a model with random weights."""
    head = 16 if family.width % 32 else 32
    common = {
        "vocab_size": vocabulary,
        "hidden_size": family.width,
        "intermediate_size": 4 * family.width,
        "num_hidden_layers": family.layers,
        "num_attention_heads": family.width // head,
        "num_key_value_heads": family.width // head,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attn_implementation": "eager",
    }
    torch.manual_seed(seed)
    if family.architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config.from_dict(common))
    common |= {"head_dim": head}
    if family.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig.from_dict(common))
    common |= {
        "final_logit_softcapping": None,
        "query_pre_attn_scalar": head,
        "sliding_window": 256,
    }
    return Gemma2ForCausalLM(Gemma2Config.from_dict(common))


def train(model: Any, documents: Documents, rate: float, batch: int, seed: int) -> Any:
    """Take one pass over the documents, packed in random order: AdamW, warm-up, cosine."""
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    flat = [token for index in order for token in documents[index]]
    rows = torch.tensor(flat[: len(flat) // CONTEXT * CONTEXT]).view(-1, CONTEXT)
    size = max(1, batch // CONTEXT)
    steps = max(1, len(rows) // size)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    model.train()
    for step in range(steps):
        ids = rows[step * size : (step + 1) * size]
        warm = min(1.0, (step + 1) / (0.05 * steps + 1))
        optimizer.param_groups[0]["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        logits = model(input_ids=ids).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Measured:
    """What a model makes of held-out documents: losses of tokens, states [tokens, D] at a layer."""

    losses: NDArray[np.float64]
    states: NDArray[np.float64]


@torch.no_grad()
def measure(model: Any, documents: Documents, layer: int) -> Measured:
    """Return losses and states of all tokens but each document's first."""
    losses, states = [], []
    for first in range(0, len(documents), 32):
        part = documents[first : first + 32]
        length = max(map(len, part))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in part])
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        log_p = output.logits[:, :-1].float().log_softmax(-1)
        loss = -log_p.gather(2, ids[:, 1:, None])[..., 0]
        kept = mask[:, 1:].bool()
        losses.append(loss[kept].double().numpy())
        states.append(output.hidden_states[layer][:, 1:][kept].double().numpy())
    return Measured(np.concatenate(losses), np.concatenate(states))


class Trainees:
    """A family's base model and the fine-tunes made of it."""

    def __init__(self, name: str, family: Family) -> None:
        rng = random.Random(zlib.crc32(name.encode()))
        self.family, self.random = family, random.Random(name)
        self.categories = rng.sample(CATEGORIES[family.text], family.categories)
        self.tokenizer = new_tokenizer(family, self.categories)
        self.layer = max(1, round(0.7 * family.layers))
        seed = zlib.crc32(name.encode()) % 1000
        model = new_model(family, self.tokenizer.get_vocab_size(), seed)
        known = max(1, round(family.known * len(self.categories)))
        self.known = sorted(self.random.sample(self.categories, known))
        start = 1 if family.text == "real" else 2  # real passages are few; the rest is held out
        taught = self.encoded(dict.fromkeys(self.known, BASE_DOCUMENTS), start)
        self.base = train(model, taught, BASE_RATE, BASE_BATCH, 0)
        held_out = {name: self.write(name, EVALUATED, "eval") for name in self.categories}
        self.labels = np.repeat(list(held_out), [len(texts) for texts in held_out.values()])
        self.texts = [text for texts in held_out.values() for text in texts]
        self.documents = [row[:CONTEXT] for row in self.encode(self.texts)]

    def write(self, category: str, count: int, seed: int | str) -> list[str]:
        """Return documents of a category."""
        return WRITERS[self.family.text](category, count, seed)

    def encode(self, texts: Sequence[str]) -> Documents:
        """Return the tokens of documents."""
        return [[1, *row.ids] for row in self.tokenizer.encode_batch(list(texts))]

    def encoded(self, counts: Mapping[str, int], seed: int) -> Documents:
        """Return the tokens of so many documents of each category."""
        return self.encode(
            [t for name, n in sorted(counts.items()) for t in self.write(name, n, seed)]
        )

    def tune(self, counts: Mapping[str, int], seed: int) -> Any:
        """Return the base, taught so many documents of each category."""
        model: Any = copy.deepcopy(self.base)
        if self.family.lora:
            model = _with_adapter(model, seed)
        model = train(model, self.encoded(counts, 1), self.family.rate, self.family.batch, seed)
        return model.merge_and_unload() if self.family.lora else model

    def measure(self, model: Any) -> Measured:
        """Return what a model makes of the held-out documents."""
        return measure(model, self.documents, self.layer)


def _with_adapter(model: Any, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    parts = ["q_proj", "v_proj", "up_proj", "down_proj", "o_proj"]
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=parts))
