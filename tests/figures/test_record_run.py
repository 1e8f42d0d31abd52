"""The record of a run: its links, however many."""

from __future__ import annotations

import json
from pathlib import Path

from workflow_scripts.common import files
from workflow_scripts.figures import record_run


def test_more_links_than_a_command_line_holds(tmp_path: Path) -> None:
    target = tmp_path / "store/shard.h5"
    target.parent.mkdir()
    target.touch()
    links = {str(tmp_path / f"run/activations/shard{n:04d}.h5"): str(target) for n in range(1500)}
    (tmp_path / "links.json").write_text(json.dumps(links))
    assert (tmp_path / "links.json").stat().st_size > 131_072
    flags = ["--settings", '{"run": "many"}', "--steps", "figures.record_run", "--models", "{}"]
    flags += ["--links", str(tmp_path / "links.json"), "--output", str(tmp_path / "record.json")]
    assert record_run.main(flags) == 0
    assert all(Path(link).resolve() == target for link in links)
    record = files.read_json(tmp_path / "record.json")
    assert record["links"] == links
    assert record["run"] == "many"
