"""Small files, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.cli import UserError

if TYPE_CHECKING:
    import pandas as pd


def _host() -> str:
    """Return what names this machine and its numbers of processes, which containers have alone."""
    name = re.sub(r"[^\w-]", "-", socket.gethostname())
    facts = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            facts.append(Path(path).read_text() if "boot" in path else str(Path(path).readlink()))
    return f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


HOST = _host()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds, sync and rename it.

    What an earlier, killed attempt on this machine left is removed; what a live process or another
    machine writes is not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.{HOST}.*.part"):
        if not _is_alive(left.suffixes[-2][1:]):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if path.is_file():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(number)


def user_mask() -> int:
    """Return the user's umask, for what libraries write with fixed permissions."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_alive(process: str) -> bool:
    """Return whether another process of this machine has this number."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def null_if_nan(value: float) -> float | None:
    """Return a number as JSON can hold it: None in place of NaN."""
    return None if math.isnan(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    UserError
        If the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested too deeply
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run again") from None


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet (zstd), without an index, atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table, or some of its columns.

    Raises
    ------
    UserError
        If the file is missing or no Parquet file.
    """
    import pandas as pd
    import pyarrow

    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except pyarrow.ArrowInvalid as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}): delete it and run again"
        ) from None
