"""Which characters of a rendered chat are content: told by a rendering with marked contents.

A message has a slot where its content stands, none where it is blank, and two where an assistant's
content holds thoughts (``<think>…</think>``): templates move or leave out what was thought in
earlier turns. Slots stand in the order in which the template writes them, which need not be that of
the messages: some put the system's text before the last user's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.dataset.shards import ROLES

Message = Mapping[str, object]
Messages = Sequence[Message]
Render = Callable[[Messages], str]
TEMPLATE = 128  # flag on a character's role: the template wrote it
THOUGHT_ENDS = "</think>"
THOUGHT_STARTS = "<think>"
REFUSED = "the template refuses it"
CHANGED = "the template changes its content"
NO_CALLS = "the template leaves out calls of tools"


class RenderingError(Exception):
    """A document that the template does not render; the text is the reason."""


@dataclass(frozen=True)
class Shape:
    """All of a message but its contents: role, content with None for each slot, other fields."""

    role: str
    form: tuple[str | None, ...]
    extra: str

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.form.count(None)


@dataclass(frozen=True)
class Skeleton:
    """Literal text of a template around the contents of one sequence of shapes.

    ``pieces[i]`` stands before the slot ``order[i]`` (the last one after all), as (text, role)
    parts; slots are counted over all messages. ``removes`` says that a thought has no place.
    """

    order: tuple[int, ...]
    pieces: tuple[tuple[tuple[str, int], ...], ...]
    removes: bool

    def text(self, index: int) -> str:
        """Return the literal at place ``index``."""
        return "".join(part for part, _ in self.pieces[index])


def shapes_of(messages: Messages) -> tuple[Shape, ...]:
    """Return the shape of each message."""
    return tuple(
        Shape(str(message["role"]), _form(message), _other_fields(message)) for message in messages
    )


def _form(message: Message) -> tuple[str | None, ...]:
    """Return a message's content with None in place of what the document says."""
    content = str(message["content"])
    if not content.strip():
        return (content,)
    thought, ends, answer = content.rpartition(THOUGHT_ENDS)
    if message["role"] != "assistant" or not ends:
        return (None,)
    starts = THOUGHT_STARTS if thought.lstrip().startswith(THOUGHT_STARTS) else ""
    inner = thought.lstrip().removeprefix(starts)
    before = (starts, None) if inner.strip() else (thought,)
    return *before, ends, None if answer.strip() else answer


def _other_fields(message: Message) -> str:
    others = {k: v for k, v in message.items() if k not in ("role", "content")}
    return json.dumps(others, sort_keys=True) if others else ""


def _contents(message: Message, shape: Shape) -> Iterator[str]:
    """Yield what stands in a message's slots."""
    content = str(message["content"])
    if shape.form == (None,):
        yield content
    elif shape.slots:
        thought, _, answer = content.rpartition(THOUGHT_ENDS)
        if shape.form[1] is None:
            yield thought.lstrip().removeprefix(str(shape.form[0]))
        if shape.form[-1] is None:
            yield answer


def skeleton_of(messages: Messages, shapes: Sequence[Shape], render: Render) -> Skeleton:
    """Return the skeleton of a sequence of shapes, which ``messages`` have.

    Raises
    ------
    RenderingError
        If the template leaves out or repeats a content, or leaves out a call of a tool.
    """
    owners = [index for index, shape in enumerate(shapes) for _ in range(shape.slots)]
    marks = [f"\ue000{slot}\ue001" for slot in range(len(owners))]
    marked = _marked(messages, shapes, marks)
    text = render(marked)
    for message in messages:
        _check_calls(message, text)
    optional = {s for s, owner in enumerate(owners) if owner in owners[s + 1 : s + 2]}
    counts = [text.count(mark) for mark in marks]
    if any(count != 1 and (count or s not in optional) for s, count in enumerate(counts)):
        raise RenderingError(CHANGED)
    order = sorted((s for s in range(len(marks)) if counts[s]), key=lambda s: text.index(marks[s]))
    pieces: list[tuple[tuple[str, int], ...]] = []
    previous: int | None = None
    for slot in order:
        before, _, text = text.partition(marks[slot])
        pieces.append(_parts(before, previous, slot, owners, marked, marks, render))
        previous = slot
    pieces.append(((text, ROLES.index(shapes[-1].role)),))
    return Skeleton(tuple(order), tuple(pieces), len(order) < len(marks))


