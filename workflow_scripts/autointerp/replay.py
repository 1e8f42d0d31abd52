"""Outputs of the calling step, made from the response cache alone. Opens no socket."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from workflow_scripts import files
from workflow_scripts.autointerp.answers import Exchange, Outcome, Reask, conclude
from workflow_scripts.autointerp.cache import Entry, ResponseCache, cache_key
from workflow_scripts.autointerp.dialect import Dialect, compose, dialect_key, load_dialect
from workflow_scripts.autointerp.endpoint import read_exchange, read_model, read_usage
from workflow_scripts.autointerp.requests import Header, Request, read_requests
from workflow_scripts.cli import UserError, log

_LEDGER = (
    "request,latent,annotator,replicate,turn,key,host,requested_model,returned_model,fingerprint,"
    "finish_reason,status,input_tokens,output_tokens,attempts,received,seed,prompt,contexts,sdk"
)
LEDGER = _LEDGER.split(",")
"""Columns of the ledger: a row per stored answer."""


@dataclass(frozen=True)
class Outputs:
    """The request file and the three files to write."""

    requests: Path
    responses: Path
    ledger: Path
    manifest: Path


@dataclass
class Conversation:
    """What the cache holds of one request."""

    entries: list[Entry] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    missing: str | None = None
    """Key of the answer that is not there, if one is missing."""
    outcome: Outcome | None = None


class Reader:
    """Follows conversations through the cache."""

    def __init__(self, cache: ResponseCache, base_url: str, header: Header, form: str) -> None:
        self.cache = cache
        self.base_url = base_url
        self.header = header
        self.form = form
        self.dialects: dict[str, Dialect | None] = {}

    def follow(self, request: Request) -> Conversation:
        """Return as much of a request's conversation as is stored."""
        found = Conversation()
        dialect = self._dialect(request.model)
        if dialect is None:
            found.missing = f"the dialect of {request.model}"
            return found
        expected = self.header.expectation(request)
        turns: list[tuple[Exchange, Reask]] = []
        while found.outcome is None:
            body = compose(self.header, request, dialect, turns)
            key = cache_key(self.base_url, body, request.replicate)
            entry = self.cache.get(key)
            if entry is None:
                found.missing = key
                return found
            found.entries.append(entry)
            found.exchanges.append(read_exchange(key, entry.response, entry.status))
            verdict = conclude(expected, found.exchanges)
            if isinstance(verdict, Outcome):
                found.outcome = verdict
            else:
                turns.append((found.exchanges[-1], verdict))
        return found

    def _dialect(self, model: str) -> Dialect | None:
        if model not in self.dialects:
            key = dialect_key(self.base_url, model, self.form)
            self.dialects[model] = load_dialect(self.cache, key)
        return self.dialects[model]


def complete(
    cache: ResponseCache, base_url: str, header: Header, requests: Path, form: str
) -> bool:
    """Return whether every request has its outcome in the cache already."""
    reader = Reader(cache, base_url, header, form)
    return all(reader.follow(request).outcome is not None for request in read_requests(requests))


def count_stored(
    cache: ResponseCache, base_url: str, header: Header, requests: Path, form: str
) -> int:
    """Return how many requests have their outcome in the cache."""
    reader = Reader(cache, base_url, header, form)
    return sum(reader.follow(r).outcome is not None for r in read_requests(requests))


def write_outputs(
    cache: ResponseCache,
    base_url: str,
    header: Header,
    form: str,
    failures: Mapping[str, str] | None,
    outputs: Outputs,
) -> None:
    """Write responses, ledger and manifest from the cache, in the order of the requests.

    ``failures`` holds the requests that could not be sent, with their reasons; None in a replay,
    where every request must be answered.

    Raises
    ------
    UserError
        If a request has neither an answer nor a failure; the sentence lists what is missing.
    """
    reader = Reader(cache, base_url, header, form)
    missing: list[str] = []
    facts = _Facts(urlsplit(base_url).netloc)
    with (
        files.atomic_path(outputs.responses) as responses,
        files.atomic_path(outputs.ledger) as ledger,
        responses.open("w", encoding="utf-8") as out,
        ledger.open("w", encoding="utf-8", newline="") as book,
    ):
        rows = csv.DictWriter(book, LEDGER, lineterminator="\n")
        rows.writeheader()
        for request in read_requests(outputs.requests):
            found = reader.follow(request)
            if found.outcome is None and request.id not in (failures or {}):
                missing.append(f"{request.id} ({found.missing})")
                continue
            _write(out, request, found, (failures or {}).get(request.id))
            for row in _ledger_rows(request, header, found, facts):
                rows.writerow(row)
            facts.statuses[found.outcome.status if found.outcome else "transport_failed"] += 1
        if missing:
            raise UserError(
                f"the response cache {cache.root} lacks {len(missing)} answers, such as "
                f"{'; '.join(missing[:5])}: run in live mode, or unpack the archive that holds them"
            )
    for warning in facts.warnings():
        log(f"warning: {warning}")
    known = {model: asdict(d) for model, d in sorted(reader.dialects.items()) if d is not None}
    files.write_json(outputs.manifest, facts.manifest(header, known))


