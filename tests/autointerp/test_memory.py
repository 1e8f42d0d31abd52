"""Four times the latents need about as much memory, and no more than a little per judged item."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.autointerp.llm_run import ANNOTATORS
from tests.autointerp.test_by_latent import copied
from tests.autointerp.test_taxonomy import SHIPPED
from workflow_scripts.autointerp.requests import Request, read_header, read_requests, write_requests
from workflow_scripts.provenance import ROOT

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="the peak is read from Linux's /proc")

# The peak of resource.getrusage is that of the parent too, before it became another program.
MEASURED = """
import importlib, re, sys
import pyarrow
from pathlib import Path
from workflow_scripts.autointerp import by_latent, contexts
by_latent.READ_LATENTS = contexts.HELD_LATENTS = 30
step = importlib.import_module("workflow_scripts.autointerp." + sys.argv[1])
step.BATCH = 30
code = step.main(sys.argv[2:])
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
print(1024 * int(peak), pyarrow.default_memory_pool().max_memory())
raise SystemExit(code)
"""
COPIES = 30, 120
"""Of four latents; a batch holds thirty."""


def peaks(step: str, *flags: object) -> tuple[int, int]:
    """Run a step; return the peaks of the process and of Arrow's tables, in bytes."""
    command = [sys.executable, "-c", MEASURED, step, *map(str, flags)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # each thread keeps a heap of its own
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process, tables = done.stdout.split()
    return int(process), int(tables)


def run(folder: Path) -> dict[str, tuple[int, int]]:
    """Run the steps up to the requests in ``folder``, which holds examples and a background."""
    contexts, latents = folder / "contexts.parquet", folder / "latents.parquet"
    both = ("--contexts", contexts, "--latents", latents, "--seed", 0)
    shared = (*both, "--taxonomy", SHIPPED)
    return {
        "select_contexts": peaks("select_contexts", *both, "--examples", folder / "examples"),
        "explain_lexical": peaks(
            "explain_lexical",
            *(*shared, "--background", folder / "background", "--output", folder / "lexical"),
        ),
        "build_requests": peaks(
            "build_requests",
            *(*shared, "--purpose", "score", "--annotators", json.dumps(ANNOTATORS)),
            *("--explanations", explanations(folder)),
            *("--requests", folder / "requests.jsonl", "--plan", folder / "plan.json"),
        ),
    }


def explanations(folder: Path) -> Path:
    """Write an explanation of each latent by each annotator."""
    latents = pd.read_parquet(folder / "latents.parquet")["latent"]
    rows = [(a["name"], 0, latent, "words of the sea") for a in ANNOTATORS for latent in latents]
    path = folder / "explanations"
    columns = ["annotator", "replicate", "latent", "explanation"]
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def folders(contexts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return folders with the examples of 120 latents and of four times as many."""
    made = [tmp_path_factory.mktemp(f"copies{copies}") for copies in COPIES]
    for folder, copies in zip(made, COPIES, strict=True):
        copied(contexts / "examples.parquet", copies).to_parquet(folder / "examples", index=False)
        (folder / "background").write_bytes((contexts / "background.parquet").read_bytes())
    return made


@pytest.fixture(scope="module")
def measured(folders: list[Path]) -> list[dict[str, tuple[int, int]]]:
    return [run(folder) for folder in folders]


def test_four_times_the_latents_need_about_the_same_memory(
    measured: list[dict[str, tuple[int, int]]],
) -> None:
    few, many = measured
    for step, (process, tables) in many.items():
        assert process < 1.2 * few[step][0], (step, process, few[step])
        assert tables < 1.3 * few[step][1], (step, tables, few[step])


def answered(folder: Path, times: int) -> list[object]:
    """Write the requests of the first annotator so often, as replicates, and an answer to each.

    Return the flags that parsing them takes.
    """
    source, requests = folder / "requests.jsonl", folder / f"requests{times}.jsonl"
    header = read_header(source)
    write_requests(requests, header, replicated(source, times))
    responses = folder / f"responses{times}.jsonl"
    with responses.open("w", encoding="utf-8") as out:
        for request in read_requests(requests):
            scores = [{"item": item, "score": 50} for item in request.items]
            reply = {"key": "", "content": json.dumps({"answers": scores}), "finish_reason": "stop"}
            line = {"id": request.id, "failure": None, "exchanges": [reply]}
            out.write(json.dumps(line) + "\n")
    return [
        *("--requests", requests, "--responses", responses, "--replicates", times),
        *("--latents", folder / "latents.parquet", "--taxonomy", SHIPPED),
        *("--annotators", json.dumps(ANNOTATORS), "--purpose", "score"),
        *("--output", folder / "scores.parquet", "--summary", folder / "summary.json"),
    ]


def replicated(path: Path, times: int) -> Iterator[Request]:
    """Yield all requests, so many times as other replicates."""
    for replicate in range(times):
        for request in read_requests(path):
            yield replace(request, id=f"{request.id}-{replicate}", replicate=replicate)


@pytest.mark.usefixtures("measured")
def test_an_answered_item_takes_few_bytes(folders: list[Path]) -> None:
    """Hundreds would be the objects of an item; what stays are numbers of ten bytes, and copies."""
    folder, times = folders[0], (1, 8)
    items = sum(len(request.items) for request in read_requests(folder / "requests.jsonl"))
    few, many = (peaks("parse_responses", *answered(folder, n))[0] for n in times)
    assert items > 4000
    assert many - few < 100 * items * (times[1] - times[0]), (few, many, items)
