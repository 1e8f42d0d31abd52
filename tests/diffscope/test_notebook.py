"""The notebook runs on a finished run, cell by cell, and is kept without outputs."""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.workflow.running import Run
from workflow_scripts.common.provenance import ROOT

PATH = ROOT / "notebooks/explore.ipynb"


@pytest.mark.workflow
def test_every_cell_runs(
    smoke_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a kernel, which takes twenty packages: the cells use nothing of Jupyter."""
    monkeypatch.setenv("DIFFSCOPE_RUN", str(smoke_run.folder / "results/smoke"))
    monkeypatch.chdir(PATH.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    cells = json.loads(PATH.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)
    drawn = [plt.figure(number).axes[0] for number in plt.get_fignums()]
    assert all(axes.has_data() for axes in drawn)
    plt.close("all")
    assert len(drawn) == 3
    assert len(names["firing"].active) > 0
    told = capsys.readouterr().out
    assert "Against it, simpo " in told
    assert f"latent {names['latent'].number}, " in told
