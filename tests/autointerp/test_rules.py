"""The stage's rules under Snakemake with an LLM: refused, failing midway, resumed, and silent.

Of latents and of documents; without an LLM none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.autointerp import fixtures
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import counters, serving
from tests.autointerp.labelling_run import CATEGORIES, WORDS, made_texts, write_labels, write_text
from tests.autointerp.llm_run import CONCEPTS, KEY_ENV
from tests.run.test_settings import Raw
from tests.workflow import running
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths

pytestmark = pytest.mark.workflow

STAGE = (
    "select_contexts explain_lexical build_requests call_llm parse_responses collect_annotations "
    "measure_agreement"
)
TARGET = "results/smoke/autointerp/it_simpo/seed0/agreement.json"
CUT_OFF, FAILING = 3 * 8, 7
"""Calls of the first run, whose eight requests to explain are cut off, and then the seventh one."""
LABELLING = {"build_label_requests", "call_llm_about_documents", "collect_document_labels"}
READERS = (
    "comparison.evaluate_behaviour",
    "comparison.weigh_documents",
    "comparison.judge_changes",
    "comparison.score_recovery",
    "figures.build_report",
)
"""Steps that read labels of documents."""
LABELS = "results/smoke/autointerp/documents/labels.parquet"


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
    write_config(tree, {"base_url": server, "held_out": 20, "null": 10, "concurrency": 2})
    return tree


def write_config(tree: Path, llm: dict[str, object]) -> Raw:
    """Write the smoke run's config with an LLM; return its settings."""
    config: Raw = yaml.safe_load((tree / "config" / "smoke.yaml").read_text())
    annotators = {"one": {"model": "fake"}, "two": {"model": "fake", "prompt": "paraphrase"}}
    whole = {"key_env": KEY_ENV, "annotators": annotators, "max_requests": 100_000, **llm}
    config["autointerp"] = {"annotator": "llm", "llm": whole}
    (tree / "config" / "llm.yaml").write_text(yaml.safe_dump(config))
    return config


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


def test_documents_are_labelled_before_models_are_compared(tmp_path: Path) -> None:
    tree, texts = running.copy_tree(tmp_path / "tree"), made_texts(40)
    with serving(tmp_path, concepts=WORDS) as url:
        categories = {"categories": CATEGORIES, "sample": 30}
        config = write_config(tree, {"base_url": url, "documents": categories})
        paths = Paths(load(config))
        for n, (documents, tokens) in enumerate(zip(paths.documents, paths.tokens, strict=True)):
            half = {number: text for number, (text, _) in texts.items() if number // 20 == n}
            written = write_text(tree / f"part{n}", half)
            for source, target in zip(written, (documents, tokens), strict=True):
                (tree / target).parent.mkdir(parents=True, exist_ok=True)
                source.rename(tree / target)
        write_labels(tree / paths.labels, {"source": dict.fromkeys(texts, "own")})
        flags = ["--cores", "1", "--configfile", "config/llm.yaml"]
        flags += ["--allowed-rules", *LABELLING, "--", LABELS]
        running.snakemake(tree, *flags)
        assert counters(url)["calls"] == 2 * 30
        labels = pd.read_parquet(tree / LABELS)
        planted = {number: name for number, (_, name) in texts.items() if name}
        found = dict(zip(labels["document"], labels["label"], strict=True))
        assert 0 < len(found) < len(planted)
        assert found.items() <= planted.items()
        (tree / LABELS).unlink()
        (tree / LABELS).with_name("responses.jsonl").unlink()
        running.snakemake(tree, *flags)
        assert counters(url)["calls"] == 2 * 30
        assert pd.read_parquet(tree / LABELS).equals(labels)


def test_only_an_llm_plans_labels_of_documents(tmp_path: Path) -> None:
    tree = running.copy_tree(tmp_path / "tree")
    write_config(tree, {"base_url": "http://127.0.0.1:1/v1"})
    without = running.planned(running.smoke(tree, "-n"))
    assert "label_documents" in without
    assert not without & LABELLING
    shown = running.snakemake(tree, "--cores", "1", "--configfile", "config/llm.yaml", "-n", "-p")
    assert running.planned(shown) >= LABELLING
    commands = [line for line in shown.splitlines() if "python -m workflow_scripts." in line]
    for step in READERS:
        own = [line for line in commands if f"python -m workflow_scripts.{step} " in line]
        assert own
        assert all(f"--labels results/smoke/dataset/labels.parquet {LABELS} " in c for c in own)
    answering = next(line for line in commands if "comparison.score_recovery --" in line)
    assert "--usual=true --usual=llm --usual=source --usual=topics" in answering
