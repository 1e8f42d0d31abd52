"""The benchmarks run: tiny sizes, no bounds."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.benchmarks import bench_fve, bench_grid, bench_latents, gpu
from tests.benchmarks.report import Figure, at_least, record
from tests.benchmarks.sizes import Size


def test_gpu_benchmark_on_the_cpu(tmp_path: Path) -> None:
    """All parts but the runs of the workflow, in tiny form; none fails or is left out."""
    table = tmp_path / "table.csv"
    names = [name for name in gpu.PARTS if name != "workflow"]
    assert gpu.run(names, torch.device("cpu"), gpu.LIMIT, table) == 0
    rows = pd.read_csv(table)
    assert set(rows["benchmark"]) >= {"crosscoder_step_cpu_D16", "fit_feed_cpu", "dump on cpu"}
    assert rows["value"].map(math.isfinite).all()


def test_a_part_without_time_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.run(["step"], torch.device("cpu"), 0.0, tmp_path / "table.csv") == 0
    assert "step: left out" in capsys.readouterr().out
    assert not (tmp_path / "table.csv").exists()


def test_scoring() -> None:
    size = bench_latents.Size(F=128, D=16, K=4, tokens=16 * bench_latents.LENGTH)
    with torch.no_grad():
        rows = {figure.figure: figure.value for figure in bench_latents.measure(size)}
    assert all(math.isfinite(value) and value > 0 for value in rows.values())
    assert rows["scored"] > rows["encoded"] / 2


def test_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = bench_grid.cost(Size(F=64, B=16, k=4, D=8))
    assert 0 < small.encoder < small.step
    costs = {
        (axis, v): bench_grid.Cost(1, 2, v) for axis, vs in bench_grid.AXES.items() for v in vs
    }
    monkeypatch.setattr(bench_grid, "PLOT", tmp_path / "grid.png")
    bench_grid.plot(costs)
    assert (tmp_path / "grid.png").stat().st_size > 10_000
    rows = {figure.figure: figure for figure in bench_grid.figures(costs)}
    assert rows["memory, D=512 / D=256"].value == 2


def test_reference_of_the_fve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AuxK ours is the reference: the same FVE to rounding, after a few steps."""
    monkeypatch.setattr(bench_fve, "STEPS", 12)
    monkeypatch.setattr(bench_fve, "TOKENS", 4000)
    monkeypatch.setattr(bench_fve, "SEEDS", (0, 1))
    with torch.no_grad():
        rows = {figure.figure: figure.value for figure in bench_fve.measure()}
    assert rows["ours - dense"] == pytest.approx(0, abs=1e-4)
    assert 0 < rows["dense, mean of 2"] < 1


def test_rows_of_other_benchmarks_stay(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    record([Figure("a", "x", 1.0, "s"), Figure("b", "y", 2.0, "s")], table)
    record([at_least("a", "x", 3.0, "s", 4.0)], table)
    lines = table.read_text(encoding="utf-8").splitlines()
    assert sorted(lines[1:]) == ["a,x,3,s,>= 4,no", "b,y,2,s,,"]
