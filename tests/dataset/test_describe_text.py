"""The run's manifest: sums over parts and shards, and empty splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import SPLITS, sample, write_jsonl
from tests.dataset.test_tokenize_documents import token_shards
from workflow_scripts.common.files import read_json
from workflow_scripts.dataset.describe_text import main


def describe(folder: Path, parts: list[Path], shards: list[Path]) -> int:
    """Run the step as the command line does."""
    flags = ["--documents", *parts, "--shards", *shards, "--splits", SPLITS.model_dump_json()]
    return main([str(word) for word in (*flags, "--tokens", 9000, "--output", folder / "m.json")])


def test_sums_are_those_of_the_whole(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    sources = {"made": {"kind": "generator"}}
    parts: list[Path] = []
    for index, tokens in enumerate((3_000, 6_000, 9_000)):
        parts.append(sample(tmp_path / f"part{index}", sources, tokens, earlier=parts))
    whole = sample(tmp_path / "whole", sources, 9_000)
    layouts = [(96, 3_000)] * 3
    shards, _ = token_shards(tmp_path, parts, {"pt": tokenizer}, layouts)
    manifests = [path.with_name("manifest.json") for path in parts]
    assert describe(tmp_path, manifests, [path.with_suffix(".json") for path in shards]) == 0
    found, expected = read_json(tmp_path / "m.json"), read_json(whole.with_name("manifest.json"))
    assert found["documents"]["documents"] == expected["documents"]
    assert found["documents"]["sources"]["made"] == expected["sources"]["made"]
    assert found["tokens"]["tokens"] == sum(s["tokens"] for s in found["tokens"]["shards"])
    assert sum(found["tokens"]["split_tokens"].values()) == found["tokens"]["tokens"]


def test_an_empty_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = write_jsonl(tmp_path / "x.jsonl", [{"text": "one document"}])
    part = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}})
    assert describe(tmp_path, [part.with_name("manifest.json")], [part]) == 2
    told = "error: none of the 1 documents of the sources (own) fell into the split "
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)
