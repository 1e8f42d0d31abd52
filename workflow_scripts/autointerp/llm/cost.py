"""What a set of requests will cost, before any socket is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypedDict

from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.autointerp.settings import Price

_PIECE = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|\\u[0-9a-f]{4}|[^\w\s]{1,2}|_|\n")
MESSAGE_TOKENS = 4
"""Tokens that a chat template adds around each message, about."""
OUTPUT_TOKENS = {"explain": 40, "classify": 18, "label": 18, "score": 14}
"""Typical output: per request, for score per item."""


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has; the true number depends on the tokenizer."""
    return len(_PIECE.findall(text))


def input_bound(system: str, user: str) -> int:
    """Return an upper bound on input tokens: no byte-level tokenizer exceeds one per byte."""
    return len(system.encode()) + len(user.encode()) + 16


class CostPlan(TypedDict):
    """What a set of requests comes to."""

    purpose: str
    annotators: dict[str, dict[str, float]]
    total: dict[str, float]
    unpriced: list[str]
    """Models whose price is not known: their cost is missing."""


def plan_requests(
    header: Header, requests: Iterable[Request], prices: Mapping[str, Price]
) -> CostPlan:
    """Return calls and tokens per annotator, money where a price is known, and totals."""
    system_tokens = {key: estimate_tokens(text) for key, text in header.systems.items()}
    rows: dict[str, dict[str, float]] = {}
    models = set()
    for request in requests:
        row = rows.setdefault(request.annotator, dict.fromkeys(_COLUMNS, 0.0))
        system = header.systems[request.system]
        tokens_in = (
            system_tokens[request.system] + estimate_tokens(request.user) + 2 * MESSAGE_TOKENS
        )
        tokens_out = OUTPUT_TOKENS[header.purpose] * max(len(request.items), 1)
        bound = input_bound(system, request.user)
        models.add(request.model)
        row["calls"] += 1
        row["input_tokens"] += tokens_in
        row["output_tokens"] += tokens_out
        row["input_bound"] += bound
        row["output_bound"] += request.max_output
        price = prices.get(request.model)
        if price:
            row["cost"] += price.cost(tokens_in, tokens_out)
            row["cost_bound"] += price.cost(bound, request.max_output)
    total = {name: sum(row[name] for row in rows.values()) for name in _COLUMNS}
    return {
        "purpose": header.purpose,
        "annotators": rows,
        "total": total,
        "unpriced": sorted(models - prices.keys()),
    }


_COLUMNS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "input_bound",
    "output_bound",
    "cost",
    "cost_bound",
)
