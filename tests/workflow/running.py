"""Whole runs in a copy of the working tree."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from workflow_scripts.common.provenance import ROOT

PARTS = ("Snakefile", "rules", "workflow_scripts", "config", "profiles", "envs", "reproduce_paper")
NOTHING = "Nothing to be done"


class Run(NamedTuple):
    """A finished smoke run: its tree and what it printed.

    Tests in several processes share the run: whoever changes it works on a copy.
    """

    folder: Path
    output: str

    def copy(self, folder: Path) -> Path:
        """Copy the tree, results included, to ``folder``."""
        # Another process may hold Snakemake's lock on the tree.
        ignored = shutil.ignore_patterns("locks", "log")
        return shutil.copytree(self.folder, folder, symlinks=True, ignore=ignored)


def copy_tree(folder: Path, origin: Path = ROOT) -> Path:
    """Copy what a run needs from ``origin``, without results, and return the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = origin / part
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
    """Return a user's environment: nothing leads back to this tree or tells of ``make test``."""
    left_out = (
        "PYTHONPATH",
        "OPENAI_API_KEY",
        "SNAKEMAKE_PROFILE",
        "MAKELEVEL",
        "MAKEFLAGS",
        "MFLAGS",
    )
    kept = {k: v for k, v in os.environ.items() if k not in left_out}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(folder: Path, *arguments: str, good: bool = True) -> str:
    """Run Snakemake in ``folder`` and return what it printed; it must succeed if ``good``."""
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


def planned(output: str) -> set[str]:
    """Return the rules that would run, from a dry run's output."""
    found = set(re.findall(r"^\s*(?:local)?(?:rule|checkpoint) (\w+):", output, re.MULTILINE))
    return found - {"all"}


def rule_edges(folder: Path) -> list[tuple[str, str]]:
    """Return which rule's files which other rule needs."""
    graph = smoke(folder, "--rulegraph", "dot")
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', graph, re.MULTILINE))
    return [(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", graph)]


def downstream(edges: Iterable[tuple[str, str]], rules: Iterable[str]) -> set[str]:
    """Return ``rules`` with all rules that need what they make."""
    found = set(rules)
    while more := {b for a, b in edges if a in found} - found:
        found |= more
    return found - {"all"}


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
