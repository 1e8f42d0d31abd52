"""The calling step's outputs: responses, ledger and manifest, in the order of the requests.

All of it follows from the stored answers and failures, so that a replay writes the same bytes.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from workflow_scripts.autointerp.llm.cache import NO_STATUS, Attempt
from workflow_scripts.autointerp.llm.completion import read_completion
from workflow_scripts.autointerp.llm.conversation import Conversation, Turn
from workflow_scripts.autointerp.llm.dialect import Dialect
from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.common import files
from workflow_scripts.common.cli import log

_LEDGER = (
    "request,subject,annotator,replicate,turn,key,host,requested_model,returned_model,fingerprint,"
    "finish_reason,status,kept,input_tokens,output_tokens,attempts,received,seed,prompt,taxonomy,"
    "contexts,code,sdk"
)
LEDGER = _LEDGER.split(",")
"""Columns of the ledger: a row per reply that was stored, and one per question that was given up.

`kept` is yes for a good answer and the replies that led to it; no for what was spent in vain: it
is asked for again. `prompt` is name:SHA-256 of the template that was filled, `taxonomy`
version:digest, `code` the digest of the code that built the request.
"""
TRANSPORT_FAILED = "transport_failed"
YES, NO = "yes", "no"


@dataclass(frozen=True)
class CallOutputs:
    """The three files to write."""

    responses: Path
    ledger: Path
    manifest: Path


@contextmanager
def writing(outputs: CallOutputs, header: Header, host: str) -> Iterator[Writer]:
    """Yield a writer; the files appear when the block succeeds, else none does."""
    with (
        files.atomic_path(outputs.responses) as responses,
        files.atomic_path(outputs.ledger) as ledger,
        responses.open("w", encoding="utf-8") as out,
        ledger.open("w", encoding="utf-8", newline="") as table,
    ):
        writer = Writer(out, table, header, host)
        yield writer
        for file in (out, table):
            file.flush()  # what the disk has no room for must not leave a part of the outputs
        files.write_json(outputs.manifest, writer.finish())


class Writer:
    """Takes ended requests in any order and writes them in that of the request file."""

    def __init__(self, responses: TextIO, ledger: TextIO, header: Header, host: str) -> None:
        self._responses = responses
        self._ledger = csv.writer(ledger, lineterminator="\n")
        self._ledger.writerow(LEDGER)
        self._header = header
        self._host = host
        self._facts = _Facts()
        self.statuses = self._facts.statuses
        """Requests by how they ended."""
        self._taxonomy = _taxonomy_of(header)
        self._waiting: dict[int, tuple[str, list[list[object]]]] = {}
        """Lines of requests that ended before an earlier one, by place."""
        self._next = 0

    def add(self, place: int, conversation: Conversation) -> None:
        """Take the request at ``place`` in the file (from 0), which ended or was given up."""
        self.statuses[
            conversation.outcome.status if conversation.outcome else TRANSPORT_FAILED
        ] += 1
        self._facts.dialects[conversation.request.model] = conversation.dialect
        row = {
            "id": conversation.request.id,
            "failure": conversation.failure,
            "exchanges": [vars(turn.exchange) for turn in conversation.turns],
        }
        self._waiting[place] = json.dumps(row, ensure_ascii=False) + "\n", self._rows(conversation)
        while self._next in self._waiting:
            line, rows = self._waiting.pop(self._next)
            self._responses.write(line)
            self._ledger.writerows(rows)
            self._next += 1

    def finish(self) -> dict[str, object]:
        """Warn of what changed between answers; return the manifest."""
        for warning in self._facts.warnings():
            log(f"warning: {warning}")
        return self._facts.manifest(self._header, self._host)

    def _rows(self, conversation: Conversation) -> list[list[object]]:
        """Return a request's rows of the ledger."""
        shared, model = self._request_cells(conversation.request), conversation.request.model
        rows = []
        for turn, number, kept in _replies(conversation):
            self._facts.note(model, turn, kept)
            rows.append({"turn": number, "kept": kept, **_answer_cells(turn)})
        for attempt in conversation.earlier:
            rows += _given_up_cells(attempt, conversation.first_key)
        if conversation.failure is not None:
            rows += _given_up_cells(conversation.attempt, conversation.question()[0])
        rows = [shared | row for row in rows]
        return [[row.get(name, "") for name in LEDGER] for row in rows]

    def _request_cells(self, request: Request) -> dict[str, object]:
        """Return what the ledger says of a request, however it ended."""
        return {
            "request": request.id,
            "subject": request.subject,
            "annotator": request.annotator,
            "replicate": request.replicate,
            "host": self._host,
            "requested_model": request.model,
            "seed": request.seed,
            "prompt": f"{request.prompt}:{self._header.prompts.get(request.prompt, '')[:12]}",
            "taxonomy": self._taxonomy,
            "contexts": request.contexts,
            "code": self._header.code,
        }


