"""What is lost of a text is counted by reason, and said where it is much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import SPLITS, chat, sample, write_jsonl
from workflow_scripts.common.files import read_json
from workflow_scripts.dataset.describe_text import describe_text
from workflow_scripts.dataset.settings import Rendering, Splitting
from workflow_scripts.dataset.text_losses import TextLosses, text_losses
from workflow_scripts.dataset.tokenize_documents import fill_shard


def lost(
    folder: Path,
    rows: list[Any],
    tokenizer: PreTrainedTokenizerFast,
    tokens: int,
    reserve: float = 0.1,
) -> TextLosses:
    """Return what is lost of the rows of a file in a run of so many tokens."""
    folder.mkdir(exist_ok=True)
    source = {"kind": "jsonl", "path": str(write_jsonl(folder / "own.jsonl", rows))}
    table = sample(folder, {"own": {**source, "bad_rows": "skip"}}, tokens, reserve=reserve)
    rendering = Rendering(context_length=96)
    shard, manifest, whole = (folder / name for name in ("s.h5", "s.json", "m.json"))
    fill_shard([table], {"pt": tokenizer}, {}, rendering, tokens, shard, manifest)
    parts = [table.with_name("manifest.json")]
    describe_text(parts, [manifest], Splitting(splits=SPLITS), tokens, whole)
    return text_losses(read_json(whole))


def test_nothing_is_said_where_little_is_lost(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"text": f"document {i % 300} " + "word " * 30} for i in range(400)]
    facts = lost(tmp_path, [*rows, {"text": None}, {"text": 1}], tokenizer, 3_000, 2.0)
    assert facts.warning == ""
    assert facts.share_short == 0
    facts = lost(tmp_path, [*rows[:200], *rows[:40], {"text": ""}, {"text": 1}], tokenizer, 9_999)
    assert facts.left_out == {"no text in the column": 1, "empty": 1}
    assert (facts.documents, facts.repeated) == (200, 40)
    assert facts.description.startswith("200 documents read, in 200 rows of ")


def test_documents_left_out_are_said_with_their_reasons(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows: list[Any] = [{"text": f"document {i}"} for i in range(180)]
    rows += [{"text": i} for i in range(10)]
    rows += [{"messages": [*chat(f"q {i}"), *chat("again")]} for i in range(10)]
    facts = lost(tmp_path, rows, tokenizer, 9_999)
    assert facts.share_left_out == pytest.approx(0.1)
    refused = "the template refuses it (Roles must alternate)"
    assert facts.left_out == {"no text in the column": 10, refused: 10}
    assert "Not all of the text was read: 10% of the documents were left out (" in facts.warning
    assert f"{refused}: 10" in facts.warning


def test_text_cut_off_and_tokens_short_are_said_with_the_setting(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"text": f"{i} " + "word after word " * 300} for i in range(60)]
    facts = lost(tmp_path, rows, tokenizer, 20_000)
    assert facts.tokens == 60 * 96
    assert facts.share_short == pytest.approx(1 - 60 * 96 / 20_000)
    assert facts.share_cut > 0.8
    assert "% of the documents' tokens were cut off and there were 5,760 of the" in facts.warning
    assert facts.warning.endswith("(text.rows_per_document: 4 would read more of each document).")
    facts = lost(tmp_path, rows, tokenizer, 5_700, 2.0)
    assert "would read more of them" in facts.warning
    assert "asked for" not in facts.warning


def test_where_documents_are_dropped_and_text_is_left_a_reserve_makes_up_for_them(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows: list[Any] = []
    for i in range(600):
        rows += [
            {"text": f"document {i} " + "word " * 40},
            {"text": f"a <bos> in {i} " + "w " * 90},
        ]
    facts = lost(tmp_path / "short", rows, tokenizer, 9_000)
    assert facts.share_short > 0.2
    reserve = re.search(r"\(text\.reserve: ([\d.]+) would draw more of it\)\.$", facts.warning)
    assert reserve
    facts = lost(tmp_path / "full", rows, tokenizer, 9_000, float(reserve[1]))
    assert facts.share_short < 0.1
    assert "asked for" not in facts.warning
