"""Two mends of how the Slurm plugin (2.8) makes job arrays.

Tasks run their own command, and nothing around it. The plugin starts every task of an array with
the command of the first one, which then runs the task's own command and at last looks for the
*first* task's files: where that task failed or is slower, all others fail and their finished files
are removed (its issue 447). So a task that is not the first gives way to its own command, before
anything else is done.

Tasks of one array ask for the same. The plugin asks for what the first job needs, so that a job
that is repeated with more memory, beside others that are new, would get as little as before.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

OPTION = "--slurm-jobstep-array-execs"
PLUGIN = "snakemake_executor_plugin_slurm"


def own_command(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the command of this task of an array; None for the first, or where there is none.

    The plugin hands over, as base64, a JSON object: task number to the hex digits of the command,
    compressed by zlib.
    """
    payload = _value(arguments)
    task = environment.get("SLURM_ARRAY_TASK_ID")
    if payload is None or task is None or task == environment.get("SLURM_ARRAY_TASK_MIN"):
        return None
    commands: dict[str, str] = json.loads(base64.b64decode(payload))
    return zlib.decompress(bytes.fromhex(commands[task])).decode()


def _value(arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == OPTION and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{OPTION}="):
            return argument.removeprefix(f"{OPTION}=")
    return None


def give_way(arguments: Sequence[str]) -> None:
    """Become this task's own command, if this process is a task's that is not the first."""
    command = own_command(arguments, os.environ)
    if command is not None:
        os.execv("/bin/sh", ["sh", "-c", command])


def part_arrays() -> None:
    """Let the Slurm plugin, where it is loaded, make arrays of jobs that ask for the same."""
    executor = getattr(sys.modules.get(PLUGIN), "Executor", None)
    submit = getattr(executor, "_submit_array_jobs", None)
    if submit is None or hasattr(submit, "parts"):
        return

    def submit_parts(self: Any, jobs: Sequence[Any]) -> None:
        parts: dict[str, list[Any]] = {}
        for job in jobs:
            parts.setdefault(_asked(job), []).append(job)
        for part in parts.values():
            if len(part) > 1:
                submit(self, part)
            else:
                self._submit_job(part[0])

    submit_parts.parts = True  # type: ignore[attr-defined]
    setattr(executor, "_submit_array_jobs", submit_parts)  # noqa: B010


def _asked(job: Any) -> str:
    """Return what a job asks for, as text; its folder for temporary files is no request."""
    asked = {name: value for name, value in job.resources.items() if name != "tmpdir"}
    return repr((job.threads, sorted(asked.items())))
