"""Pack the answers that a run used into one archive, or unpack one, so that others can replay it.

    python -m workflow_scripts.tools.pack_cache pack --cache … --ledgers … --archive run.tar
    python -m workflow_scripts.tools.pack_cache unpack --cache … --archive run.tar

The archive holds the entries that the ledgers name, the reasons of the questions that they say
were given up, the endpoints' dialects, and a manifest with the SHA-256 of every file. The same
entries give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workflow_scripts.autointerp.llm.cache import (
    FAILURES,
    NO_STATUS,
    ResponseCache,
    decode_entry,
    decode_failure,
)
from workflow_scripts.autointerp.llm.dialect import decode_dialect
from workflow_scripts.autointerp.llm.write_once import write_once
from workflow_scripts.common import cli, files

MANIFEST = "manifest.json"
FORMAT, VERSION = "diffscope-llm-archive", 1
_NAME = re.compile(rf"([0-9a-f]{{2}}|dialects|{FAILURES})/[0-9a-f]{{64}}\.json")


def pack(cache: Path, ledgers: Sequence[Path], archive: Path) -> int:
    """Write the archive of what the ledgers name; return the number of entries.

    Raises
    ------
    UserError
        If an entry or a reason is missing or damaged.
    """
    store = ResponseCache(cache)
    named = {question for ledger in ledgers for question in _questions(ledger)}
    keys = sorted(key for key, answered in named if answered)
    given_up = sorted(key for key, answered in named if not answered)
    for key in keys:
        if store.get(key) is None:
            raise cli.UserError(f"the cache {cache} lacks the answer {key} that a ledger names")
    for key in given_up:
        if store.failure(key) is None:
            raise cli.UserError(f"the cache {cache} lacks the failure {key} that a ledger names")
    names = [f"{key[:2]}/{key}.json" for key in keys]
    names += [f"{FAILURES}/{key}.json" for key in given_up]
    names += _dialects(cache)
    sums = {name: hashlib.sha256((cache / name).read_bytes()).hexdigest() for name in names}
    head = {"format": FORMAT, "version": VERSION, "files": sums}
    with files.atomic_path(archive) as temporary, tarfile.open(temporary, "w") as tar:
        _add(tar, MANIFEST, json.dumps(head, indent=1, sort_keys=True).encode())
        for name in names:
            _add(tar, name, (cache / name).read_bytes())
    return len(keys)


def unpack(archive: Path, cache: Path) -> int:
    """Put an archive's entries into a cache; return how many are new.

    What the cache holds already stays. Nothing is written unless every file agrees with the
    manifest and has a permitted name.

    Raises
    ------
    UserError
        If the archive is missing, foreign, incomplete or altered.
    """
    try:
        for name, content in _read(archive):
            _check(name, content, archive)
        new = sum(write_once(cache / name, content) for name, content in _read(archive))
    except FileNotFoundError:
        raise cli.UserError(f"{archive} does not exist: check the path") from None
    except (tarfile.TarError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise cli.UserError(f"{archive} is no archive of answers of this version") from None
    return new


def _dialects(cache: Path) -> list[str]:
    found = sorted((cache / "dialects").glob("*.json"))
    return [f"dialects/{path.name}" for path in found if decode_dialect(path.read_bytes())]


def _questions(ledger: Path) -> Iterator[tuple[str, bool]]:
    """Yield the keys of a ledger, each with whether the question was answered."""
    try:
        with ledger.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                yield row["key"], row["status"] != str(NO_STATUS)
    except FileNotFoundError:
        raise cli.UserError(f"{ledger} does not exist: run the LLM steps first") from None


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _read(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archive, checked against its manifest."""
    with tarfile.open(archive) as tar:
        head = json.loads(_content(tar, tar.next()))
        if (head["format"], head["version"]) != (FORMAT, VERSION):
            raise tarfile.ReadError("another format")
        left = dict(head["files"])
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
    if opened is None:
        raise tarfile.ReadError("not a plain file")
    return opened.read()


def _check(name: str, content: bytes, archive: Path) -> None:
    if not _NAME.fullmatch(name):
        raise cli.UserError(f"{archive} holds a file that does not belong there: {name!r}")
    folder, key = name.split("/")[0], Path(name).stem
    if folder == "dialects":
        whole = decode_dialect(content) is not None
    elif folder == FAILURES:
        whole = decode_failure(content, key) is not None
    else:
        whole = folder == key[:2] and decode_entry(content, key) is not None
    if not whole:
        raise cli.UserError(f"{archive} holds a damaged file: {name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--ledgers", type=Path, nargs="*", default=[])
    a = parser.parse_args(argv)

    def run() -> None:
        if a.action == "pack":
            cli.log(f"{pack(a.cache, a.ledgers, a.archive)} answers packed into {a.archive}")
        else:
            cli.log(f"{unpack(a.archive, a.cache)} new files unpacked into {a.cache}")

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
