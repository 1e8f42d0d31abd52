"""What a Slurm of one node knows of its jobs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Job:
    """A job that has ended."""

    id: int
    state: str
    partition: str
    gpus: int
    mem_mb: int
    limit: str
    start: datetime | None
    end: datetime | None
    log: str

    @property
    def rule(self) -> str:
        """The rule that it ran, from its log's folder."""
        found = re.search(r"/rule_(\w+)/", self.log)
        return found.group(1) if found else ""


def jobs() -> list[Job]:
    """Return all jobs that the controller remembers."""
    told = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    )
    return [parse(line) for line in told.stdout.splitlines() if line.startswith("JobId=")]


def parse(line: str) -> Job:
    """Return the job of one line of ``scontrol show job --oneliner``."""
    values = dict(re.findall(r"(\S+?)=(\S*)", line))
    gpu = re.search(r"gpu:(\d+)", values.get("TresPerJob", ""))
    memory = re.fullmatch(r"(\d+(?:\.\d+)?)([MG]?)", values["MinMemoryNode"])
    assert memory is not None, values["MinMemoryNode"]
    return Job(
        id=int(values["JobId"]),
        state=values["JobState"],
        partition=values["Partition"],
        gpus=int(gpu.group(1)) if gpu else 0,
        mem_mb=round(float(memory.group(1)) * (1024 if memory.group(2) == "G" else 1)),
        limit=values["TimeLimit"],
        start=_time(values["StartTime"]),
        end=_time(values["EndTime"]),
        log=values["StdOut"],
    )


def _time(text: str) -> datetime | None:
    return None if text == "Unknown" else datetime.fromisoformat(text)


def peak_gpus(found: Iterable[Job]) -> int:
    """Return the largest number of GPUs in use at once; Slurm tells times in whole seconds."""
    changes = []
    for job in found:
        if job.gpus and job.start and job.end:
            changes += [(job.start, 1, job.gpus), (job.end, 0, -job.gpus)]
    used = peak = 0
    for _, _, change in sorted(changes):
        used += change
        peak = max(peak, used)
    return peak
