"""The stage's rules under Snakemake with an LLM: refused, failing midway, resumed, and silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.autointerp import fixtures
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import counters, serving
from tests.autointerp.llm_run import CONCEPTS, KEY_ENV
from tests.workflow import running

pytestmark = pytest.mark.workflow

STAGE = (
    "select_contexts explain_lexical build_requests call_llm parse_responses collect_annotations "
    "measure_agreement"
)
TARGET = "results/smoke/autointerp/it_simpo/seed0/agreement.json"
CUT_OFF, FAILING = 3 * 8, 7
"""Calls of the first run, whose eight requests to explain are cut off, and then the seventh one."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve from a process of its own: answers cut off, then good ones until a quota is used up."""
    faults = {str(n): "length" for n in range(1, CUT_OFF + 1)} | {str(CUT_OFF + FAILING): "quota"}
    with serving(tmp_path, first=faults, latency=0.01) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, server: str) -> Path:
    """Return a copy of the tree with examples of four latents and a config that asks for an LLM."""
    (tmp_path / "tree").mkdir()
    tree = running.copy_tree(tmp_path / "tree")
    texts = fixtures.random_documents(300, CONCEPTS)
    planted = [fixtures.on_words(name, *words) for name, words in CONCEPTS.items()]
    latents = tree / "results" / "smoke" / "latents" / "it_simpo" / "seed0"
    fixtures.make_examples(texts, planted, latents, background=50)
    config = yaml.safe_load((tree / "config" / "smoke.yaml").read_text())
    config["autointerp"] = {
        "annotator": "llm",
        "llm": {
            "base_url": server,
            "key_env": KEY_ENV,
            "annotators": {
                "one": {"model": "fake"},
                "two": {"model": "fake", "prompt": "paraphrase"},
            },
            "held_out": 20,
            "null": 10,
            "concurrency": 2,
        },
    }
    (tree / "config" / "llm.yaml").write_text(yaml.safe_dump(config))
    return tree


def _stage(folder: Path, *, good: bool) -> str:
    rules = STAGE.split()
    flags = ["--cores", "1", "--configfile", "config/llm.yaml", "--allowed-rules", *rules]
    return running.snakemake(folder, *flags, "--", TARGET, good=good)


def test_refused_without_key_then_cut_off_then_failing_then_resumed(
    folder: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_ENV)
    refused = _stage(folder, good=False)
    assert f"the environment variable {KEY_ENV} holds no key" in refused
    assert not (folder / "results" / "smoke" / "autointerp").exists()

    monkeypatch.setenv(KEY_ENV, SENTINEL)
    cut_off = _stage(folder, good=False)
    assert "explain: 8 of 8 answers failed (8 truncated)" in cut_off
    assert counters(server)["calls"] == CUT_OFF

    failed = _stage(folder, good=False)
    assert "the quota is used up" in failed
    assert CUT_OFF < counters(server)["calls"] <= CUT_OFF + FAILING + 1

    done = _stage(folder, good=True)
    seen = counters(server)
    ledger = pd.read_csv(folder / Path(TARGET).with_name("ledger.csv"))
    assert seen["calls"] == len(ledger) + 1  # each reply once, and the failed call
    assert sum(ledger["kept"] == "no") == CUT_OFF
    assert seen["unauthorised"] == 0

    labels = pd.read_parquet(folder / Path(TARGET).with_name("labels.parquet"))
    assert len(labels) == 4 * 3
    assert set(labels["annotator"]) == {"lexical", "one", "two"}
    for text in (refused, cut_off, failed, done):
        assert SENTINEL not in text
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(".snakemake" in path.parts for path in files)
    for path in files:
        assert SENTINEL.encode() not in path.read_bytes(), path
