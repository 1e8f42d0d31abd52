"""What an endpoint understands: the form of the answer, the name of the output limit, and so on.

OpenAI-compatible servers differ. One small preflight call per model finds the richest form that
works, and a later refusal of a field leaves it out. The result is stored in the cache once an
answer has come of it, so that a replay sends the same requests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from workflow_scripts.autointerp.llm.cache import ResponseCache, canonical
from workflow_scripts.autointerp.llm.replies import CUT_OFF, Exchange, Reask, Redraw
from workflow_scripts.autointerp.llm.requests import Header, Request, answer_schema, message_body
from workflow_scripts.autointerp.llm.write_once import write_over
from workflow_scripts.autointerp.prompting.templates import defuse
from workflow_scripts.common.cli import UserError

Form = Literal["json_schema", "json_object", "none"]
Limit = Literal["max_completion_tokens", "max_tokens", "omitted"]
LADDER: tuple[Form, ...] = ("json_schema", "json_object", "none")
MAX_QUOTED = 2000
REDRAW_TEMPERATURE = 0.7
"""Least temperature at which a question is asked again: at 0 another seed changes nothing."""
_TOO_LONG = re.compile(r"context|too large|too long|exceed|at most|maximum")
"""Words of a complaint about a prompt's length, which may name the limit's field too."""
_BOUNDS = re.compile(r"maxlength|minitems|maxitems|['\"`]m(?:in|ax)imum\\?['\"`]")
_FORM_WORDS = ("response_format", "json_schema", "json_object", "schema", "grammar", "structured")


@dataclass(frozen=True)
class Dialect:
    """How to put a request to one model of one endpoint."""

    form: Form = "json_schema"
    limit: Limit = "max_completion_tokens"
    temperature: bool = True
    seed: bool = True
    bounds: bool = True
    """Whether the schema has lengths and ranges."""
    system: bool = True
    """Whether there is a system message; else the user's first message begins with its text."""

    def weaker(self, complaint: str) -> Dialect | None:
        """Return the dialect to try after a 400 with this message; None if nothing weaker helps."""
        text = complaint.lower()
        if self.bounds and self.form == "json_schema" and _BOUNDS.search(text):
            return replace(self, bounds=False)
        if re.search(r"system.{0,20}\brole|role.{0,20}\bsystem", text) and self.system:
            return replace(self, system=False)
        if _TOO_LONG.search(text) and "max_" in text:
            return None
        if "max_completion_tokens" in text and self.limit == "max_completion_tokens":
            return replace(self, limit="max_tokens")
        if "max_tokens" in text and self.limit == "max_tokens":
            return replace(self, limit="omitted")
        if "temperature" in text and self.temperature:
            return replace(self, temperature=False)
        if re.search(r"\bseed\b", text) and self.seed:
            return replace(self, seed=False)
        if any(word in text for word in _FORM_WORDS):
            return self.lower_form()
        return None

    def describe(self) -> str:
        """Return what is sent, for a line of the log."""
        left_out = [
            name for name in ("temperature", "seed", "bounds", "system") if not getattr(self, name)
        ]
        without = f", without {' and '.join(left_out)}" if left_out else ""
        return f"{self.form}, {self.limit}{without}"

    def lower_form(self) -> Dialect | None:
        """Return the dialect one step down the ladder of answer forms, or None at its foot."""
        place = LADDER.index(self.form)
        if place + 1 == len(LADDER):
            return None
        return replace(self, form=LADDER[place + 1])

    def addressed(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return messages, of which the first is the system's, as the endpoint takes them."""
        if self.system:
            return messages
        system, user, *others = messages
        return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *others]

    def options(
        self, name: str, schema: dict[str, object], limit: int, temperature: float | None, seed: int
    ) -> dict[str, object]:
        """Return the body's fields beside model and messages."""
        options: dict[str, object] = {} if self.limit == "omitted" else {self.limit: limit}
        if self.temperature and temperature is not None:
            options["temperature"] = temperature
        if self.seed:
            options["seed"] = seed
        if self.form == "json_schema":
            inner = {"name": name, "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": inner}
        elif self.form == "json_object":
            options["response_format"] = {"type": "json_object"}
        return options


def form(name: str) -> Form:
    """Return the step of the ladder with this name.

    Raises
    ------
    UserError
        If there is none.
    """
    for step in LADDER:
        if step == name:
            return step
    raise UserError(f"autointerp.llm.response_format must be auto or one of {', '.join(LADDER)}")


