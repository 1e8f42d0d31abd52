"""GPUs of a machine, each for one job at a time."""

from __future__ import annotations

import atexit
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from workflow_scripts.common import cli
from workflow_scripts.common.files import read_json, write_json

DEVICES = Path("/dev")
RANK, PROCESSES = "LOCAL_RANK", "LOCAL_WORLD_SIZE"
"""Of the processes that ``torchrun`` starts: process n uses the n-th GPU that it sees."""
RUN, RESTART = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"
"""What such processes share."""
ALLOCATION = "SLURM_JOB_ID"
"""Allocations of a cluster count their GPUs each from 0."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 1.0  # seconds between attempts
_held = ExitStack()  # until the process ends


def take_gpus(count: int) -> None:
    """Let this process use ``count`` of the machine's GPUs that no other job of ours uses.

    It waits for them where all are taken. CUDA sees these alone, so this comes before it starts.
    Where there are no more than ``count``, as in a job of a cluster, nothing is to be chosen. The
    processes of ``torchrun`` take theirs together, and all see the same.
    """
    gpus = visible_gpus()
    count *= int(os.environ.get(PROCESSES, "1"))
    if len(gpus) <= count:
        return
    chosen = _lock_together(gpus, count) if RANK in os.environ else _lock(gpus, count)
    os.environ[VISIBLE] = ",".join(chosen)
    cli.log(f"GPU {' and '.join(chosen)} of {len(gpus)}")


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA would see, by number or name."""
    set_by_user = os.environ.get(VISIBLE)
    if set_by_user is not None:
        return [name.strip() for name in set_by_user.split(",") if name.strip()]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in DEVICES.glob("nvidia*"))
    return sorted((match[1] for match in numbers if match), key=int)


def _folder() -> Path:
    """Return the folder of locks, one per user and allocation."""
    allocation = re.sub(r"\W", "_", os.environ.get(ALLOCATION, ""))
    name = "-".join(filter(None, ("diffscope-gpus", str(os.getuid()), allocation)))
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _lock_together(gpus: Sequence[str], count: int) -> list[str]:
    """Return the GPUs that the first of several processes locks for all of them."""
    # Their parent is one too, for runs without a name of their own.
    shared = [os.environ.get(name, "") for name in (RUN, RESTART)]
    name = re.sub(r"\W", "_", "-".join([*shared, str(os.getppid())]))
    choice = _folder() / f"{name}.json"
    if os.environ[RANK] == "0":
        chosen = _lock(gpus, count)
        write_json(choice, chosen)
        atexit.register(choice.unlink, missing_ok=True)
        return chosen
    while not choice.exists():
        time.sleep(PAUSE)
    return [str(gpu) for gpu in read_json(choice)]


def _lock(gpus: Sequence[str], count: int) -> list[str]:
    """Lock so many GPUs at once, or none: two jobs that hold one each would wait for ever."""
    folder = _folder()
    told = False
    while True:
        with ExitStack() as locks:
            chosen = []
            for name in gpus:
                lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock")
                try:
                    locks.enter_context(lock.acquire(blocking=False))
                except Timeout:
                    continue
                chosen.append(name)
                if len(chosen) == count:
                    _held.push(locks.pop_all())
                    return chosen
        if not told:
            cli.log(f"waiting for {count} of {len(gpus)} GPUs: others of your jobs use them")
            told = True
        time.sleep(PAUSE)
