"""The record of a run: its links, however many."""

from __future__ import annotations

import json
from pathlib import Path

from workflow_scripts.common import files
from workflow_scripts.figures import record_run

LONGEST = 131_072  # bytes of one argument on Linux


def test_the_links_of_a_large_run_fit_on_a_command_line(tmp_path: Path) -> None:
    """12 layers of two models in 60 shards: their paths alone are longer than a command line."""
    names = [f"shard{number:03d}.h5" for number in range(60)]
    links = {
        str(tmp_path / f"results/large/activations/{model}/layer{layer}"): {
            str(tmp_path / f"results/store/{layer:016d}/{model}/all"): names
        }
        for model in ("base", "tuned")
        for layer in range(12)
    }
    pairs = {
        f"{folder}/{name}": f"{store}/{name}"
        for folder, stores in links.items()
        for store in stores
        for name in names
    }
    for target in pairs.values():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    assert len(json.dumps(pairs)) > LONGEST > 2 * len(json.dumps(links))
    flags = ["--settings", '{"run": "large"}', "--steps", "figures.record_run", "--models", "{}"]
    flags += ["--links", json.dumps(links), "--output", str(tmp_path / "record.json")]
    assert record_run.main(flags) == 0
    assert all(Path(link).resolve() == Path(target) for link, target in pairs.items())
    record = files.read_json(tmp_path / "record.json")
    assert record["links"] == pairs
    assert record["run"] == "large"
