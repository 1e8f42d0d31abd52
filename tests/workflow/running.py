"""Whole runs in a copy of the working tree."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.provenance import ROOT

PARTS = ("Snakefile", "rules", "workflow_scripts", "config", "profiles", "envs", "reproduce_paper")
NOTHING = "Nothing to be done"


def copy_tree(folder: Path) -> Path:
    """Copy what a run needs, without results, and return the copy."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".snakemake")
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy2(source, folder / part)
    return folder


def command(*arguments: str) -> list[str]:
    """Return Snakemake's command line."""
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    """Return the environment without what would lead a copy back to this tree."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OPENAI_API_KEY")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(folder: Path, *arguments: str, good: bool = True) -> str:
    """Run Snakemake in ``folder`` and return what it printed; it must succeed unless told."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == good, done.stdout
    return done.stdout


def smoke(folder: Path, *arguments: str) -> str:
    """Run the smoke config in ``folder``."""
    return snakemake(folder, "--cores", "2", "--configfile", "config/smoke.yaml", *arguments)


def planned(output: str) -> dict[str, set[str]]:
    """Return, from a dry run's output, each rule that would run with the reasons it gives."""
    rules: dict[str, set[str]] = {}
    rule = ""
    for line in output.splitlines():
        if found := re.match(r"\s*(?:local)?(?:rule|checkpoint) (\w+):", line):
            rule = found[1]
            rules.setdefault(rule, set())
        elif found := re.match(r"\s+reason: (.*)", line):
            rules[rule].add(re.split(r"[:;]", found[1])[0].strip())
    return rules


def artifacts(results: Path) -> Iterator[Path]:
    """Yield the files of ``results`` that hold results: neither logs nor timings."""
    for path in sorted(results.rglob("*")):
        if path.is_file() and not path.is_symlink() and "logs" not in path.parts:
            yield path


def hashes(results: Path) -> dict[str, str]:
    """Return the SHA-256 of each artifact, by its path under ``results``."""
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in artifacts(results)
    }
