"""The answers of an annotator, and how a reply is judged. Pure: no network, no files.

A reply is parsed strictly, then searched for an object, then repaired; the result must satisfy the
model of its answer, from which the schema in the request is made too. A reply that does not is
requested again, with the reason; one that was cut off, is empty or repeats itself is drawn again.
Both together happen at most `MAX_REASKS` times. A failure is a status, never a default answer.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import json_repair
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from workflow_scripts.autointerp.annotation_tables import Status

MAX_REASKS = 2
MAX_EXPLANATION = 500
PLACEHOLDER = "one sentence of at most 40 words"
"""What stands for the explanation in a prompt, or else an ellipsis; small models copy it."""
SCHEMA_LENGTH = 300
"""Characters of an explanation in the schema, which a grammar obeys: room for 40 words."""
MAX_REPAIRED = 20_000
"""Characters of a reply that is repaired; repairing takes longer than proportionally."""
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length")
"""Finish reasons of a reply that has reached the output limit or the end of the context."""


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


class AnswerModel(BaseModel):
    """An answer: exactly its fields, in their exact types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def clean_text(value: str) -> str:
    """Return an explanation on one line without control characters.

    Raises
    ------
    ValueError
        If it is empty, too long, or copied from the prompt.
    """
    visible = "".join(
        " " if c.isspace() else "" if unicodedata.category(c)[0] == "C" else c for c in value
    )
    text = " ".join(visible.split())
    if not text:
        raise ValueError('"explanation" must not be empty')
    if text.lower().strip(" .…") in ("", PLACEHOLDER):
        raise ValueError('"explanation" must describe the texts, not repeat the instructions')
    if len(text) > MAX_EXPLANATION:
        raise ValueError(f'"explanation" must have at most {MAX_EXPLANATION} characters')
    return text


Percent = Annotated[int, Field(ge=0, le=100, description="a whole number from 0 to 100")]


class Explanation(AnswerModel):
    """What a latent responds to."""

    explanation: Annotated[str, AfterValidator(clean_text)] = Field(
        description="a text", json_schema_extra={"maxLength": SCHEMA_LENGTH}
    )


class CategoryChoice(AnswerModel):
    """The category of a latent, or of a document."""

    category: str = Field(description="one of the listed ids")
    confidence: Percent


class ItemScore(AnswerModel):
    """How likely it is that the latent fires in an item."""

    item: str = Field(description="one of the given codes")
    score: Percent


class ItemScores(AnswerModel):
    """A score for each item of the request, in any order."""

    answers: list[ItemScore] = Field(description="a list")

    def by_item(self) -> dict[str, int]:
        """Return the score of each item."""
        return {answer.item: answer.score for answer in self.answers}


Answer = Explanation | CategoryChoice | ItemScores
MODELS: dict[str, type[Answer]] = {
    "explain": Explanation,
    "classify": CategoryChoice,
    "label": CategoryChoice,
    "score": ItemScores,
}


@functools.lru_cache(maxsize=256)
def answer_model(expected: Expected) -> type[Answer]:
    """Return the model of the answer, narrowed to the permitted ids or the given items."""
    literal = cast(Any, Literal)
    if expected.purpose == "explain":
        return Explanation
    if expected.purpose in ("classify", "label"):
        return create_model("Narrowed", __base__=CategoryChoice, category=literal[expected.ids])
    one = create_model("NarrowedItem", __base__=ItemScore, item=literal[expected.items])

    def each_once(answers: list[ItemScore]) -> list[ItemScore]:
        if len({answer.item for answer in answers}) < len(answers):
            raise ValueError("an item is answered twice")
        if len(answers) < len(expected.items):
            count = len(expected.items)
            raise ValueError(f"there must be one answer for each of the {count} items")
        return answers

    answers: Any = Annotated[cast(Any, list)[one], AfterValidator(each_once)]
    count = len(expected.items)
    field = Field(json_schema_extra={"minItems": count, "maxItems": count})
    return create_model("Narrowed", __base__=ItemScores, answers=(answers, field))


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


@dataclass(frozen=True)
class Redraw:
    """The last reply was cut off, is empty or repeats itself: ask the same, with another seed."""

    short: bool
    """Whether a lower output limit will do: the reply ran on. Thoughts need the whole."""


class InvalidAnswerError(Exception):
    """A reply breaks its schema; the message is made of our own words only."""


Verdict = Outcome | Reask | Redraw


def conclude(expected: Expected, exchanges: Sequence[Exchange]) -> Verdict:
    """Return the outcome of a request after these replies, or what to ask next.

    At least one exchange is needed.
    """
    last, content = exchanges[-1], exchanges[-1].content or ""
    if last.refusal:
        return Outcome("refused")
    if last.finish_reason == "content_filter":
        return Outcome("filtered")
    again = len(exchanges) <= MAX_REASKS
    cut_off = last.finish_reason.lower() in CUT_OFF
    if not content.strip():
        return Redraw(short=False) if again else Outcome("truncated" if cut_off else "empty")
    if cut_off:  # what looks like an answer may be a draft
        return Redraw(short=repeats(content)) if again else Outcome("truncated")
    try:
        value, strict = extract(content)
        answer = validate(expected, value)
    except InvalidAnswerError as error:
        return Reask(content, str(error)) if again else Outcome("invalid")
    if isinstance(answer, Explanation) and repeats(answer.explanation):
        return Redraw(short=True) if again else Outcome("invalid")
    if len(exchanges) > 1:
        return Outcome("reasked", answer)
    return Outcome("ok" if strict else "repaired", answer)