def _write(out: TextIO, request: Request, found: Conversation, failure: str | None) -> None:
    row = {
        "id": request.id,
        "failure": failure if found.outcome is None else None,
        "exchanges": [asdict(exchange) for exchange in found.exchanges],
    }
    out.write(json.dumps(row, ensure_ascii=False) + "\n")


@dataclass
class _Facts:
    """What is said of the run as a whole; all of it follows from the stored answers."""

    host: str
    statuses: Counter[str] = field(default_factory=Counter)
    models: dict[str, set[str]] = field(default_factory=dict)
    fingerprints: dict[str, set[str]] = field(default_factory=dict)
    sdks: set[str] = field(default_factory=set)
    tokens: Counter[str] = field(default_factory=Counter)

    def warnings(self) -> Iterator[str]:
        for model, returned in sorted(self.models.items()):
            if len(returned) > 1:
                yield f"{model} answered under several names: {', '.join(sorted(returned))}"
            elif returned - {model, ""}:
                yield f"{model} is an alias: {', '.join(returned)} answered"
        for model, prints in sorted(self.fingerprints.items()):
            if len(prints) > 1:
                yield f"the system fingerprint of {model} changed between answers"

    def manifest(self, header: Header, dialects: Mapping[str, object]) -> dict[str, object]:
        return {
            "format": "diffscope-llm-manifest",
            "version": 1,
            "purpose": header.purpose,
            "host": self.host,
            "dialects": dialects,
            "statuses": dict(sorted(self.statuses.items())),
            "tokens": dict(sorted(self.tokens.items())),
            "returned_models": {k: sorted(v) for k, v in sorted(self.models.items())},
            "fingerprints": {k: sorted(v) for k, v in sorted(self.fingerprints.items())},
            "sdk": sorted(self.sdks),
            "prompts": header.prompts,
            "taxonomy": header.taxonomy,
            "warnings": list(self.warnings()),
        }


def _ledger_rows(
    request: Request, header: Header, found: Conversation, facts: _Facts
) -> Iterator[dict[str, object]]:
    prompt = "+".join(f"{name}:{digest[:12]}" for name, digest in sorted(header.prompts.items()))
    for turn, (entry, exchange) in enumerate(zip(found.entries, found.exchanges, strict=True)):
        usage = read_usage(entry.response)
        model, fingerprint = read_model(entry.response)
        facts.models.setdefault(request.model, set()).add(model)
        facts.fingerprints.setdefault(request.model, set()).add(fingerprint)
        facts.sdks.add(entry.sdk)
        facts.tokens["input"] += usage.input if usage else 0
        facts.tokens["output"] += usage.output if usage else 0
        facts.tokens["calls"] += 1
        facts.tokens["calls_without_usage"] += usage is None
        yield {
            "request": request.id,
            "latent": request.latent,
            "annotator": request.annotator,
            "replicate": request.replicate,
            "turn": turn,
            "key": entry.key,
            "host": facts.host,
            "requested_model": request.model,
            "returned_model": plain_cell(model),
            "fingerprint": plain_cell(fingerprint),
            "finish_reason": plain_cell(exchange.finish_reason),
            "status": entry.status,
            "input_tokens": usage.input if usage else "",
            "output_tokens": usage.output if usage else "",
            "attempts": entry.attempts,
            "received": entry.received,
            "seed": request.seed,
            "prompt": prompt,
            "contexts": request.contexts,
            "sdk": entry.sdk,
        }


def plain_cell(text: str) -> str:
    """Return a foreign text as one CSV cell that no spreadsheet takes for a formula."""
    clean = "".join(c if c.isprintable() else "?" for c in text)[:200]
    return f"'{clean}" if clean.startswith(("=", "+", "-", "@")) else clean
