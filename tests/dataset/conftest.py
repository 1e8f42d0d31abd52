"""A small real tokenizer with a Gemma-like chat template, and ways to write documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from workflow_scripts.common import cli
from workflow_scripts.dataset.sample_documents import sample_documents
from workflow_scripts.dataset.settings import Sampling, Source, Splits
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES, generate

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
)
SPLITS = Splits(fit=0.6, calibration=0.1, score=0.2, explain=0.1, verify=0)


def content(category: str, index: int) -> str:
    document = generate(category, index, 5)
    return document.text or " ".join(text for _, text in document.messages)


@cache
def trained(special: tuple[str, ...], vocabulary: int = 700, first: int = 0) -> str:
    """Return the JSON of a byte-level BPE tokenizer trained on generated text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        content(category, index)
        for category in PLAIN_CATEGORIES + CHAT_CATEGORIES
        for index in range(first, first + 30)
    ]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def wrap(text: str, template: str | None = GEMMA) -> PreTrainedTokenizerFast:
    """Return a Hugging Face tokenizer over the tokenizer's JSON."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = template
    return tokenizer


TURNS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A fresh tokenizer with the Gemma-like template."""
    return wrap(trained(TURNS))


def write_jsonl(path: Path, records: Iterable[object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def sample(
    folder: Path,
    sources: object,
    tokens: int = 20_000,
    splits: Splits = SPLITS,
    seed: int = 0,
    earlier: Sequence[Path] = (),
    reserve: float = 0.1,
    later: Mapping[Path, int] | None = None,
) -> Path:
    """Sample documents into ``folder`` and return the path of the table.

    Where ``earlier`` tables are given, the sample goes on behind the last of them. The tables of
    ``later`` parts are drawn ahead, up to their budgets.
    """
    output = folder / "documents.parquet"
    sample_documents(
        cli.parse(json.dumps(sources), dict[str, Source], "--sources"),
        Sampling(context_length=128, bytes_per_token=3, splits=splits, reserve=reserve),
        tokens,
        seed,
        output,
        folder / "manifest.json",
        tuple(earlier),
        earlier[-1].with_name("manifest.json") if earlier else None,
        tuple(later or ()),
        tuple((later or {}).values()),
    )
    return output


def chat(*contents: str, system: str = "") -> list[dict[str, str]]:
    """Return messages that alternate between user and assistant."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns
