"""What a larger budget, another layer and another run make again, and what the store spares."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.run.test_settings import Raw, put, smoke
from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.run import store_keys
from workflow_scripts.run.load import load

pytestmark = pytest.mark.workflow

STORED = ("sample_documents", "tokenize_documents", "train_organism", "dump_activations")


@pytest.fixture(scope="module")
def tree(smoke_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run."""
    folder = tmp_path_factory.mktemp("extension") / "tree"
    smoke_run.copy(folder)
    return folder


def jobs(tree: Path, raw: Raw) -> dict[str, int]:
    """Return how many jobs of the steps that fill the store would run with the settings ``raw``."""
    (tree / "changed.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    printed = running.snakemake(tree, "-n", "--configfile", "changed.yaml")
    found = Counter(re.findall(r"^rule (\w+):", printed, re.MULTILINE))
    return {rule: found[rule] for rule in (*STORED, "fit_crosscoder")}


def fits(raw: Raw) -> int:
    """Return the number of crosscoders."""
    return sum(len(fit.seeds) for fit in load(raw).fits.values())


def test_a_larger_budget_makes_new_shards_only(tree: Path) -> None:
    raw = smoke()
    assert store_keys.shards(load(raw)) == 2
    assert jobs(tree, put(raw, "text.tokens", 90_000)) == {
        "sample_documents": 1,
        "tokenize_documents": 1,
        "train_organism": 0,
        "dump_activations": len(load(raw).models),
        "fit_crosscoder": fits(raw),
    }


def test_a_smaller_budget_makes_nothing_for_the_store(tree: Path) -> None:
    found = jobs(tree, put(smoke(), "text.tokens", 30_000))
    assert {found[rule] for rule in STORED} == {0}


def test_another_layer_makes_its_files_and_its_fit_only(tree: Path) -> None:
    raw = put(put(smoke(), "layers.high", [2]), "fits.pt_it.layer", 2)
    assert jobs(tree, raw) == {
        "sample_documents": 0,
        "tokenize_documents": 0,
        "train_organism": 0,
        "dump_activations": 4,
        "fit_crosscoder": 1,
    }


def test_another_run_shares_the_store(tree: Path) -> None:
    found = jobs(tree, put(smoke(), "run", "other"))
    assert {found[rule] for rule in STORED} == {0}
    assert found["fit_crosscoder"] == fits(smoke())


def test_how_dumps_are_computed_redoes_none(tree: Path) -> None:
    raw = put(put(smoke(), "activations.batch_tokens", 512), "activations.device", "auto")
    assert set(jobs(tree, raw).values()) == {0}
