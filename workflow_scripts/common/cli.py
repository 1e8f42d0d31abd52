"""What every step's command line shares: clear errors, log lines and progress bars."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class UserError(Exception):
    """A mistake in the user's input, told in one sentence that names the culprit and the mend."""


def log(message: str) -> None:
    """Print one time-stamped line to standard error (a job's log file)."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def progress(
    iterable: Iterable[T], *, total: int | None = None, desc: str | None = None
) -> Iterable[T]:
    """Wrap ``iterable`` in a tqdm bar that stays quiet when standard error is no terminal."""
    bar: Iterable[T] = tqdm(
        iterable, total=total, desc=desc, disable=not sys.stderr.isatty(), leave=False
    )
    return bar


def guarded(step: Callable[[], None]) -> int:
    """Run ``step``; return 0, or print one sentence and return 2.

    That of a :class:`UserError`, or that the disk is full. In the latter case the process ends at
    once: HDF5 crashes at exit over a file that it could not write.
    """
    try:
        step()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except Exception as error:
        if not is_full(error):
            raise
        print(
            f"error: the disk is full, or a file too large for it ({shortened(error)}): make room "
            "and run again: what is finished is kept",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)
    return 0


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOLD = re.compile(rf"(errno =|os error) ({'|'.join(map(str, FULL))})\b")
"""How HDF5 and safetensors tell an error number."""


def is_full(error: Exception) -> bool:
    """Return whether a file could not be written for want of room."""
    return getattr(error, "errno", None) in FULL or TOLD.search(str(error)) is not None


def shortened(error: Exception) -> str:
    """Return an error's message on one line, cut to a sentence's length."""
    return " ".join(str(error).split())[:300]


def json_argument(text: str) -> object:
    """Parse a command-line value that carries a structure as JSON."""
    value: object = json.loads(text)
    return value


def parse(text: str, kind: type[T], flag: str) -> T:
    """Parse a flag's JSON into ``kind``.

    Raises
    ------
    UserError
        If it does not have that form.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise UserError(f"{flag} is not valid at {where}: {first['msg']}") from None


def named_path(text: str) -> tuple[str, Path]:
    """Argparse type of ``name=path``."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=path")
    return name, Path(path)


def set_threads(threads: int | None) -> None:
    """Let torch use ``threads`` threads; with ``None``, as many as the process may use."""
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)


def existing_file(text: str) -> Path:
    """Argparse type of an input file that must exist.

    Raises
    ------
    UserError
        If there is no such file.
    """
    path = Path(text)
    if not path.exists():
        raise UserError(f"{path} does not exist: check the path, or run the step that makes it")
    return path
