"""A small text grammar: sentence frames whose slots are filled at random, reproducibly.

Notation inside a frame: ``<slot>`` is a fresh draw, ``<@slot>`` is drawn once per document and
remembered (``<@slot.b>`` is a second remembered draw that differs from the first), ``[a|b]`` is a
choice between the alternatives (slots allowed, no nesting), and ``a^`` becomes "a" or "an".
Only ``random.Random.random`` is used, whose stream Python keeps stable across versions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
Slots = Mapping[str, tuple[str, ...]]

_TOKEN = re.compile(r"<(@?)([a-z_]+)(\.[a-z])?>|\[([^\[\]]*\|[^\[\]]*)\]")
_ARTICLE = re.compile(r"([Aa])\^ (\W?)(\w)")
_START = re.compile(r"(?:^|(?<=[.?!] ))[^\W\d_]")


@dataclass(frozen=True)
class Slot:
    """One compiled slot: the table it draws from and, if remembered, the key of its value."""

    name: str
    key: str


@dataclass(frozen=True)
class Choice:
    """Compiled alternatives."""

    options: tuple[Compiled, ...]


Compiled = tuple["str | Slot | Choice", ...]
_cache: dict[str, Compiled] = {}


def compile_frame(frame: str) -> Compiled:
    """Parse a frame once; later calls with the same text are a dictionary look-up."""
    compiled = _cache.get(frame)
    if compiled is None:
        compiled = _cache[frame] = _parse(frame)
    return compiled


def _parse(frame: str) -> Compiled:
    parts: list[str | Slot | Choice] = []
    end = 0
    for match in _TOKEN.finditer(frame):
        if match.start() > end:
            parts.append(frame[end : match.start()])
        remembered, name, suffix, options = match.groups()
        if options is not None:
            parts.append(Choice(tuple(compile_frame(option) for option in options.split("|"))))
        else:
            parts.append(Slot(name, f"{name}{suffix or ''}" if remembered else ""))
        end = match.end()
    if end < len(frame):
        parts.append(frame[end:])
    return tuple(parts)


def _article(match: re.Match[str]) -> str:
    article, mark, letter = match.groups()
    return f"{article}{'n' if letter in 'aeiouAEIOU' else ''} {mark}{letter}"


def capitalised(text: str) -> str:
    """Return ``text`` with a capital at the start of each sentence."""
    return _START.sub(lambda match: match.group().upper(), text)


@dataclass
class Sampler:
    """The random state of one document: its stream, slot tables and remembered values."""

    random: random.Random
    slots: Slots = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound)."""
        return int(self.random.random() * bound)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``, uniformly."""
        return options[int(self.random.random() * len(options))]

    def several(self, options: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different members of ``options`` in random order."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]

    def say(self, frame: str) -> str:
        """Expand a frame."""
        parts: list[str] = []
        self._expand(compile_frame(frame), parts)
        text = "".join(parts)
        return _ARTICLE.sub(_article, text) if "^" in text else text

    def sentence(self, frames: Sequence[str]) -> str:
        """Expand one of ``frames`` with a capital at each start."""
        return capitalised(self.say(self.pick(frames)))

    def recall(self, key: str) -> str:
        """Return the remembered value of ``key`` ("slot" or "slot.b"), drawing it if needed."""
        value = self.memory.get(key)
        if value is None:
            value = self.memory[key] = self._draw(key)
        return value

    def _draw(self, key: str) -> str:
        name = key.partition(".")[0]
        value = self.pick(self.slots[name])
        for _ in range(3):
            if value not in self.memory.values():
                break
            value = self.pick(self.slots[name])
        return value

    def _expand(self, compiled: Compiled, parts: list[str]) -> None:
        for part in compiled:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Choice):
                self._expand(self.pick(part.options), parts)
            elif part.key:
                self._expand(compile_frame(self.recall(part.key)), parts)
            else:
                self._expand(compile_frame(self.pick(self.slots[part.name])), parts)


@dataclass(frozen=True)
class Recipe:
    """A category as groups of frames and the plans that combine them.

    A plan names the group of each sentence in order; no frame is used twice in a document.
    """

    slots: Slots
    groups: tuple[tuple[str, ...], ...]
    plans: tuple[tuple[int, ...], ...]
    joint: str = " "

    def write(self, sampler: Sampler) -> str:
        """Write one text."""
        sampler.slots = self.slots
        used: set[str] = set()
        lines = []
        for group in sampler.pick(self.plans):
            frame = sampler.pick(self.groups[group])
            while frame in used:
                frame = sampler.pick(self.groups[group])
            used.add(frame)
            lines.append(capitalised(sampler.say(frame)))
        return self.joint.join(lines)


@dataclass(frozen=True)
class ChatRecipe:
    """A chat category: prompt frames and the recipe of its answers (memory is shared)."""

    prompts: tuple[str, ...]
    answer: Recipe

    def write(self, sampler: Sampler) -> tuple[str, str]:
        """Write one prompt and its answer."""
        sampler.slots = self.answer.slots
        prompt = sampler.sentence(self.prompts)
        return prompt, self.answer.write(sampler)