def _replies(conversation: Conversation) -> Iterator[tuple[Turn, int, str]]:
    """Yield a request's replies, each with its place in its attempt and whether it is kept."""
    for attempt in conversation.earlier:
        for number, entry in enumerate(attempt.entries):
            turn = Turn.of(entry, read_completion(entry.response, entry.status))
            yield turn, number, NO
    for number, turn in enumerate(conversation.turns):
        yield turn, number, YES if conversation.good else NO


def _given_up_cells(attempt: Attempt, key: str) -> list[dict[str, object]]:
    """Return what the ledger says of a question that was given up, if one was."""
    cells: dict[str, object] = {"turn": len(attempt.entries), "key": key, "status": NO_STATUS}
    cells |= {"finish_reason": TRANSPORT_FAILED, "kept": NO, "attempts": attempt.calls or ""}
    return [cells] if attempt.reason is not None else []


def _answer_cells(turn: Turn) -> dict[str, object]:
    """Return what the ledger says of an answer."""
    entry, completion = turn.entry, turn.completion
    return {
        "key": entry.key,
        "returned_model": plain_cell(completion.model),
        "fingerprint": plain_cell(completion.fingerprint),
        "finish_reason": plain_cell(completion.finish_reason),
        "status": entry.status,
        "input_tokens": completion.usage.input if completion.usage else "",
        "output_tokens": completion.usage.output if completion.usage else "",
        "attempts": entry.attempts,
        "received": entry.received,
        "sdk": entry.sdk,
    }


def _taxonomy_of(header: Header) -> str:
    known = header.taxonomy
    return plain_cell(f"{known['version']}:{known['sha256_16'][:12]}") if known else ""


@dataclass
class _Facts:
    """What is said of the run as a whole; no order matters."""

    statuses: Counter[str] = field(default_factory=Counter)
    models: dict[str, set[str]] = field(default_factory=dict)
    fingerprints: dict[str, set[str]] = field(default_factory=dict)
    sdks: set[str] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)
    dialects: dict[str, Dialect] = field(default_factory=dict)

    def note(self, model: str, turn: Turn, kept: str) -> None:
        completion = turn.completion
        self.models.setdefault(model, set()).add(_printable(completion.model))
        self.fingerprints.setdefault(model, set()).add(_printable(completion.fingerprint))
        self.sdks.add(turn.entry.sdk)
        self.tokens["input"] += completion.usage.input if completion.usage else 0
        self.tokens["output"] += completion.usage.output if completion.usage else 0
        self.tokens["calls"] += 1
        self.tokens["calls_in_vain"] += kept == NO
        self.tokens["calls_without_usage"] += completion.usage is None

    def warnings(self) -> Iterator[str]:
        for model, returned in sorted(self.models.items()):
            if len(returned) > 1:
                yield f"{model} answered under several names: {', '.join(sorted(returned))}"
            elif returned - {model, ""}:
                yield f"{model} is an alias: {', '.join(returned)} answered"
        for model, prints in sorted(self.fingerprints.items()):
            if len(prints) > 1:
                yield f"the system fingerprint of {model} changed between answers"

    def manifest(self, header: Header, host: str) -> dict[str, object]:
        return {
            "format": "diffscope-llm-manifest",
            "version": 1,
            "purpose": header.purpose,
            "host": host,
            "dialects": {model: asdict(d) for model, d in sorted(self.dialects.items())},
            "statuses": dict(sorted(self.statuses.items())),
            "tokens": dict(sorted(self.tokens.items())),
            "returned_models": {k: sorted(v) for k, v in sorted(self.models.items())},
            "fingerprints": {k: sorted(v) for k, v in sorted(self.fingerprints.items())},
            "sdk": sorted(self.sdks),
            "prompts": header.prompts,
            "taxonomy": header.taxonomy,
            "code": header.code,
            "warnings": list(self.warnings()),
        }


def plain_cell(text: str) -> str:
    """Return untrusted text as one CSV cell that no spreadsheet takes for a formula."""
    clean = _printable(text)
    return f"'{clean}" if clean.startswith(("=", "+", "-", "@")) else clean


def _printable(text: str) -> str:
    return (text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text))[
        :200
    ]