def compose(
    header: Header,
    request: Request,
    dialect: Dialect,
    turns: Sequence[tuple[Exchange, Reask | Redraw]],
) -> dict[str, object]:
    """Return the exact body of a request after ``turns`` of replies that were no good."""
    body = message_body(header, request)
    messages = dialect.addressed(body["messages"])
    seed, temperature, limit = request.seed, request.temperature, request.max_output
    for number, (_, verdict) in enumerate(turns, 1):
        if isinstance(verdict, Reask):
            messages += complaint(verdict)
            continue
        seed = (request.seed + number) % 2**31
        if temperature is not None:
            temperature = max(temperature, REDRAW_TEMPERATURE)
        limit = request.max_output // 2 if verdict.short else request.max_output
    schema = answer_schema(header, request, dialect.bounds)
    body["messages"] = messages
    body.update(dialect.options(request.purpose, schema, limit, temperature, seed))
    return body


def complaint(reask: Reask) -> list[dict[str, str]]:
    """Return the messages that quote an invalid answer and say what is wrong with it."""
    quoted = defuse(reask.content[:MAX_QUOTED])  # it may repeat what a text has planted
    ask = (
        f"That answer is not valid: {reask.reason}. "
        "Answer again with the JSON object only, in the form asked for."
    )
    return [{"role": "assistant", "content": quoted}, {"role": "user", "content": ask}]


PROBE_LIMIT = 100
"""Tokens of the preflight answer where requests have no more; thoughts may come before it."""


def probe_body(
    model: str,
    dialect: Dialect,
    temperature: float | None,
    limit: int = PROBE_LIMIT,
    extra: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the body of a preflight call; it carries no text of the study."""
    ready = {"type": "string", "enum": ["yes"]}
    schema = {
        "type": "object",
        "properties": {"ready": {**ready, "maxLength": 3} if dialect.bounds else ready},
        "required": ["ready"],
        "additionalProperties": False,
    }
    return {
        **(extra or {}),
        "model": model,
        "messages": dialect.addressed(
            [
                {"role": "system", "content": "You answer with one JSON object and nothing else."},
                {"role": "user", "content": 'Answer with the JSON object {"ready": "yes"}.'},
            ]
        ),
        **dialect.options("probe", schema, max(limit, PROBE_LIMIT), temperature, 0),
    }


def probe_passed(content: str) -> bool:
    """Whether a preflight reply is the requested JSON object and nothing else."""
    try:
        return bool(json.loads(content.strip()) == {"ready": "yes"})
    except (ValueError, RecursionError):
        return False


def probe_says_nothing(content: str | None, finish_reason: str) -> bool:
    """Whether a preflight reply ended before it said anything, so that nothing follows from it."""
    return not (content or "").strip() or finish_reason.lower() in CUT_OFF


def dialect_key(
    base_url: str, model: str, forced: str, extra: Mapping[str, object] | None = None
) -> str:
    """Return the name under which findings are stored."""
    identity: dict[str, object]
    identity = {"dialect": 1, "base_url": base_url, "model": model, "forced": forced}
    if extra:
        identity["extra"] = extra
    return hashlib.sha256(canonical(identity)).hexdigest()


def load_dialects(cache: ResponseCache, key: str) -> list[Dialect]:
    """Return the stored findings, the latest one last; a damaged file counts as absent."""
    path = cache.root / "dialects" / f"{key}.json"
    try:
        dialects = decode_dialects(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not dialects:
        path.unlink(missing_ok=True)
    return dialects


def decode_dialects(raw: bytes) -> list[Dialect]:
    """Return the findings that a file holds; none when it is damaged or of another version.

    Earlier versions stored one, whose schemas had no bounds.
    """
    try:
        stored = json.loads(raw)
        dialects = (
            [Dialect(**one) for one in stored]
            if isinstance(stored, list)
            else [Dialect(**{"bounds": False, **stored})]
        )
    except (ValueError, TypeError, RecursionError):
        return []
    return dialects if all(map(_is_known, dialects)) else []


def _is_known(dialect: Dialect) -> bool:
    switches = (dialect.temperature, dialect.seed, dialect.bounds, dialect.system)
    known = dialect.form in LADDER and dialect.limit in get_args(Limit)
    return known and all(isinstance(switch, bool) for switch in switches)


def store_dialect(cache: ResponseCache, key: str, dialect: Dialect) -> None:
    """Store a finding as the latest one; answers to requests in earlier ones stay in use."""
    others = [one for one in load_dialects(cache, key) if one != dialect]
    content = canonical([asdict(one) for one in (*others, dialect)]) + b"\n"
    write_over(cache.root / "dialects" / f"{key}.json", content)
