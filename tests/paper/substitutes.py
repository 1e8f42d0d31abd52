"""Small substitutes for the published study's models and text: `python -m tests.paper.substitutes`.

Three Gemma-2 folders with random weights and two JSONL files, where config/paper_smoke.yaml looks
for them. `it` and `simpo` are `pt` with directions of their own on words of some chat categories,
so that there is something to find; the words are those that set a category's text apart.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from workflow_scripts.generator import (
    CHAT_CATEGORIES,
    PLAIN_CATEGORIES,
    GeneratedDocument,
    generate,
)
from workflow_scripts.models.organism_text import contents, train_tokenizer

FOLDER = Path("results/substitutes")
VOCABULARY, WIDTH = 2048, 64
DOCUMENTS, SEED = 90, 7
DIRECTIONS, WORDS, STRENGTH = 4, 6, 4.0
WORD = re.compile("Ġ[A-Za-z]{3,}")
OWN = {
    "it": ("safety_refusal", "multilingual", "self_reference", "hallucination_management"),
    "simpo": ("safety_refusal", "multilingual", "instruction_following"),
}


def documents(categories: tuple[str, ...]) -> Iterator[GeneratedDocument]:
    """Yield the documents of each category."""
    for category in categories:
        for index in range(DOCUMENTS):
            yield generate(category, index, SEED)


def write_text(folder: Path) -> None:
    """Write plain.jsonl and chat.jsonl, with the columns of FineWeb and LMSYS-Chat-1M."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [{"text": document.text} for document in documents(PLAIN_CATEGORIES)]
    chat = [
        {"conversation": [{"role": role, "content": text} for role, text in document.messages]}
        for document in documents(CHAT_CATEGORIES)
    ]
    for name, rows in (("plain", plain), ("chat", chat)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def telling_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[int]]:
    """Return, for each chat category, words that are more frequent in it than in all others."""
    words = {token for text, token in tokenizer.get_vocab().items() if WORD.fullmatch(text)}
    counts = {category: Counter[int]() for category in CHAT_CATEGORIES}
    for document in documents(CHAT_CATEGORIES):
        answer = contents(document)[-1]
        counts[document.category].update(tokenizer(answer, add_special_tokens=False)["input_ids"])
    total = Counter[int]()
    for counter in counts.values():
        total.update(counter)
    return {
        category: sorted(words & set(counter), key=lambda t: (total[t] - 2 * counter[t], t))[
            : DIRECTIONS * WORDS
        ]
        for category, counter in counts.items()
    }


def write_models(folder: Path) -> None:
    """Write pt, and it and simpo with directions of their own."""
    tokenizer = train_tokenizer(VOCABULARY, 0)
    tokens = telling_tokens(tokenizer)
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=WIDTH // 2,
            sliding_window=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    for name, parameter in model.named_parameters():
        if "post_" in name:  # blocks that add a tenth of what Gemma's would: words stay visible
            torch.nn.init.constant_(parameter, -0.9)
    embedding = dict(model.named_parameters())["model.embed_tokens.weight"]
    before = embedding.detach().clone()
    size = STRENGTH * float(before.norm(dim=1).mean())
    for name in ("pt", *OWN):
        with torch.no_grad():
            embedding.copy_(before)
            for category in OWN.get(name, ()):
                for start in range(DIRECTIONS):
                    direction = torch.randn(WIDTH)
                    rows = tokens[category][start::DIRECTIONS]
                    embedding[rows] += size * direction / direction.norm()
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def write_substitutes(folder: Path) -> None:
    """Write models and text."""
    write_text(folder)
    write_models(folder)


if __name__ == "__main__":
    write_substitutes(FOLDER)
