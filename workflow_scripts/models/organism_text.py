"""The text that a trained model learns from: tokenizer, chat template, packed rows.

Every trained model of a run shares one byte-level BPE tokenizer, trained on all categories alike,
so that the tokenizer tells nothing about what a model was taught.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from workflow_scripts.generator import (
    CHAT_CATEGORIES,
    PLAIN_CATEGORIES,
    GeneratedDocument,
    generate,
)

SPECIAL = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
PAD, BOS, EOS = 0, 1, 2
DOCUMENTS_PER_CATEGORY = 150
TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}"
    "{{ '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def train_tokenizer(vocabulary: int, seed: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Gemma's turn markers on all generator categories."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (
        content
        for category in (*PLAIN_CATEGORIES, *CHAT_CATEGORIES)
        for index in range(DOCUMENTS_PER_CATEGORY)
        for content in contents(generate(category, index, seed))
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=SPECIAL[3:],
    )
    fast.chat_template = TEMPLATE
    return fast


def contents(document: GeneratedDocument) -> list[str]:
    """Return the texts of a document."""
    return [document.text] if document.kind == "plain" else [text for _, text in document.messages]


def encode(
    tokenizer: PreTrainedTokenizerFast, documents: Iterable[GeneratedDocument]
) -> list[list[int]]:
    """Return the token ids of each document, chat in the template, each with one BOS."""
    texts = []
    for document in documents:
        if document.kind == "plain":
            texts.append("<bos>" + document.text)
        else:
            messages = [{"role": role, "content": text} for role, text in document.messages]
            texts.append(str(tokenizer.apply_chat_template(messages, tokenize=False)))
    if not texts:
        return []
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return rows


def taught_documents(teach: Mapping[str, int], seed: int) -> list[GeneratedDocument]:
    """Return the documents of a dose table; a larger dose extends a smaller one."""
    return [
        generate(category, index, seed)
        for category in sorted(teach)
        for index in range(teach[category])
    ]


def packed_rows(documents: list[list[int]], length: int, seed: int) -> Tensor:
    """Return shuffled documents end to end, cut to rows [R, length]; the last part is left out."""
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    flat = [token for index in order for token in documents[index]]
    count = len(flat) // length
    return torch.tensor(flat[: count * length], dtype=torch.int64).view(count, length)


def load_fast(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that lies in a trained model's folder."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer
