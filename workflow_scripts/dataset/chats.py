"""The turns of a chat, from the forms in which data sets hold them.

A message is a mapping with ``role`` and ``content``, or ``from`` and ``value`` (ShareGPT). Content
is text, nothing, or a list of parts of which the text is read. Calls of tools stay with their turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from workflow_scripts.common.cli import quoted

FORM = 'a list of {"role": "user" | "assistant" | "system", "content": text}'
ROLES_OF = {
    "user": ("human", "prompter"),
    "assistant": ("gpt", "chatgpt", "model", "bot", "ai"),
    "system": ("developer",),
    "tool": ("function", "observation", "ipython", "tool_response", "function_response"),
}
"""Roles, with other names for them."""
ROLES = {name: role for role, names in ROLES_OF.items() for name in (role, *names)}
CALLING = ("function_call", "tool_call")
"""Roles of ShareGPT's turns that are nothing but a call of a tool."""
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that hold what a model thought before it answered."""


class RowError(Exception):
    """A row that holds no document: its kind, for counts, and what is wrong with the remedy."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class ChatTurn(NamedTuple):
    """One message; ``extra`` is a JSON object of its further fields (calls of tools), or empty."""

    role: str
    content: str
    extra: str = ""

    def message(self) -> dict[str, object]:
        """Return the message as chat templates take it."""
        extra = json.loads(self.extra) if self.extra else {}
        return {"role": self.role, "content": self.content, **extra}


def parse_turns(value: object) -> tuple[list[ChatTurn], tuple[str, ...]]:
    """Return the turns of a chat, or of the JSON text of one, and what was left out of it.

    Raises
    ------
    RowError
        If it has another form, or an unknown role.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            raise _form(f"holds text for messages, not {FORM}") from None
    if value is None:
        return [], ()
    if not isinstance(value, list):
        raise _form(f"holds {type(value).__name__} for messages, not {FORM}")
    turns: list[ChatTurn] = []
    changes: list[str] = []
    for item in value:
        turn, left_out = _turn(item)
        turns.append(turn)
        changes += left_out
    return turns, tuple(dict.fromkeys(changes))


def _form(text: str) -> RowError:
    return RowError("messages of another form", text)


def _turn(item: object) -> tuple[ChatTurn, tuple[str, ...]]:
    if not isinstance(item, Mapping):
        raise _form(f"has {type(item).__name__} as a message: messages are {FORM}")
    named = next((item[name] for name in ("role", "from") if item.get(name)), None)
    role = str(named).strip().lower()
    keys = [name for name in ("content", "value") if name in item]
    key = next((name for name in keys if item[name] is not None), keys[0] if keys else None)
    if named is None or (key is None and not item.get("tool_calls")):
        raise _form(f"has a message without text content: messages are {FORM}")
    text, changes = text_of(item[key] if key else None)
    thought = next((t for t in map(item.get, THOUGHTS) if isinstance(t, str) and t.strip()), "")
    if thought and "</think>" not in text:
        text = f"<think>\n{thought}\n</think>\n\n{text}"
    calls = item.get("tool_calls") or item.get("function_call")
    if role in CALLING:
        role, calls, text = "assistant", text, ""
    if role not in ROLES:
        raise RowError("unknown role", f"has the role {quoted(named)}: messages are {FORM}")
    return ChatTurn(ROLES[role], text, _extra(item, ROLES[role], calls)), changes


def _extra(item: Mapping[str, object], role: str, calls: object) -> str:
    extra: dict[str, object] = {}
    if role == "assistant" and calls:
        extra["tool_calls"] = _calls(calls)
    if role == "tool":
        extra |= {name: item[name] for name in ("name", "tool_call_id") if item.get(name)}
    try:
        return well_formed(json.dumps(extra, ensure_ascii=False)) if extra else ""
    except (TypeError, ValueError, RecursionError):
        raise _calls_form() from None


def _calls(value: object) -> list[object]:
    """Return calls as templates take them: each a function with a name and arguments.

    Arguments that are the JSON text of an object, as LLM services give them, become the object.
    """
    calls = _loaded(value)
    found: list[object] = []
    for call in calls if isinstance(calls, list) else [calls]:
        known = _without_nulls(call)
        function = known.get("function", known) if isinstance(known, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _calls_form()
        arguments = function.get("arguments", {})
        loaded = _loaded(arguments)
        function = {
            "name": function["name"],
            "arguments": loaded if isinstance(loaded, dict) else arguments,
        }
        given = {"id": known["id"]} if isinstance(known, dict) and "id" in known else {}
        found.append({**given, "type": "function", "function": function})
    return found


def _calls_form() -> RowError:
    return RowError(
        "tool calls of another form",
        'has tool calls of another form: a call is {"name": text, "arguments": {…}}',
    )


def _loaded(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_nulls(value: object) -> object:
    """Return a value without empty fields, which tables add to structs."""
    if isinstance(value, Mapping):
        return {str(k): _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def text_of(content: object) -> tuple[str, tuple[str, ...]]:
    """Return the text of a message's content, parts joined by line breaks, and what else it has.

    Raises
    ------
    RowError
        If it is neither text nor parts nor nothing.
    """
    if content is None or isinstance(content, str):
        return content or "", ()
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise _form(f"has {type(content).__name__} as content: messages are {FORM}")
    texts: list[str] = []
    others: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str) and (kind is None or kind in TEXT_PARTS):
            texts.append(text)
        else:
            others.append(f"{_kind_name(kind)} parts left out")
    return "\n".join(texts), tuple(dict.fromkeys(others))


def _kind_name(kind: object) -> str:
    """Return the name of a kind of part, which comes from the data, as a count shows it."""
    name = str(kind) if isinstance(kind, str) else "other"
    return (
        name if name.isascii() and name.replace("_", "").isalnum() and len(name) < 30 else "other"
    )


def well_formed(text: str) -> str:
    """Return text with lone surrogates, which no encoding can hold, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
