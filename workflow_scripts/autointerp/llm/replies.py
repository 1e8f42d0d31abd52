"""What an annotator must answer, and how a reply is judged. Pure: no network, no files.

A reply is parsed strictly, then as a fenced block, then as the first JSON object in it; whatever is
found must satisfy the schema. A reply that does not is asked for again, with the reason, at most
`MAX_REASKS` times. A failure is a status, never a default answer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_REASKS = 2
MAX_EXPLANATION = 500
NO_PATTERN = "no clear pattern"

Status = Literal[
    "ok",
    "repaired",
    "reasked",
    "refused",
    "truncated",
    "filtered",
    "invalid",
    "transport_failed",
    "not_run",
]
GOOD: tuple[Status, ...] = ("ok", "repaired", "reasked")

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Exchange:
    """One reply of the endpoint: its text and how it ended."""

    key: str
    content: str | None
    finish_reason: str
    refusal: str | None = None


@dataclass(frozen=True)
class Expected:
    """What a request asks for: its purpose, the permitted ids, the items to be answered."""

    purpose: str
    ids: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A valid answer; only the fields of the purpose are set."""

    explanation: str = ""
    category: str = ""
    confidence: int = 0
    scores: tuple[int, ...] = ()
    """In the order of the request's items."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended; ``answer`` is set exactly when the status is a good one."""

    status: Status
    answer: Answer | None = None


@dataclass(frozen=True)
class Reask:
    """The last reply was not valid: ask again, quoting it and saying why."""

    content: str
    reason: str


class InvalidAnswerError(Exception):
    """A reply breaks its schema; the message is made of our own words only."""


def conclude(expected: Expected, exchanges: Sequence[Exchange]) -> Outcome | Reask:
    """Return the outcome of a request after these replies, or what to ask next.

    At least one exchange is needed.
    """
    last = exchanges[-1]
    if last.refusal:
        return Outcome("refused")
    if last.finish_reason == "content_filter":
        return Outcome("filtered")
    if last.finish_reason == "length":
        return Outcome("truncated")
    try:
        value, strict = extract(last.content or "")
        answer = validate(expected, value)
    except InvalidAnswerError as error:
        if len(exchanges) > MAX_REASKS:
            return Outcome("invalid")
        return Reask(last.content or "", str(error))
    if len(exchanges) > 1:
        return Outcome("reasked", answer)
    return Outcome("ok" if strict else "repaired", answer)


def extract(text: str) -> tuple[dict[str, object], bool]:
    """Return the JSON object in ``text``, and whether it is the whole text.

    Raises
    ------
    InvalidAnswerError
        If there is none.
    """
    try:
        return _object(text), True
    except InvalidAnswerError:
        pass
    for block in _FENCE.findall(text):
        try:
            return _object(block), False
        except InvalidAnswerError:
            continue
    return _embedded(text), False


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text.strip(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidAnswerError("the answer is not a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidAnswerError("the answer is not a JSON object")
    return value


def _embedded(text: str) -> dict[str, object]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict):
            return value
        break
    raise InvalidAnswerError("the answer holds no JSON object")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidAnswerError("the answer repeats a key")
    return value


def _no_constant(name: str) -> float:
    raise InvalidAnswerError(f"the answer holds {name}, which is no JSON")


def validate(expected: Expected, value: dict[str, object]) -> Answer:
    """Check an object against what was asked for.

    Raises
    ------
    InvalidAnswerError
        If it breaks the schema in any way; extra keys are refused too.
    """
    if expected.purpose == "explain":
        _keys(value, {"explanation"})
        return Answer(explanation=clean_text(value["explanation"]))
    if expected.purpose == "classify":
        _keys(value, {"category", "confidence"})
        category = value["category"]
        if not isinstance(category, str) or category not in expected.ids:
            raise InvalidAnswerError('"category" must be one of the listed ids')
        return Answer(category=category, confidence=_percent(value["confidence"], "confidence"))
    _keys(value, {"answers"})
    return Answer(scores=_scores(value["answers"], expected.items))


def _keys(value: dict[str, object], wanted: set[str]) -> None:
    if set(value) != wanted:
        raise InvalidAnswerError(f"the object must have exactly the keys {sorted(wanted)}")


def _percent(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise InvalidAnswerError(f'"{name}" must be a whole number from 0 to 100')
    return value


def _scores(value: object, items: tuple[str, ...]) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidAnswerError('"answers" must be a list')
    found: dict[str, int] = {}
    for entry in value:
        if not isinstance(entry, dict):
            raise InvalidAnswerError("each answer must be an object")
        _keys(entry, {"item", "score"})
        item = entry["item"]
        if not isinstance(item, str) or item not in items:
            raise InvalidAnswerError('"item" must be one of the given codes')
        if item in found:
            raise InvalidAnswerError("an item is answered twice")
        found[item] = _percent(entry["score"], "score")
    if len(found) != len(items):
        raise InvalidAnswerError(f"there must be one answer for each of the {len(items)} items")
    return tuple(found[item] for item in items)


def clean_text(value: object) -> str:
    """Return an explanation on one line without control characters.

    Raises
    ------
    InvalidAnswerError
        If it is no text, empty, or too long.
    """
    if not isinstance(value, str):
        raise InvalidAnswerError('"explanation" must be a text')
    visible = "".join(
        " " if c.isspace() else "" if unicodedata.category(c)[0] == "C" else c for c in value
    )
    text = " ".join(visible.split())
    if not text:
        raise InvalidAnswerError('"explanation" must not be empty')
    if len(text) > MAX_EXPLANATION:
        raise InvalidAnswerError(f'"explanation" must have at most {MAX_EXPLANATION} characters')
    return text


def schema(expected: Expected) -> dict[str, object]:
    """Return the JSON schema of the answer, for endpoints that take one (strict form)."""
    text: dict[str, object] = {"type": "string"}
    percent: dict[str, object] = {"type": "integer"}
    if expected.purpose == "explain":
        return _strict({"explanation": text})
    if expected.purpose == "classify":
        return _strict(
            {"category": {"type": "string", "enum": list(expected.ids)}, "confidence": percent}
        )
    codes: dict[str, object] = {"type": "string", "enum": list(expected.items)}
    entry = _strict({"item": codes, "score": percent})
    return _strict({"answers": {"type": "array", "items": entry}})


def _strict(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
