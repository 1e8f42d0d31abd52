"""The examples of docs/extending.md apply to the code as it is, pass lint and types, and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow import running
from workflow_scripts.common.provenance import ROOT

DIFFS = {path.stem: path for path in sorted((ROOT / "docs/extending").glob("*.diff"))}


@pytest.fixture(params=sorted(DIFFS))
def patched(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A tree with one of the diffs, by its name."""
    folder = running.copy_tree(tmp_path / "tree")
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    run(["patch", "-p1", "--no-backup-if-mismatch", "-i", str(DIFFS[request.param])], folder)
    return request.param, folder


def run(command: list[str], folder: Path) -> str:
    """Run a command that must succeed; return what it printed."""
    settings = running.environment() | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(code: str, folder: Path) -> str:
    """Run Python code in a tree."""
    return run([sys.executable, "-c", code], folder)


MOST_FILES = {"figure": 3, "gpu_rule": 4, "source": 3, "sparsity_rule": 3, "training_setting": 1}
CAPPED = """
import torch
from workflow_scripts.crosscoder.sparsity import sparsity_rule
scores = torch.zeros(16, 64)
scores[0] = torch.arange(64) + 100.0
scores[1:, 0] = 1.0
active = sparsity_rule("capped", 0.0).select(scores, 2)
print(int((active.rows == 0).sum()))
"""
SOURCE = """
from pathlib import Path
from workflow_scripts.dataset.settings import FileSource
from workflow_scripts.dataset.sources import NamedSource
source = NamedSource("mine", FileSource(kind="files", path="notes/*.txt"), 0)
print(sorted(document.text for document in source.documents(lambda document: 1.0)))
"""
RATES = """
from workflow_scripts.crosscoder.settings import Training
training = Training(decay="cosine", tokens=400, batch=100, decay_share=1.0, warmup_share=0.0,
                    learning_rate=1.0)
print(*(training.learning_rate_at(done) for done in range(4)))
"""


def test_example(patched: tuple[str, Path]) -> None:
    name, folder = patched
    tools = Path(sys.executable).parent
    touched = re.findall(r"^\+\+\+ b/(.*)$", DIFFS[name].read_text(encoding="utf-8"), re.M)
    python_files = [file for file in touched if file.endswith(".py")]
    run([str(tools / "ruff"), "check", *python_files], folder)
    run([str(tools / "ruff"), "format", "--check", *python_files], folder)
    if rules := [file for file in touched if file.endswith(".smk")]:
        run([str(tools / "snakefmt"), "--check", *rules], folder)
    assert len(touched) <= MOST_FILES[name]
    CHECKS[name](folder)


def check_sparsity(folder: Path) -> None:
    """No token takes more than four times k, and the config takes the variant."""
    assert python(CAPPED, folder).strip() == "8"
    config = (folder / "config/smoke.yaml").read_text(encoding="utf-8")
    own = config.replace("crosscoder: {", "crosscoder: {variant: capped, ", 1)
    (folder / "own.yaml").write_text(own)
    plan = running.snakemake(folder, "-n", "--configfile", "own.yaml")
    assert "fit_crosscoder" in running.planned(plan)


def check_source(folder: Path) -> None:
    """Files become documents, and the config takes the kind."""
    (folder / "notes").mkdir()
    for name in ("a", "b"):
        (folder / f"notes/{name}.txt").write_text(f"text {name}", encoding="utf-8")
    assert python(SOURCE, folder).strip() == "['text a', 'text b']"
    config = (folder / "config/smoke.yaml").read_text(encoding="utf-8")
    own = "\n    mine: {kind: files, path: notes/*.txt}"
    (folder / "own.yaml").write_text(config.replace("  sources:", f"  sources:{own}", 1))
    assert "sample_documents" in running.planned(
        running.snakemake(folder, "-n", "--configfile", "own.yaml")
    )


def check_figure(folder: Path) -> None:
    """The figure is planned for each fit, and drawn from a table of latents."""
    plan = running.snakemake(folder, "-n", "--configfile", "config/smoke.yaml")
    assert "plot_cosines" in running.planned(plan)
    table = pd.DataFrame(
        {
            "latent": [0, 1, 2],
            "live": [True, True, False],
            "delta_norm_a_b": [0.5, 0.9, 0.1],
            "cosine_a_b": [0.99, 0.1, 0.0],
        }
    )
    table.to_parquet(folder / "latents.parquet")
    flags = ["--latents", "latents.parquet", "--models", "a", "b", "--png", "c.png"]
    module = "workflow_scripts.figures.plot_cosines"
    run([sys.executable, "-m", module, *flags, "--pdf", "c.pdf", "--table", "c.csv"], folder)
    assert list(pd.read_csv(folder / "c.csv")["latent"]) == [0, 1]
    assert (folder / "c.png").stat().st_size > 5_000


def check_gpu_rule(folder: Path) -> None:
    """The rule is planned with a request, and counts the active latents of a crosscoder."""
    table = "results/smoke/latents/pt_it/seed0/active.csv"
    plan = running.snakemake(folder, "-n", "--configfile", "config/smoke.yaml", "--", table)
    job = re.search(r"^rule count_active:\n(?:    .*\n)+", plan, re.M)
    assert job is not None
    assert re.search(r"mem_mb=\d{4}", job[0])
    assert "--crosscoder" in run(
        [sys.executable, "-m", "workflow_scripts.latents.count_active", "--help"], folder
    )


def check_training_setting(folder: Path) -> None:
    """The config takes it, every fit gets it by a flag, and the rate falls as a cosine."""
    config = (folder / "config/smoke.yaml").read_text(encoding="utf-8")
    own = config.replace("crosscoder: {", "crosscoder: {decay: cosine, ", 1)
    (folder / "own.yaml").write_text(own)
    plan = running.snakemake(folder, "-n", "-p", "--configfile", "own.yaml")
    fits = [line for line in plan.splitlines() if "-m workflow_scripts.crosscoder.fit" in line]
    assert fits
    assert all("--decay=cosine" in line for line in fits)
    rates = [float(rate) for rate in python(RATES, folder).split()]
    assert rates == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


CHECKS = {
    "figure": check_figure,
    "gpu_rule": check_gpu_rule,
    "source": check_source,
    "sparsity_rule": check_sparsity,
    "training_setting": check_training_setting,
}
