"""A whole run with an LLM, to its report: fails midway, goes on, and shows its key to nobody."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.autointerp.fake_server import counters, serving
from tests.workflow import running
from tests.workflow.running import Run

pytestmark = pytest.mark.workflow

KEY_ENV, KEY = "DIFFSCOPE_TEST_KEY", "sk-sentinel-71c05e2d9a"
FAILING = 40
CONCEPTS = {"solve": "arithmetic", "equals": "arithmetic", "def": "source_code"}
LLM = {
    "annotators": {
        "one": {"model": "fake"},
        "two": {"model": "fake", "prompt": "paraphrase", "label_seed": 1},
    },
    "key_env": KEY_ENV,
    "held_out": 10,
    "null": 5,
    "canaries": 2,
}


@contextmanager
def listing() -> Iterator[set[str]]:
    """Yield the command lines of this machine's processes, looked up time and again."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            told = subprocess.run(
                ["ps", "-ewwo", "args"], capture_output=True, text=True, check=True
            )
            seen.update(told.stdout.splitlines())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_an_llms_run_fails_midway_goes_on_and_reports(
    smoke_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    smoke_run.copy(tree)
    monkeypatch.setenv(KEY_ENV, KEY)
    faults = {str(FAILING): "quota"}
    server = serving(tmp_path, first=faults, concepts=CONCEPTS)
    with server as url, listing() as commands:
        config = yaml.safe_load((tree / "config" / "smoke.yaml").read_text(encoding="utf-8"))
        config["autointerp"] = {"annotator": "llm", "llm": {**LLM, "base_url": url}}
        (tree / "config" / "llm.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        flags = ("--cores", "2", "--configfile", "config/llm.yaml")
        failed = running.snakemake(tree, *flags, good=False)
        assert "the quota is used up" in failed
        done = running.snakemake(tree, *flags)
        seen = counters(url)
        again = running.snakemake(tree, *flags)
        assert counters(url) == seen
    assert running.NOTHING in again
    results = tree / "results" / "smoke"
    ledgers = pd.concat(map(pd.read_csv, results.glob("autointerp/**/ledger.csv")))
    assert seen["calls"] == ledgers["key"].nunique() + 1  # each answer once, and the failed call
    labels = pd.concat(map(pd.read_parquet, results.glob("autointerp/*/*/labels.parquet")))
    assert set(labels["annotator"]) == {"lexical", "one", "two"}
    of_documents = pd.read_parquet(results / "autointerp" / "documents" / "labels.parquet")
    assert set(of_documents["label"]) == set(CONCEPTS.values())
    changes = pd.read_csv(results / "comparison" / "changes.csv")
    assert set(changes["labeller"]) == {"true", "llm", "topics"}
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    questions = (
        "How good are the names of latents?",
        "Krippendorff",
        "counting words",
        "obeyed it",
        "Agreement on documents, by label",
    )
    for told in questions:
        assert told in page
    # Neither the page nor any other file, message or command line holds the key.
    assert any("call_llm" in line for line in commands)
    assert any("-m snakemake" in line for line in commands)
    for text in (failed, done, again, *commands):
        assert KEY not in text
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert any(".snakemake" in path.parts for path in files)
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