_REPEATED = re.compile(r"(.{2,80}?)\1{3,}.{0,80}\Z", re.DOTALL)


def repeats(text: str) -> bool:
    """Return whether a text ends with the same words over and over, for 60 characters or more."""
    found = _REPEATED.search(text[-600:])
    return found is not None and len(found.group()) >= 60


def extract(text: str) -> tuple[dict[str, object], bool]:
    """Return the JSON object in ``text``, and whether it is the whole text.

    Else it is that of a fenced block, the first one amid prose, or what repair makes of the text.

    Raises
    ------
    InvalidAnswerError
        If there is none.
    """
    for number, part in enumerate((text, *_FENCE.findall(text))):
        with suppress(ValueError, RecursionError, InvalidAnswerError):
            value = _DECODER.decode(part.strip())
            if isinstance(value, dict):
                return value, number == 0
    value = _first_object(text)
    if value is None:
        value = _repaired(text)
    if value is None:
        raise InvalidAnswerError("the answer holds no JSON object")
    return value, False


def _first_object(text: str) -> dict[str, object] | None:
    start = text.find("{")
    while start >= 0:
        with suppress(ValueError, RecursionError):
            value: dict[str, object] = _DECODER.raw_decode(text, start)[0]
            return value
        start = text.find("{", start + 1)
    return None


def _repaired(text: str) -> dict[str, object] | None:
    """Return an object from JSON with single quotes, a comma too many or an inner bracket too few.

    A text that does not end with a bracket was cut off: it is no answer.
    """
    if len(text) > MAX_REPAIRED or not text.rstrip("` \t\r\n").endswith(("}", "]")):
        return None
    with suppress(ValueError, RecursionError):
        value = json_repair.loads(text, skip_json_loads=True)
        values = value if isinstance(value, list) else [value]
        return next((value for value in values if isinstance(value, dict)), None)
    return None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidAnswerError("the answer repeats a key")
    return value


def _no_constant(name: str) -> float:
    raise InvalidAnswerError(f"the answer holds {name}, which is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


def validate(expected: Expected, value: dict[str, object]) -> Answer:
    """Check an object against what the request expects.

    Raises
    ------
    InvalidAnswerError
        If it breaks the schema in any way; extra keys are refused too.
    """
    try:
        return answer_model(expected).model_validate(value)
    except ValidationError as error:
        raise InvalidAnswerError(_reason(error, MODELS[expected.purpose])) from None


def _reason(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first fault in our own words: pydantic's quote the reply.

    The words go into the next request, and so into its key in the cache: never change them.
    """
    faults = error.errors(include_url=False, include_input=False)
    keys = ("missing", "extra_forbidden")
    # By place in a list of answers; in each, wrong keys come before wrong values.
    first = min(faults, key=lambda fault: ([*fault["loc"], -1, -1][1:2], fault["type"] not in keys))
    *outer, name = first["loc"]
    if outer:
        model = ItemScore
    if first["type"] in keys:
        return f"the object must have exactly the keys {sorted(model.model_fields)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if isinstance(name, int):
        return "each answer must be an object"
    return f'"{name}" must be {model.model_fields[name].description}'


@functools.lru_cache(maxsize=256)
def schema(expected: Expected, bounds: bool = True) -> dict[str, object]:
    """Return the JSON schema of the answer (strict form), without lengths and ranges if asked.

    A server that turns it into a grammar keeps a small model from running on; others refuse them.
    """
    whole = answer_model(expected).model_json_schema()
    left_out = _WORDY if bounds else (*_WORDY, *_BOUNDS)
    plain: dict[str, object] = _plain(whole, whole.get("$defs", {}), left_out)
    return plain


_WORDY = ("$defs", "title", "description")
_BOUNDS = ("maxLength", "minItems", "maxItems", "minimum", "maximum")
"""Words of a schema that some servers do not know."""


def _plain(node: Any, definitions: dict[str, Any], left_out: Sequence[str]) -> Any:
    """Return a schema without references and without the words ``left_out``."""
    if isinstance(node, list):
        return [_plain(inner, definitions, left_out) for inner in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _plain(definitions[node["$ref"].rpartition("/")[2]], definitions, left_out)
    if "const" in node:
        node = {"type": node["type"], "enum": [node["const"]]}
    kept = {name: inner for name, inner in node.items() if name not in left_out}
    return {name: _plain(inner, definitions, left_out) for name, inner in kept.items()}
