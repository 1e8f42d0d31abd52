"""A content-addressed store of good answers: one JSON file each, written as it arrives.

The key is the SHA-256 of the canonical JSON of the question (address, API, exact body and
replicate); how it is sent (secret key, time-outs, retries, concurrency, prices) does not count.
An entry is written to a temporary file, synced and linked into place: the first writer wins, and
every process reads the same.

Attempts that gave no good answer are stored beside the entries, with what was replied. They are no
answers: a live run asks again, the ledger counts them as spent, and a replay ends as the run did.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from workflow_scripts.autointerp.llm.write_once import Syncer, write_once, write_over
from workflow_scripts.common.cli import UserError, log

T = TypeVar("T")

SCHEMA_VERSION = 1
API = "chat.completions"
QUARANTINE, FAILURES = "quarantine", "failures"
NO_STATUS = 0
"""In the ledger, the status of a question that was given up: a number, as the others are."""


@dataclass(frozen=True)
class Entry:
    """One stored response with all that is needed to account for it."""

    key: str
    base_url: str
    body: bytes
    """The canonical JSON that was sent."""
    replicate: int
    response: str
    """The response's text as received."""
    status: int
    headers: dict[str, str]
    """Allow-listed ones only."""
    attempts: int
    received: str
    """UTC, ISO 8601."""
    seconds: float
    sdk: str


@dataclass(frozen=True)
class Attempt:
    """A request asked in vain: the replies, and why it was given up where no reply says so."""

    entries: tuple[Entry, ...] = ()
    reason: str | None = None
    """One printable line."""
    calls: int = 0
    """Calls of the question that was given up."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: object) -> bytes:
    """Return the one JSON form of a value that digests are taken of."""
    return _ENCODER.encode(value).encode()


def cache_key(base_url: str, body: bytes, replicate: int) -> str:
    """Return the key of a request: normalised ``base_url`` and the body's canonical JSON."""
    before, after = _around_body(base_url, replicate)
    return hashlib.sha256(before + body + after).hexdigest()


