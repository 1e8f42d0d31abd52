"""From a document to token ids with the role of each token and whether the template added it.

Chat is rendered by the tokenizer's own ``apply_chat_template(tokenize=True)``. Which characters
are content follows from a skeleton: the same template on the same sequence of roles with marked
contents gives the literal text between messages. A real rendering must be these literals with
the contents (as they are, or stripped) in between, character by character, or it is refused.
Offsets then say which tokens carry content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.shards import ROLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
PLAIN = ROLES.index("plain")
TEMPLATE = 128  # flag on a character's role: the template wrote it
DAY = datetime(2024, 7, 26)
"""Today for templates that write the date, so that a run gives the same tokens on any day."""
CODES = (*(f"-{code}" for code in "dHIjmMSUVWy"), *"aAbBcCdDeFGgHhIjklmMprRSTuUVwWxXyYzZ", "%")
"""Codes of ``strftime``, with and without padding."""
REFUSED = "the template refuses it"
CHANGED = "the template changes its content"


class RenderingError(Exception):
    """A document that the template does not render; the text is the reason."""


@dataclass(frozen=True)
class Encoded:
    """One document's ids with role (index in ``ROLES``) and template mask, each [n]."""

    ids: NDArray[np.int32]
    role: NDArray[np.uint8]
    template: NDArray[np.bool_]


@dataclass(frozen=True)
class Skeleton:
    """Literal text of a template around the messages of one role sequence.

    ``pieces[i]`` stands before message i (the last one after all), as (text, role) parts.
    """

    pieces: tuple[tuple[tuple[str, int], ...], ...]

    def text(self, index: int) -> str:
        """Return the literal before message ``index``."""
        return "".join(part for part, _ in self.pieces[index])


@dataclass
class Renderer:
    """Encodes documents with one tokenizer, whose ``chat_template`` is the run's."""

    tokenizer: PreTrainedTokenizerBase
    _skeletons: dict[tuple[str, ...], Skeleton] = field(default_factory=dict)
    _system_refused: bool | None = None

    def plain(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode plain texts, each after one BOS where the tokenizer has one."""
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [self._with_bos(Encoded(*_plain_arrays(row))) for row in rows]

    def chats(self, chats: Sequence[Messages]) -> list[Encoded | RenderingError]:
        """Encode chats; a document that the template does not take is returned as the reason.

        Raises
        ------
        UserError
            If the tokenizer has no chat template.
        """
        if chats and not self.tokenizer.chat_template:
            raise UserError(
                "the text holds chat documents but no model's tokenizer has a chat template: "
                "set text.template to a jinja file"
            )
        results: list[Encoded | RenderingError] = []
        labels: list[NDArray[np.uint8]] = []
        ready: list[list[dict[str, str]]] = []
        places: list[int] = []
        for place, messages in enumerate(chats):
            try:
                chat = self._fold(messages)
                labels.append(self._labels(chat))
            except RenderingError as reason:
                results.append(reason)
                continue
            results.append(RenderingError(REFUSED))
            ready.append(chat)
            places.append(place)
        for place, encoded in zip(places, self._tokenize(ready, labels), strict=True):
            results[place] = encoded
        return results

    def _tokenize(
        self, chats: list[list[dict[str, str]]], labels: list[NDArray[np.uint8]]
    ) -> list[Encoded]:
        if not chats:
            return []
        output = cast(
            "Mapping[str, list[list[int]]]",
            self.tokenizer.apply_chat_template(
                chats,
                tokenize=True,
                return_dict=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
            ),
        )
        encoded = []
        for ids, offsets, label in zip(
            output["input_ids"], output["offset_mapping"], labels, strict=True
        ):
            token_label = token_labels(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), label)
            template = token_label >= TEMPLATE
            role = np.where(template, token_label - TEMPLATE, token_label).astype(np.uint8)
            row = Encoded(np.asarray(ids, dtype=np.int32), role, template)
            encoded.append(self._with_bos(row))
        return encoded

    def _with_bos(self, row: Encoded) -> Encoded:
        """Put BOS first unless it is there; it counts as template."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return row
        if len(row.ids) and row.ids[0] == bos:
            template = row.template.copy()
            template[0] = True
            return Encoded(row.ids, row.role, template)
        first_role = row.role[:1] if len(row.role) else np.array([PLAIN], dtype=np.uint8)
        return Encoded(
            np.concatenate((np.array([bos], dtype=np.int32), row.ids)),
            np.concatenate((first_role, row.role)),
            np.concatenate((np.array([True]), row.template)),
        )

    def _fold(self, messages: Messages) -> list[dict[str, str]]:
        """Put a system message into the first user turn where the template has no such role."""
        chat = [{"role": m["role"], "content": m["content"]} for m in messages]
        if not self.folds(messages):
            return chat
        system, *rest = chat
        for message in rest:
            if message["role"] == "user":
                message["content"] = f"{system['content']}\n\n{message['content']}"
                break
        return rest

    def folds(self, messages: Messages) -> bool:
        """Return whether a chat's system message goes into the first user turn."""
        return messages[0]["role"] == "system" and self._refuses_system()

    def _refuses_system(self) -> bool:
        if self._system_refused is None:
            roles = ("system", "user", "assistant")
            try:
                text = self._render([{"role": r, "content": f"{r} probe"} for r in roles])
                self._system_refused = "system probe" not in text
            except RenderingError:
                self._system_refused = True
        return self._system_refused

    def _render(self, messages: Messages) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                cast("list[dict[str, str]]", list(messages)), tokenize=False
            )
        except TemplateError as error:
            raise RenderingError(f"{REFUSED} ({error})") from None
        return cast(str, text)

    def _labels(self, messages: Messages) -> NDArray[np.uint8]:
        """Return the label of each character of the rendering: role, plus TEMPLATE if added."""
        roles = tuple(message["role"] for message in messages)
        if roles not in self._skeletons:
            self._skeletons[roles] = self._skeleton(roles)
        skeleton = self._skeletons[roles]
        text = self._render(messages)
        lengths: list[int] = []
        labels: list[int] = []
        place = 0
        for index, message in enumerate(messages):
            place = _follow(text, place, skeleton.pieces[index], lengths, labels)
            content = _content(text, place, message["content"], skeleton.text(index + 1))
            lengths.append(len(content))
            labels.append(ROLES.index(message["role"]))
            place += len(content)
        place = _follow(text, place, skeleton.pieces[-1], lengths, labels)
        if place != len(text):
            raise RenderingError(CHANGED)
        return np.repeat(np.array(labels, dtype=np.uint8), lengths)

    def _skeleton(self, roles: tuple[str, ...]) -> Skeleton:
        marks = [f"\ue000{index}\ue001" for index in range(len(roles))]
        marked = [{"role": r, "content": m} for r, m in zip(roles, marks, strict=True)]
        text = self._render(marked)
        pieces: list[tuple[tuple[str, int], ...]] = []
        for index, mark in enumerate(marks):
            before, separator, text = text.partition(mark)
            if not separator:
                raise RenderingError(CHANGED)
            trailer = self._trailer(marked[:index]) if index else ""
            ends = len(trailer) if before.startswith(trailer) else 0
            owner = ROLES.index(roles[index])
            previous = ROLES.index(roles[index - 1]) if index else owner
            pieces.append(((before[:ends], previous), (before[ends:], owner)))
        pieces.append(((text, ROLES.index(roles[-1])),))
        return Skeleton(tuple(pieces))

    def _trailer(self, marked: Messages) -> str:
        """Return what the template writes after the last of ``marked``, or nothing."""
        try:
            return self._render(marked).rpartition(marked[-1]["content"])[2]
        except RenderingError:
            return ""


