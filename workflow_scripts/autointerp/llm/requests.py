"""Requests to an annotator, as a file of JSON lines.

The first line is a header with what all requests share (system prompts, ids, provenance); each
further line is one request. Nothing in what is sent names a model under study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.autointerp.llm.replies import Expected, schema
from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError

FORMAT, VERSION = "diffscope-requests", 1


@dataclass(frozen=True)
class Request:
    """One question to one annotator about one latent, or one document."""

    id: str
    purpose: str
    kind: str
    """The purpose, or what varies it: `null` (permuted explanation), `fuzz` (marks), `canary`."""
    subject: int
    """The latent; for the purpose `label` the document."""
    annotator: str
    replicate: int
    model: str
    system: str
    """Key of the system prompt in the header."""
    user: str
    seed: int
    max_output: int
    temperature: float | None
    items: tuple[str, ...] = ()
    positives: tuple[bool, ...] = ()
    """Whether each item is active (its marks right, for `fuzz`); never sent."""
    hard: tuple[bool, ...] = ()
    strata: tuple[str, ...] = ()
    """Which of the latent's active contexts each item stands for; never sent."""
    owner: int = -1
    """The latent whose explanation is scored; another than ``latent`` in the permuted null."""
    plant: str = ""
    """The category that a canary's planted order names."""
    contexts: str = ""
    """Digest of the contexts shown, or of the text."""
    prompt: str = ""
    """Name of the template that was filled."""
    extra: dict[str, object] = field(default_factory=dict)
    """Further fields of the body, as the annotator's settings give them."""


@dataclass(frozen=True)
class Header:
    """What all requests of a file share."""

    purpose: str
    systems: dict[str, str]
    ids: tuple[str, ...]
    prompts: dict[str, str]
    """Prompt name to SHA-256."""
    taxonomy: dict[str, str] = field(default_factory=dict)
    code: str = ""
    """Digest of the code that built the requests."""

    def expectation(self, request: Request) -> Expected:
        """Return what an answer to ``request`` must look like."""
        return Expected(self.purpose, self.ids, request.items)


def short_digest(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text, such as a system prompt."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def number_of(text: str) -> int:
    """Return a number below 2**64 that a text gives, for seeds."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def message_body(header: Header, request: Request) -> dict[str, Any]:
    """Return the part of the request body that does not depend on the endpoint's dialect."""
    return {
        **request.extra,
        "model": request.model,
        "messages": [
            {"role": "system", "content": header.systems[request.system]},
            {"role": "user", "content": request.user},
        ],
    }


def answer_schema(header: Header, request: Request, bounds: bool) -> dict[str, object]:
    """Return the JSON schema of the answer, with lengths and ranges or without."""
    return schema(header.expectation(request), bounds)


def write_lines(path: Path, header: Header, lines: Iterable[bytes]) -> None:
    """Write a request file of lines as :func:`encoded` makes them, atomically."""
    with files.atomic_path(path) as temporary, temporary.open("wb") as out:
        top = {"format": FORMAT, "version": VERSION, **asdict(header)}
        out.write(f"{json.dumps(top, ensure_ascii=False)}\n".encode())
        out.writelines(lines)


def encoded(request: Request) -> bytes:
    """Return a request as its line of the file."""
    return f"{json.dumps(vars(request), ensure_ascii=False)}\n".encode()


def read_header(path: Path) -> Header:
    """Read the first line of a request file.

    Raises
    ------
    UserError
        If the file is missing or of another format.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            top = json.loads(lines.readline() or "null")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run build_requests first") from None
    except json.JSONDecodeError:
        top = None
    if not isinstance(top, dict) or (top.pop("format", ""), top.pop("version", 0)) != (
        FORMAT,
        VERSION,
    ):
        raise UserError(f"{path} is no request file of this version: build the requests again")
    top["ids"] = tuple(top["ids"])
    return Header(**top)


def read_requests(path: Path) -> Iterator[Request]:
    """Yield the requests of a file one by one, so that memory stays flat.

    Raises
    ------
    UserError
        If a line is damaged.
    """
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            try:
                row = json.loads(line)
                for name in ("items", "positives", "hard", "strata"):
                    row[name] = tuple(row[name])
                request = Request(**row)
            except (ValueError, TypeError, KeyError):
                raise UserError(f"{path} has a damaged line: build the requests again") from None
            yield request
