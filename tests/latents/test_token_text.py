"""The text of windows is that of the document, whatever bytes the tokens hold."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from tests.latents.scripts import KINDS, TEXTS, byte_fallback, byte_level
from workflow_scripts.common.characters import is_one_character
from workflow_scripts.latents.example_contexts import write_windows
from workflow_scripts.latents.token_context import TokenContext
from workflow_scripts.latents.token_text import Pieces, whole_pieces

WINDOW = 7


def pieces_of(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> tuple[Pieces, list[str]]:
    """Return the pieces of one window, and their texts in order."""
    apart = np.zeros(len(ids), dtype=bool)
    pieces = whole_pieces(tokenizer, np.array(ids), np.array([0]), apart)
    return pieces, [pieces.texts[i] for i in pieces.text]


def whole(text: str) -> str:
    """Return a text as WordPiece leaves it: words parted by single blanks."""
    return " ".join(text.split())


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("merges", [0, 60, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_the_text_in_whole_characters(kind: str, merges: int, language: str) -> None:
    tokenizer = KINDS[kind](TEXTS.values(), merges)
    text = TEXTS[language]
    pieces, texts = pieces_of(tokenizer, tokenizer.encode(text, add_special_tokens=False))
    assert "".join(texts).strip() == whole(text)
    assert not any(is_one_character(a[-1], b[0]) for a, b in pairwise(texts))
    assert not unicodedata.category(texts[0][0]).startswith("M")
    assert pieces.whole.all()


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_each_token_belongs_to_the_piece_with_its_bytes(kind: str, language: str) -> None:
    tokenizer = KINDS[kind](TEXTS.values(), 60)
    ids = tokenizer.encode(TEXTS[language], add_special_tokens=False)
    pieces, texts = pieces_of(tokenizer, ids)
    ends = [*pieces.runs[1:].tolist(), len(ids)]
    shown = [tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False) for end in ends]
    joined = ["".join(texts[: i + 1]).removeprefix(" ") for i in range(len(texts))]
    assert shown == joined
    assert "�" not in "".join(joined)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_an_edge_that_cuts_a_character_drops_it_and_no_more(kind: str, language: str) -> None:
    tokenizer = KINDS[kind](["nothing of it"], 0)
    text = TEXTS[language]
    ids = tokenizer.encode(text, add_special_tokens=False)
    raw = text.encode()
    extra = len(ids) - len(raw)  # the blank that is put before a text
    for start in range(extra, len(ids) - WINDOW):
        _, texts = pieces_of(tokenizer, ids[start : start + WINDOW])
        part = raw[start - extra : start - extra + WINDOW]
        assert "".join(texts) == part.decode("utf-8", errors="ignore")


def test_an_activation_on_a_part_of_a_character_is_the_characters() -> None:
    tokenizer = byte_level(["nothing of it"], 0)
    ids = tokenizer.encode("我e\u0301x", add_special_tokens=False)
    pieces, texts = pieces_of(tokenizer, ids)
    assert texts == ["我", "e\u0301", "x"]
    values = np.array([0, 3, 0, 0, 0, 2, 0], dtype=np.float32)
    assert pieces.largest(values).tolist() == [3, 2, 0]


def test_a_template_never_joins_what_a_user_writes() -> None:
    tokenizer = byte_level(["nothing of it"], 0)
    ids = np.array(tokenizer.encode("a\u0301", add_special_tokens=False))
    apart = np.array([True, True, False])
    pieces = whole_pieces(tokenizer, ids, np.array([0]), apart)
    assert [pieces.texts[i] for i in pieces.text] == ["a", "\u0301"]


def context_of(rows: list[list[int]]) -> TokenContext:
    """Return documents of given tokens."""
    ids = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
    document = np.repeat(np.arange(len(rows), dtype=np.int32), [len(row) for row in rows])
    return TokenContext(
        ids=ids,
        document=document,
        position=np.zeros(len(ids), dtype=np.int32),
        role=np.zeros(len(ids), dtype=np.uint8),
        template=np.zeros(len(ids), dtype=bool),
        category=np.full(len(ids), -1, dtype=np.int16),
        row_starts=np.cumsum([0] + [len(row) for row in rows]),
        categories=[],
    )


def test_windows_are_written_with_the_peak_on_its_character(tmp_path: Path) -> None:
    tokenizer = byte_fallback(["nothing of it"], 0)
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in ("天气很好", "公园")]
    context = context_of(rows)
    starts = context.row_starts
    # The first window loses a part of 天, the last one holds no whole character.
    windows = pd.DataFrame(
        {
            "row": [0, 1, 1],
            "start": [starts[0] + len(rows[0]) - 11, starts[1], starts[2] - 2],
            "end": [starts[1], starts[2], starts[2]],
            "latent": [7, 8, 9],
        }
    )
    lengths = (windows["end"] - windows["start"]).tolist()
    values = np.zeros(sum(lengths), dtype=np.float32)
    values[6], values[lengths[0] + lengths[1] - 1] = 5.0, 4.0
    path = tmp_path / "examples.parquet"
    write_windows(path, [(windows, values)], context, tokenizer)
    table = pd.read_parquet(path)
    assert table["latent"].tolist() == [7, 8]
    assert ["".join(pieces) for pieces in table["pieces"]] == ["气很好", " 公园"]
    assert [row["pieces"][row["peak"]] for _, row in table.iterrows()] == ["很", "园"]
    assert table["max_activation"].tolist() == [5.0, 4.0]
    assert table["document"].tolist() == [0, 1]
    lists = ("pieces", "activations", "template", "role")
    assert all(len({len(row[name]) for name in lists}) == 1 for _, row in table.iterrows())
