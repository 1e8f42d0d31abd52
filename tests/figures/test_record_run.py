"""The record of a run: its links, however many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.common import files
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.run.flags import as_json

LONGEST = 131_072  # bytes of one argument on Linux


def test_the_links_of_a_large_run_pass_to_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 layers of two models in 60 shards: their paths are longer than an argument may be."""
    monkeypatch.chdir(tmp_path)
    links = {
        f"results/large/activations/{model}/layer{layer}/shard{shard:03d}.h5": (
            f"results/store/{layer:016x}/{model}/group{layer}/shard{shard:03d}.h5"
        )
        for model in ("base", "tuned")
        for layer in range(12)
        for shard in range(60)
    }
    for target in map(Path, links.values()):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    argument = as_json(links)
    assert len(argument) < LONGEST < len(str(links))
    assert as_json(links) == argument
    command = [sys.executable, "-m", "workflow_scripts.figures.record_run"]
    flags = ["--settings", '{"run": "large"}', "--steps", "figures.record_run", "--models", "{}"]
    flags += ["--links", argument, "--output", "record.json"]
    subprocess.run([*command, *flags], env={"PYTHONPATH": str(ROOT)}, check=True)
    assert all(Path(link).resolve() == Path(target).resolve() for link, target in links.items())
    record = files.read_json(tmp_path / "record.json")
    assert record["links"] == links
    assert record["run"] == "large"
