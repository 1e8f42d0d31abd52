"""How requests ended, read from the responses of the calling step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.autointerp.llm.replies import Exchange, Outcome, conclude
from workflow_scripts.autointerp.llm.requests import Header, Request, read_requests
from workflow_scripts.common.cli import UserError


@dataclass(frozen=True)
class Parsed:
    """One request with how it ended."""

    request: Request
    outcome: Outcome


def read_outcomes(header: Header, requests: Path, responses: Path) -> Iterator[Parsed]:
    """Yield each request with how it ended; both files are in the same order.

    Raises
    ------
    UserError
        If the responses are missing or do not belong to the requests.
    """
    try:
        lines = responses.open(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{responses} does not exist: run call_llm first") from None
    with lines:
        for request, line in _together(read_requests(requests), lines, responses):
            row = json.loads(line)
            if row["id"] != request.id:
                raise UserError(f"{responses} does not belong to {requests}: run call_llm again")
            yield Parsed(request, _outcome(header, request, row))


def _together(
    requests: Iterator[Request], lines: Iterator[str], path: Path
) -> Iterator[tuple[Request, str]]:
    try:
        yield from zip(requests, lines, strict=True)
    except ValueError:
        raise UserError(f"{path} has not one line per request: run call_llm again") from None


def _outcome(header: Header, request: Request, row: dict[str, object]) -> Outcome:
    exchanges = row["exchanges"]
    if row["failure"] is not None or not isinstance(exchanges, list) or not exchanges:
        return Outcome("transport_failed")
    replies = [Exchange(**exchange) for exchange in exchanges]
    verdict = conclude(header.expectation(request), replies)
    return verdict if isinstance(verdict, Outcome) else Outcome("invalid")