def fix_date(template: str) -> str:
    """Return a template in which today is always :data:`DAY`.

    transformers lets templates call no function of ours, so ``strftime_now`` becomes a macro.
    """
    if "strftime_now" not in template:
        return template
    formats = "".join(f" | replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in CODES)
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{formats} }}}}{{%- endmacro -%}}{template}"


def _plain_arrays(
    ids: list[int],
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.bool_]]:
    count = len(ids)
    return (
        np.asarray(ids, dtype=np.int32),
        np.full(count, PLAIN, dtype=np.uint8),
        np.zeros(count, dtype=np.bool_),
    )


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


def _content(text: str, place: int, content: str, following: str) -> str:
    for candidate in (content, content.strip()):
        if text.startswith(candidate + following, place):
            return candidate
    raise RenderingError(CHANGED)


def token_labels(offsets: NDArray[np.int64], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return each token's label from its character offsets [n, 2] and the characters' labels.

    A token with any content at either end counts as content. Byte-level tokenizers report
    white-space tokens as empty spans after the white space: these take the character before.
    """
    start, end = offsets[:, 0], offsets[:, 1]
    last = len(label) - 1
    left = label[np.clip(np.where(start == end, start - 1, start), 0, last)]
    right = label[np.clip(end - 1, 0, last)]
    return np.where(right < TEMPLATE, right, left)


def cut(row: Encoded, length: int) -> Encoded:
    """Cut a row to ``length`` tokens, or before the template's marker that would be cut in two."""
    end = min(length, len(row.ids))
    if end < len(row.ids) and row.template[end] and row.template[end - 1]:
        while end > 1 and row.template[end - 1]:
            end -= 1
    return Encoded(row.ids[:end], row.role[:end], row.template[:end])
