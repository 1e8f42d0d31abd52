"""Prompts from files, and the block that carries untrusted text into them.

A prompt file has two parts, split by a line `===== user`: the system part, which is the same for
all requests of an annotator (so that providers can cache it), and the user part with the data.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from workflow_scripts.autointerp.settings import Variant
from workflow_scripts.common.characters import hidden
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.taxonomy import Taxonomy

FOLDER = Path(__file__).parent / "prompts"
OPEN, CLOSE = "<<", ">>"
"""Marks of active tokens; dataset text never holds them unescaped."""

_SPLIT = "\n===== user\n"
_FIELD = re.compile(r"\{\{(\w+)\}\}")
_CHAT_TOKEN = re.compile(r"\[(?=/?[A-Z_]{2,}\])")
_UNSAFE = re.compile("[<>`]")


@dataclass(frozen=True)
class Prompt:
    """A prompt template with its name and the SHA-256 of its file."""

    name: str
    digest: str
    system: str
    user: str


def load_prompt(purpose: str, variant: str, folder: Path = FOLDER) -> Prompt:
    """Read the prompt `<purpose>_<variant>.md`.

    Raises
    ------
    UserError
        If there is no such file or it lacks a part.
    """
    path = folder / f"{purpose}_{variant}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"there is no prompt {path.name}: choose a variant from {', '.join(get_args(Variant))}"
        ) from None
    system, separator, user = text.partition(_SPLIT)
    if not separator or "{{data}}" not in user:
        raise UserError(f"the prompt {path} lacks its user part with {{{{data}}}}: add it")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Prompt(path.stem, digest, system.strip(), user.strip())


def fill(template: str, **values: str) -> str:
    """Replace `{{name}}` by its value in one pass, so that values are never expanded again."""
    return _FIELD.sub(lambda match: values[match.group(1)], template)


def data_block(value: object, seed: str) -> str:
    """Return JSON between tags with a boundary drawn from ``seed``; see :func:`encode`."""
    boundary = f"data-{hashlib.sha256(seed.encode()).hexdigest()[:12]}"
    return f"<{boundary}>\n{encode(value)}\n</{boundary}>"


@dataclass(frozen=True)
class Marked:
    """Text in which some stretches are marked as active: (text, active) pairs."""

    parts: tuple[tuple[str, bool], ...]


def encode(value: object) -> str:
    """Write a value as JSON in which untrusted strings cannot imitate the prompt.

    Angle brackets, back-ticks, chat-template markers and invisible characters become escapes, so
    no tag, fence or control token of the text survives; the only bare `<<` and `>>` are the marks
    of :class:`Marked`. The result still parses as JSON.
    """
    if isinstance(value, Marked):
        inner = "".join(
            f"{OPEN}{_escape(text)}{CLOSE}" if active else _escape(text)
            for text, active in value.parts
        )
        return f'"{inner}"'
    if isinstance(value, str):
        return f'"{_escape(value)}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{encode(str(k))}: {encode(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(encode(item) for item in value) + "]"
    return json.dumps(value)


def _escape(text: str) -> str:
    return defuse(json.dumps(text, ensure_ascii=False)[1:-1])


def defuse(text: str) -> str:
    """Return a text without tags, fences, control tokens and invisible characters, as escapes."""
    quoted = _CHAT_TOKEN.sub(r"\\u005b", text)
    return hidden().sub(_as_escape, _UNSAFE.sub(_as_escape, quoted))


def _as_escape(match: re.Match[str]) -> str:
    """Return a character as JSON's escape: two of them beyond the first 65,536."""
    return json.dumps(match[0])[1:-1] if match[0] > "\x7f" else f"\\u{ord(match[0]):04x}"


def describe_taxonomy(taxonomy: Taxonomy, seed: int) -> str:
    """Return the categories as text, in an order permuted by ``seed``."""
    order = list(taxonomy.categories)
    random.Random(f"labels:{seed}").shuffle(order)
    blocks = []
    for category in order:
        lines = [f"{category.id} (class: {category.class_}): {category.definition}"]
        lines += [f"  belongs: {' '.join(example.split())}" for example in category.positive]
        lines += [f"  does not: {' '.join(example.split())}" for example in category.negative]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def describe_names(categories: Mapping[str, str], seed: int) -> str:
    """Return named categories with what belongs to them, in an order permuted by ``seed``."""
    order = sorted(categories)
    random.Random(f"labels:{seed}").shuffle(order)
    lines = [(name, " ".join(categories[name].split())) for name in order]
    return "\n".join(f"{name}: {meaning}" if meaning else name for name, meaning in lines)
