"""What an endpoint understands: the form of the answer, the name of the output limit, and so on.

OpenAI-compatible servers differ. One small preflight call per model finds the richest form that
works; the result is stored in the cache, so that a replay sends the same requests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from workflow_scripts.autointerp.llm.cache import ResponseCache, canonical
from workflow_scripts.autointerp.llm.replies import Exchange, Reask
from workflow_scripts.autointerp.llm.requests import Header, Request, answer_schema, message_body
from workflow_scripts.autointerp.llm.write_once import write_once
from workflow_scripts.autointerp.prompting.templates import defuse
from workflow_scripts.common.cli import UserError

Form = Literal["json_schema", "json_object", "none"]
Limit = Literal["max_completion_tokens", "max_tokens"]
LADDER: tuple[Form, ...] = ("json_schema", "json_object", "none")
MAX_QUOTED = 2000


@dataclass(frozen=True)
class Dialect:
    """How to put a request to one model of one endpoint."""

    form: Form = "json_schema"
    limit: Limit = "max_completion_tokens"
    temperature: bool = True
    seed: bool = True

    def weaker(self, complaint: str) -> Dialect | None:
        """Return the dialect to try after a 400 with this message; None if nothing weaker helps."""
        text = complaint.lower()
        if "max_completion_tokens" in text and self.limit == "max_completion_tokens":
            return replace(self, limit="max_tokens")
        if "max_tokens" in text and self.limit == "max_tokens":
            return None
        if "temperature" in text and self.temperature:
            return replace(self, temperature=False)
        if "response_format" in text or "json_schema" in text or "json_object" in text:
            return self.lower_form()
        if "seed" in text and self.seed:
            return replace(self, seed=False)
        return None

    def lower_form(self) -> Dialect | None:
        """Return the dialect one step down the ladder of answer forms, or None at its foot."""
        place = LADDER.index(self.form)
        if place + 1 == len(LADDER):
            return None
        return replace(self, form=LADDER[place + 1])

    def options(
        self, name: str, schema: dict[str, object], limit: int, temperature: float | None, seed: int
    ) -> dict[str, object]:
        """Return the body's fields beside model and messages."""
        options: dict[str, object] = {self.limit: limit}
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
    header: Header, request: Request, dialect: Dialect, turns: Sequence[tuple[Exchange, Reask]]
) -> dict[str, object]:
    """Return the exact body of a request after ``turns`` invalid replies and their complaints."""
    body = message_body(header, request)
    messages = body["messages"]
    assert isinstance(messages, list)
    for _, reask in turns:
        quoted = defuse(reask.content[:MAX_QUOTED])  # it may repeat what a text has planted
        messages.append({"role": "assistant", "content": quoted})
        messages.append(
            {
                "role": "user",
                "content": f"That answer is not valid: {reask.reason}. "
                "Answer again with the JSON object only, in the form asked for.",
            }
        )
    schema = answer_schema(header, request)
    body.update(
        dialect.options(
            request.purpose, schema, request.max_output, request.temperature, request.seed
        )
    )
    return body


PROBE_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"ready": {"type": "string", "enum": ["yes"]}},
    "required": ["ready"],
    "additionalProperties": False,
}


def probe_body(model: str, dialect: Dialect, temperature: float | None) -> dict[str, object]:
    """Return the body of a preflight call; it carries no text of the study."""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer with one JSON object and nothing else."},
            {"role": "user", "content": 'Answer with the JSON object {"ready": "yes"}.'},
        ],
        **dialect.options("probe", PROBE_SCHEMA, 100, temperature, 0),
    }


def probe_passed(content: str) -> bool:
    """Whether a preflight reply is the requested JSON object and nothing else."""
    try:
        return bool(json.loads(content.strip()) == {"ready": "yes"})
    except (ValueError, RecursionError):
        return False


def dialect_key(base_url: str, model: str, forced: str) -> str:
    """Return the name under which a finding is stored."""
    identity = {"dialect": 1, "base_url": base_url, "model": model, "forced": forced}
    return hashlib.sha256(canonical(identity)).hexdigest()


def load_dialect(cache: ResponseCache, key: str) -> Dialect | None:
    """Return a stored finding, or None; a damaged one counts as absent."""
    path = cache.root / "dialects" / f"{key}.json"
    try:
        dialect = decode_dialect(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if dialect is None:
        path.unlink(missing_ok=True)
    return dialect


def decode_dialect(raw: bytes) -> Dialect | None:
    """Return the finding that a file holds, or None when it is damaged or of another version."""
    try:
        dialect = Dialect(**json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return None
    known = dialect.form in LADDER and dialect.limit in get_args(Limit)
    switches = isinstance(dialect.temperature, bool) and isinstance(dialect.seed, bool)
    return dialect if known and switches else None


def store_dialect(cache: ResponseCache, key: str, dialect: Dialect) -> Dialect:
    """Store a finding; return the one that is stored now."""
    write_once(cache.root / "dialects" / f"{key}.json", canonical(asdict(dialect)) + b"\n")
    return load_dialect(cache, key) or dialect