def _marked(messages: Messages, shapes: Sequence[Shape], marks: Sequence[str]) -> list[Message]:
    """Return the messages with marks in their slots."""
    rest = iter(marks)
    return [
        {**message, "content": "".join(next(rest) if p is None else p for p in shape.form)}
        for message, shape in zip(messages, shapes, strict=True)
    ]


def _check_calls(message: Message, text: str) -> None:
    calls = cast("Sequence[Mapping[str, Mapping[str, str]]]", message.get("tool_calls", ()))
    if any(call["function"]["name"] not in text for call in calls):
        raise RenderingError(NO_CALLS)


def _parts(
    literal: str,
    previous: int | None,
    slot: int,
    owners: Sequence[int],
    marked: Messages,
    marks: Sequence[str],
    render: Render,
) -> tuple[tuple[str, int], ...]:
    """Divide a literal between the message before it and that of the slot after it."""
    role = ROLES.index(str(marked[owners[slot]]["role"]))
    if previous is None or owners[previous] == owners[slot]:
        return ((literal, role),)
    trailer = _trailer(marked[: owners[previous] + 1], marks[previous], render)
    ends = len(trailer) if literal.startswith(trailer) else 0
    return (literal[:ends], ROLES.index(str(marked[owners[previous]]["role"]))), (
        literal[ends:],
        role,
    )


def _trailer(marked: Messages, mark: str, render: Render) -> str:
    """Return what the template writes after the last of ``marked``, or nothing."""
    try:
        return render(marked).rpartition(mark)[2]
    except RenderingError:
        return ""


def labels_of_text(
    text: str, messages: Messages, shapes: Sequence[Shape], skeleton: Skeleton
) -> NDArray[np.uint8]:
    """Return the label of each character of a rendering: role, plus TEMPLATE if added.

    Raises
    ------
    RenderingError
        If it is not the skeleton's text with the contents.
    """
    contents = [
        (content, ROLES.index(shape.role))
        for message, shape in zip(messages, shapes, strict=True)
        for content in _contents(message, shape)
    ]
    lengths: list[int] = []
    labels: list[int] = []
    place = 0
    for index, slot in enumerate(skeleton.order):
        place = _follow(text, place, skeleton.pieces[index], lengths, labels)
        content = _found(text, place, contents[slot][0], skeleton.text(index + 1))
        lengths.append(len(content))
        labels.append(contents[slot][1])
        place += len(content)
    place = _follow(text, place, skeleton.pieces[-1], lengths, labels)
    if place != len(text):
        raise RenderingError(CHANGED)
    return np.repeat(np.array(labels, dtype=np.uint8), lengths)


def _follow(
    text: str,
    place: int,
    parts: tuple[tuple[str, int], ...],
    lengths: list[int],
    labels: list[int],
) -> int:
    for part, role in parts:
        if not text.startswith(part, place):
            raise RenderingError(CHANGED)
        lengths.append(len(part))
        labels.append(TEMPLATE + role)
        place += len(part)
    return place


def _found(text: str, place: int, content: str, following: str) -> str:
    """Return a content as it stands in the text: whole, stripped, or as a JSON string."""
    as_json = json.dumps(content, ensure_ascii=False)[1:-1]
    stripped = (content.strip(), content.lstrip(), content.rstrip())
    for candidate in (content, *stripped, content.strip("\n"), content.lstrip("\n"), as_json):
        if text.startswith(candidate + following, place):
            return candidate
    raise RenderingError(CHANGED)
