"""Digests of whole files; those of large files are remembered until the file changes.

Every byte counts: a fine-tune may change two matrices in a file of the same size. xxHash, because a
digest here tells apart versions of a file and guards against no forger, and it is several times
faster than a cryptographic one: a disk is the slower part.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import xxhash

from workflow_scripts.common.cli import UserError, log
from workflow_scripts.common.files import read_json, write_json

REMEMBERED = Path(".snakemake", "diffscope", "fingerprints.json")
"""By path: size, times and inode of a file, and its digest. May be deleted."""
LARGE = 1 << 24  # bytes from which a digest is remembered
SLOW = 1 << 31  # bytes from which reading is announced
SETTLED = 2_000_000_000  # nanoseconds: within them a file may change and keep its time
BLOCK = 1 << 20


@cache
def fingerprint(path: Path) -> str:
    """Return a digest of a file's content."""
    status = path.stat()
    if status.st_size < LARGE:
        return _digest(path)
    name, stamp = str(path.resolve()), _stamp(status)
    held = _remembered().get(name)
    if isinstance(held, list) and held[:-1] == stamp:
        return str(held[-1])
    if status.st_size >= SLOW:
        log(f"reading {path} ({status.st_size / 1e9:.0f} GB), once, for a digest of its content")
    value = _digest(path)
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED
    if settled and _stamp(path.stat()) == stamp:
        _remember(name, [*stamp, value])
    return value


def _stamp(status: os.stat_result) -> list[int]:
    """Return what changes with a file's content; the time of change no tool sets back."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digest(path: Path) -> str:
    hashed, block = xxhash.xxh3_128(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            hashed.update(block[:count])
    return hashed.hexdigest()


def _remembered() -> dict[str, object]:
    if not REMEMBERED.exists():
        return {}
    try:
        held = read_json(REMEMBERED)
    except (UserError, OSError):
        return {}
    return held if isinstance(held, dict) else {}


def _remember(name: str, value: list[int | str]) -> None:
    with suppress(OSError):  # a tree that cannot be written to: the file is read again next time
        write_json(REMEMBERED, {**_remembered(), name: value})