@functools.lru_cache(maxsize=64)
def _around_body(base_url: str, replicate: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the body in the canonical JSON of a question."""
    start = {"api": API, "base_url": base_url}
    end = {"replicate": replicate, "schema_version": SCHEMA_VERSION}
    return canonical(start)[:-1] + b',"body":', b"," + canonical(end)[1:]


def normalise_url(url: str) -> str:
    """Return a base URL without user, query and fragment, in lower case where case is void.

    Raises
    ------
    UserError
        If it is no http(s) address.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UserError("the endpoint's base_url is no valid address") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise UserError("the endpoint's base_url must start with http:// or https:// and a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme.lower()]
    where = host if port in (None, default) else f"{host}:{port}"
    return f"{parts.scheme.lower()}://{where}{parts.path.rstrip('/')}"


class ResponseCache:
    """The store in one folder; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.quarantined = 0
        self._entered: set[str] = set()

    def path(self, key: str) -> Path:
        """Return the file of an entry."""
        return Path(self._place(key))

    def _place(self, key: str) -> str:
        # As a plain string: pathlib would take a twentieth of a call's time.
        return f"{self.root}/{key[:2]}/{key}.json"

    def get(self, key: str) -> Entry | None:
        """Return an entry, or None; a damaged one is moved to quarantine and counts as absent."""
        return self._read(self._place(key), key, decode_entry)

    def put(self, entry: Entry) -> Entry:
        """Store an entry on the disk; return what the store holds now (the first writer's).

        Raises
        ------
        UserError
            If the folder cannot be written; the sentence says why.
        """
        return self._held(entry, write_once(self.path(entry.key), encode_entry(entry)))

    async def put_async(self, entry: Entry, syncer: Syncer) -> Entry:
        """Do the same as `put` without keeping the event loop waiting for the disk."""
        written = await syncer.write_once(self._place(entry.key), encode_entry(entry))
        return self._held(entry, written)

    def _held(self, entry: Entry, written: bool) -> Entry:
        return entry if written else self.get(entry.key) or self.put(entry)

    def attempts(self, key: str) -> list[Attempt]:
        """Return the vain attempts at the request whose first question has this key, in order."""
        path = str(self.failure_path(key))
        return self._read(path, key, lambda raw, key: decode_attempts(raw, key) or None) or []

    def add_attempt(self, key: str, attempt: Attempt) -> None:
        """Store another vain attempt at a request.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        attempts = [*self.attempts(key), attempt]
        write_over(self.failure_path(key), encode_attempts(key, attempts))

    def _read(self, path: str, key: str, decode: Callable[[bytes, str], T | None]) -> T | None:
        if not os.access(path, os.F_OK):  # cheaper than an exception for each new question
            self._check_entered(os.path.dirname(path))  # noqa: PTH120  (as above)
            return None
        try:
            raw = Path(path).read_bytes()
        except FileNotFoundError:  # another process has moved it
            return None
        value = decode(raw, key)
        if value is None:
            self._quarantine(Path(path))
        return value

    def _check_entered(self, folder: str) -> None:
        """Refuse a folder that is there and closed: what lies in it would be paid again."""
        if folder not in self._entered:
            self._entered.add(folder)
            if os.access(folder, os.F_OK) and not os.access(folder, os.X_OK):
                raise UserError(
                    f"the response cache cannot be read at {folder} (Permission denied): open it "
                    "to this user, or set autointerp.llm.cache to a folder of your own"
                )

    def failure_path(self, key: str) -> Path:
        """Return the file of the vain attempts at a request."""
        return self.root / FAILURES / f"{key}.json"

    def keys(self) -> Iterator[str]:
        """Yield the keys of all entries, sorted."""
        for path in sorted(self.root.glob("[0-9a-f][0-9a-f]/*.json")):
            yield path.stem

    def remove(self, key: str) -> None:
        """Take an entry out that turned out to be no good answer; it is stored as an attempt."""
        self.path(key).unlink(missing_ok=True)

    def _quarantine(self, path: Path) -> None:
        target = self.root / QUARANTINE / f"{path.stem}.{secrets.token_hex(8)}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except FileNotFoundError:
            return  # another process has moved it
        self.quarantined += 1
        log(f"cache: the entry {path.name} is damaged and was moved to {QUARANTINE}/")


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry's file: its checksum, then the entry."""
    # The body is canonical JSON already; of the other names only these two come before it.
    fields = {name: value for name, value in vars(entry).items() if name != "body"}
    before = canonical({name: fields.pop(name) for name in ("attempts", "base_url")})
    content = before[:-1] + b',"body":' + entry.body + b"," + canonical(fields)[1:]
    return _HEAD + hashlib.sha256(content).hexdigest().encode() + _MIDDLE + content + _TAIL


_HEAD, _MIDDLE, _TAIL = b'{"checksum":"', b'","entry":', b"}\n"


def decode_entry(raw: bytes, key: str) -> Entry | None:
    """Return the entry, or None when it is torn, altered, or not the one of its name."""
    checksum = raw[len(_HEAD) : len(_HEAD) + 64]
    content = raw[len(_HEAD) + 64 + len(_MIDDLE) : -len(_TAIL)]
    if raw != _HEAD + checksum + _MIDDLE + content + _TAIL:
        return None
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        return None
    try:
        fields = json.loads(content)
        fields["body"] = canonical(fields["body"])
        entry = Entry(**fields)
        right_key = cache_key(entry.base_url, entry.body, entry.replicate)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if entry.key == key == right_key else None


def encode_attempts(key: str, attempts: Sequence[Attempt]) -> bytes:
    """Return the bytes of the file of a request's vain attempts."""
    rows = [
        {
            "calls": one.calls,
            "entries": [json.loads(encode_entry(entry)) for entry in one.entries],
            "reason": one.reason,
        }
        for one in attempts
    ]
    return canonical({"attempts": rows, "key": key}) + b"\n"


def decode_attempts(raw: bytes, key: str) -> list[Attempt]:
    """Return the attempts, or none when the file is torn, altered, or not the one of its name."""
    try:
        attempts = [_attempt(row) for row in json.loads(raw)["attempts"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return attempts if raw == encode_attempts(key, attempts) else []


def _attempt(row: Any) -> Attempt:
    """Return one attempt; a damaged one raises ValueError, TypeError or KeyError."""
    entries = []
    for stored in row["entries"]:
        entry = decode_entry(canonical(stored) + b"\n", stored["entry"]["key"])
        if entry is None:
            raise ValueError("a damaged entry")
        entries.append(entry)
    reason, calls = row["reason"], row["calls"]
    if not isinstance(calls, int):
        raise ValueError("a damaged number")
    if reason is not None and not (isinstance(reason, str) and reason and reason.isprintable()):
        raise ValueError("a damaged reason")
    return Attempt(tuple(entries), reason, calls)
