"""The calling step as tests start it: in the process, or as one of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.autointerp.llm_run import Run
from workflow_scripts.common.provenance import ROOT

OUTPUTS = ("responses.jsonl", "ledger.csv", "manifest.json")


def quick_run(contexts: Path, folder: Path, url: str, cache: str = "cache") -> Run:
    """Return a run of few held-out contexts whose cache lies beside its folder."""
    return Run(contexts, folder, url, folder.parent / cache, held_out=20, null=10)


def output_digests(run: Run, *purposes: str) -> dict[str, str]:
    """Return the SHA-256 of each output of some purposes."""
    digests = {}
    for purpose in purposes:
        for name in OUTPUTS:
            path = run.file(purpose, name)
            digests[f"{purpose}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def spawn(run: Run, purpose: str, *flags: str) -> subprocess.Popen[str]:
    """Start the calling step as a process of its own."""
    command = [sys.executable, "-m", "workflow_scripts.autointerp.call_llm"]
    return subprocess.Popen(
        [*command, *run.call_flags(purpose, *flags)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(condition: object, seconds: float = 20.0) -> None:
    """Wait until a condition holds, and fail if it does not."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def request_ids(run: Run, purpose: str) -> list[str]:
    """Return the ids of the requests of one purpose."""
    lines = run.file(purpose, "requests.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["id"] for line in lines]
