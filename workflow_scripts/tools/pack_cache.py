"""Pack the answers that a run used into one archive, or unpack one, so that others can replay it.

Usage::

    python -m workflow_scripts.tools.pack_cache pack --cache … --ledgers … --archive run.tar
    python -m workflow_scripts.tools.pack_cache unpack --cache … --archive run.tar

The archive holds the entries that the ledgers name, the attempts that they count as vain, the
endpoints' dialects, and a manifest with the SHA-256 of every file. The same entries give the same
bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workflow_scripts.autointerp.llm.cache import (
    FAILURES,
    ResponseCache,
    decode_attempts,
    decode_entry,
)
from workflow_scripts.autointerp.llm.dialect import decode_dialects
from workflow_scripts.autointerp.llm.outputs import NO
from workflow_scripts.autointerp.llm.write_once import write_once
from workflow_scripts.common import cli, files

MANIFEST = "manifest.json"
FORMAT, VERSION = "diffscope-llm-archive", 1
MOST_FILES = 2_000_000
LARGEST_FILE = 16 << 20
"""Bytes of an entry: answers are a few thousand. Together they are as large as the archive."""
LARGEST_MANIFEST = 512 << 20
_NAME = re.compile(rf"([0-9a-f]{{2}}|dialects|{FAILURES})/[0-9a-f]{{64}}\.json")


def pack(cache: Path, ledgers: list[Path], archive: Path) -> None:
    """Write the archive of what the ledgers name.

    Parameters
    ----------
    cache
        folder of the response cache
    ledgers
        ledgers of the run (CSV)
    archive
        archive to write (tar)

    Raises
    ------
    UserError
        If an entry or an attempt is missing or damaged.
    """
    store = ResponseCache(cache)
    named = {question for ledger in ledgers for question in _questions(ledger)}
    keys = sorted(key for key, kept in named if kept)
    in_vain = sorted(key for key, kept in named if not kept)
    for key in keys:
        if store.get(key) is None:
            raise cli.UserError(f"the cache {cache} lacks the answer {key} that a ledger names")
    for key in in_vain:
        if not store.attempts(key):
            raise cli.UserError(f"the cache {cache} lacks the attempt {key} that a ledger names")
    names = [f"{key[:2]}/{key}.json" for key in keys]
    names += [f"{FAILURES}/{key}.json" for key in in_vain]
    names += _dialects(cache)
    sums = {name: hashlib.sha256((cache / name).read_bytes()).hexdigest() for name in names}
    manifest = {"format": FORMAT, "version": VERSION, "files": sums}
    with files.atomic_path(archive) as temporary, tarfile.open(temporary, "w") as tar:
        _add(tar, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
        for name in names:
            _add(tar, name, (cache / name).read_bytes())
    cli.log(f"{len(keys)} answers packed into {archive}")


def unpack(archive: Path, cache: Path) -> None:
    """Put an archive's entries into a cache.

    What the cache holds already stays. Nothing is written unless every file agrees with the
    manifest and has a permitted name.

    Parameters
    ----------
    archive
        archive to read (tar)
    cache
        folder of the response cache

    Raises
    ------
    UserError
        If the archive is missing, incomplete, altered, or of another kind.
    """
    try:
        for name, content in _read(archive):
            _check(name, content, archive)
        new = sum(write_once(cache / name, content) for name, content in _read(archive))
    except FileNotFoundError:
        raise cli.UserError(f"{archive} does not exist: check the path") from None
    except (tarfile.TarError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise cli.UserError(f"{archive} is no archive of answers of this version") from None
    cli.log(f"{new} new files unpacked into {cache}")


def _dialects(cache: Path) -> list[str]:
    paths = sorted((cache / "dialects").glob("*.json"))
    return [f"dialects/{path.name}" for path in paths if decode_dialects(path.read_bytes())]


def _questions(ledger: Path) -> Iterator[tuple[str, bool]]:
    """Yield the keys that a ledger names, each with whether it is that of a kept answer.

    Vain attempts lie under the key of their first question.
    """
    try:
        with ledger.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                kept = row.get("kept") != NO
                if kept or row["turn"] == "0":
                    yield row["key"], kept
    except FileNotFoundError:
        raise cli.UserError(f"{ledger} does not exist: run the LLM steps first") from None


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _read(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archive, checked against its manifest."""
    with tarfile.open(archive, "r:") as tar:  # not compressed: it could be small and unpack large
        manifest = json.loads(_content(tar, tar.next()))
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
            raise tarfile.ReadError("another format")
        left = dict(manifest["files"])
        if len(left) > MOST_FILES:
            raise cli.UserError(f"{archive} names {len(left)} files, more than {MOST_FILES}")
        for member in _members(tar):
            content = _content(tar, member)
            if left.pop(member.name, None) != hashlib.sha256(content).hexdigest():
                raise cli.UserError(f"{archive} was altered: {member.name!r} is not as packed")
            yield member.name, content
        if left:
            raise cli.UserError(f"{archive} is incomplete: {len(left)} files are missing")


def _members(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes:
    opened = tar.extractfile(member) if member is not None and member.isfile() else None
    if member is None or opened is None:
        raise tarfile.ReadError("not a plain file")
    most = LARGEST_MANIFEST if member.name == MANIFEST else LARGEST_FILE
    if member.size > most:
        raise cli.UserError(f"the archive's file {member.name[:100]!r} is larger than {most} bytes")
    return opened.read()


def _check(name: str, content: bytes, archive: Path) -> None:
    if not _NAME.fullmatch(name):
        raise cli.UserError(f"{archive} holds a file that does not belong there: {name!r}")
    folder, key = name.split("/")[0], Path(name).stem
    if folder == "dialects":
        whole = bool(decode_dialects(content))
    elif folder == FAILURES:
        whole = bool(decode_attempts(content, key))
    else:
        whole = folder == key[:2] and decode_entry(content, key) is not None
    if not whole:
        raise cli.UserError(f"{archive} holds a damaged file: {name}")


ACTIONS = {"pack": cli.command(pack), "unpack": cli.command(unpack)}


def main(argv: Sequence[str] | None = None) -> int:
    """Pack or unpack, as the first word says; return the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["--help"]:
        print(__doc__)
        return 0
    if not words or words[0] not in ACTIONS:
        print("error: the first word must be pack or unpack", file=sys.stderr)
        return 2
    return ACTIONS[words[0]](words[1:])


if __name__ == "__main__":
    raise SystemExit(main())
