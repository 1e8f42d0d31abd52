"""Tasks of Slurm's job arrays run their own command, and nothing around it.

The Slurm plugin (2.8) starts every task of an array with the command of the first one, which then
runs the task's own command and at last looks for the *first* task's files: where that task failed
or is slower, all others fail and their finished files are removed (its issue 447). So a task that
is not the first gives way to its own command, before anything else is done.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping, Sequence

OPTION = "--slurm-jobstep-array-execs"


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
