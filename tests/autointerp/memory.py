"""The peak of memory of the annotators' steps, each as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from tests.autointerp.llm_run import ANNOTATORS
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.common.provenance import ROOT

# The peak of resource.getrusage is that of the parent too, before it became another program.
MEASURED = """
import importlib, re, sys
import pyarrow
from pathlib import Path
from workflow_scripts.autointerp import latent_tables
from workflow_scripts.autointerp.prompting import contexts
batch, name, *flags = sys.argv[1:]
step = importlib.import_module("workflow_scripts.autointerp." + name)
if int(batch):
    step.BATCH = latent_tables.READ_LATENTS = contexts.HELD_LATENTS = int(batch)
code = step.main(flags)
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
print(1024 * int(peak), pyarrow.default_memory_pool().max_memory())
raise SystemExit(code)
"""


def copied(path: Path, copies: int) -> pd.DataFrame:
    """Return a table's rows over and over, each time of other latents: 10 times their number."""
    table = pd.read_parquet(path)
    size = int(table["latent"].max()) + 1
    parts = [table.assign(latent=10 * (table["latent"] + size * i)) for i in range(copies)]
    return pd.concat(parts, ignore_index=True)


def make_examples(data: Path, folder: Path, copies: int) -> None:
    """Write the examples of ``data`` so many times over, and its background, into ``folder``."""
    copied(data / "examples.parquet", copies).to_parquet(folder / "examples", index=False)
    (folder / "background").write_bytes((data / "background.parquet").read_bytes())


def peaks(batch: int, step: str, *flags: object) -> tuple[int, int]:
    """Run a step; return the peaks of the process and of Arrow's tables, in bytes.

    It takes ``batch`` latents at a time; as many as in the workflow where that is 0.
    """
    command = [sys.executable, "-c", MEASURED, str(batch), step, *map(str, flags)]
    # Each thread keeps a heap of its own; and `make bench` sets MALLOC_* so that heaps only grow.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process, tables = done.stdout.split()
    return int(process), int(tables)


def run(folder: Path, batch: int) -> dict[str, tuple[int, int]]:
    """Run the steps up to the requests in a folder of :func:`make_examples`; return their peaks."""
    contexts, latents = folder / "contexts.parquet", folder / "latents.parquet"
    both = ("--contexts", contexts, "--latents", latents, "--seed", 0)
    shared = (*both, "--taxonomy", SHIPPED)
    return {
        "select_contexts": peaks(
            batch, "select_contexts", *both, "--examples", folder / "examples"
        ),
        "explain_lexical": peaks(
            batch,
            "explain_lexical",
            *(*shared, "--background", folder / "background", "--output", folder / "lexical"),
        ),
        "build_requests": peaks(
            batch,
            "build_requests",
            *(*shared, "--purpose", "score", "--annotators", json.dumps(ANNOTATORS)),
            *("--prices={}", "--limits={}", "--code="),
            *("--explanations", explanations(folder)),
            *("--requests", folder / "requests.jsonl", "--plan", folder / "plan.json"),
        ),
    }


def explanations(folder: Path) -> Path:
    """Write an explanation of each latent by each annotator."""
    latents = pd.read_parquet(folder / "latents.parquet")["latent"]
    rows = [(name, 0, latent, "words of the sea") for name in ANNOTATORS for latent in latents]
    path = folder / "explanations"
    columns = ["annotator", "replicate", "latent", "explanation"]
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    return path
