"""Lint: formatting, types and Snakemake's own advice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow import running
from workflow_scripts.common.provenance import ROOT

CODE = ("diffscope", "workflow_scripts", "tests")


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", *CODE),
        ("ruff", "format", "--check", *CODE),
        ("mypy",),
        ("snakefmt", "--check", "Snakefile", "rules"),
        ("snakemake", "--lint"),
    ],
    ids=lambda command: "_".join(command[:2]),
)
def test_lint(command: tuple[str, ...]) -> None:
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [tool, *command[1:]],
        cwd=ROOT,
        env=running.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
