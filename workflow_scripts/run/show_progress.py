"""Repeat on the terminal how far the running steps are: new lines of their logs.

The Snakefile uses this module; no step does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.common.progress import LINE

PAUSE = 15.0
"""Seconds between two looks at the logs."""
TAIL = 4096
"""Bytes of a log's end that are read."""


def show_progress(jobs: Iterable[Any]) -> None:
    """Print new lines of the logs of Snakemake's jobs, as long as the run lasts.

    Nothing is printed where standard error is no terminal, or under continuous integration.
    """
    if sys.stderr.isatty() and not os.environ.get("CI"):
        logs = {name_of(job): Path(job.log[0]) for job in jobs if job.log}
        threading.Thread(target=_watch, args=(logs,), daemon=True).start()


def name_of(job: Any) -> str:
    """Return a job of Snakemake's in words: its rule, and its wildcards but the store's key."""
    values = (str(value) for name, value in job.wildcards_dict.items() if name != "key")
    return " ".join([job.rule.name, *values])


def _watch(logs: Mapping[str, Path]) -> None:
    shown = {name: latest(path) for name, path in logs.items()}  # what earlier runs left
    while not threading.Event().wait(PAUSE):
        for line in new_lines(logs, shown):
            print(line, file=sys.stderr, flush=True)


def new_lines(logs: Mapping[str, Path], shown: dict[str, str]) -> Iterator[str]:
    """Yield a line for each job that got further since ``shown``, which is updated."""
    for name, path in logs.items():
        line = latest(path)
        if line and line != shown.get(name):
            shown[name] = line
            yield f"  {name}: {line}"


def latest(log: Path) -> str:
    """Return how far a step is by the end of its log, empty if it does not say."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            end = file.read().decode(errors="replace")
    except OSError:
        return ""  # the job has not started, or starts again
    lines = [match[1] for match in map(LINE.fullmatch, end.splitlines()) if match]
    return lines[-1] if lines else ""
