"""The plan says what witnesses cost, and which layer the weights suggest once they are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.test_settings import put, smoke
from workflow_scripts.common.tables import write_csv
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.plan_witnesses import label_flop, spectrum_flop, weight_lines


def test_weights_suggest_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(smoke())
    (line,) = weight_lines(config)
    path = line.split("snakemake ")[1]
    name = Path(path).stem
    assert path == Paths(config).weights(name)
    changes = [{"layer": layer, "change": change} for layer, change in ((0, 9), (1, 1), (2, 3))]
    write_csv(Path(path), changes)
    assert "blocks 1 to 2: look at layer 2" in next(iter(weight_lines(config)))
    write_csv(Path(path), [{"layer": 1, "change": 0.0}])
    assert "no block differs" in next(iter(weight_lines(config)))


def test_what_is_off_costs_nothing() -> None:
    config = load(smoke())
    assert label_flop(config) > 0 < spectrum_flop(config)
    less = put(smoke(), "comparison.prediction_documents", 0)
    assert 0 < label_flop(load(less)) < label_flop(config)
    assert label_flop(load(put(less, "comparison.answer_documents", 0))) == 0
    off = load(put(smoke(), "comparison.weight_changes", "none"))
    assert spectrum_flop(off) == 0
    assert list(weight_lines(off)) == []
