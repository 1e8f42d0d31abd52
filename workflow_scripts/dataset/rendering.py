"""From a document to token ids with the role of each token and whether the template added it.

Chat is rendered by the tokenizer's own ``apply_chat_template``. Which characters are content
follows from a skeleton (``skeletons``): the same template on the same sequence of turns with marked
contents. A real rendering must be the skeleton's literal text with the contents in between,
character by character, or it is refused. Offsets then say which tokens carry content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.shards import ROLES
from workflow_scripts.dataset.skeletons import (
    REFUSED,
    TEMPLATE,
    Message,
    Messages,
    RenderingError,
    Skeleton,
    labels_of_text,
    shapes_of,
    skeleton_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = ROLES.index("plain")
SPARE = 2
"""Characters that are encoded, per character that the tokens of a row can hold at most."""
DAY = datetime(2024, 7, 26)
"""Today for templates that write the date, so that a run gives the same tokens on any day."""
CODES = (*(f"-{code}" for code in "dHIjmMSUVWy"), *"aAbBcCdDeFGgHhIjklmMprRSTuUVwWxXyYzZ", "%")
"""Codes of ``strftime``, with and without padding."""


@dataclass(frozen=True)
class Encoded:
    """One document's ids with role (index in ``ROLES``) and template mask, each [n].

    Of a long text only the start is encoded: ``whole`` is the tokens of all of it, estimated.
    ``removed`` says that the template left out thoughts.
    """

    ids: NDArray[np.int32]
    role: NDArray[np.uint8]
    template: NDArray[np.bool_]
    whole: int = 0
    removed: bool = False

    def part(self, start: int, end: int) -> Encoded:
        """Return the tokens from ``start`` to before ``end``."""
        chosen = slice(start, end)
        return replace(
            self, ids=self.ids[chosen], role=self.role[chosen], template=self.template[chosen]
        )


@dataclass
class Renderer:
    """Encodes documents with one tokenizer, whose ``chat_template`` is the run's.

    Of each, at least the first ``tokens`` tokens are encoded: a long text without a blank would
    take minutes.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: int = 1 << 20
    _skeletons: dict[object, Skeleton] = field(default_factory=dict)
    _system_refused: bool | None = None

    def plain(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode plain texts, each after one BOS where the tokenizer has one."""
        if not texts:
            return []
        starts = [text[: self._characters] for text in texts]
        rows: list[list[int]] = self.tokenizer(starts, add_special_tokens=False)["input_ids"]
        return [
            self._with_bos(replace(_plain_row(row), whole=_whole(len(row), start, text)))
            for row, start, text in zip(rows, starts, texts, strict=True)
        ]

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
        rendered: list[tuple[str, NDArray[np.uint8], bool]] = []
        places: list[int] = []
        for place, messages in enumerate(chats):
            try:
                rendered.append(self._labels(self._fold(messages)))
            except RenderingError as reason:
                results.append(RenderingError(f"{reason}{_peculiarity(messages)}"))
                continue
            results.append(RenderingError(REFUSED))
            places.append(place)
        for place, encoded in zip(places, self._tokenize(rendered), strict=True):
            results[place] = encoded
        return results

    def _tokenize(self, rendered: Sequence[tuple[str, NDArray[np.uint8], bool]]) -> list[Encoded]:
        if not rendered:
            return []
        starts = [text[: self._characters] for text, _, _ in rendered]
        output = cast(
            "Mapping[str, list[list[int]]]",
            self.tokenizer(starts, add_special_tokens=False, return_offsets_mapping=True),
        )
        encoded = []
        for ids, offsets, start, (text, label, removed) in zip(
            output["input_ids"], output["offset_mapping"], starts, rendered, strict=True
        ):
            token_label = token_labels(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), label)
            template = token_label >= TEMPLATE
            role = np.where(template, token_label - TEMPLATE, token_label).astype(np.uint8)
            whole = _whole(len(ids), start, text)
            row = Encoded(np.asarray(ids, dtype=np.int32), role, template, whole, removed)
            encoded.append(self._with_bos(row))
        return encoded

    @cached_property
    def _characters(self) -> int:
        """Characters of a text that are encoded."""
        return SPARE * self.tokens * max(map(len, self.tokenizer.get_vocab()))

    def _with_bos(self, row: Encoded) -> Encoded:
        """Put BOS first unless it is there; it counts as template."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return row
        if len(row.ids) and row.ids[0] == bos:
            template = row.template.copy()
            template[0] = True
            return replace(row, template=template)
        first_role = row.role[:1] if len(row.role) else np.array([PLAIN], dtype=np.uint8)
        return replace(
            row,
            ids=np.concatenate((np.array([bos], dtype=np.int32), row.ids)),
            role=np.concatenate((first_role, row.role)),
            template=np.concatenate((np.array([True]), row.template)),
            whole=row.whole + 1,
        )

    def split(self, row: Encoded, length: int, most: int) -> list[Encoded]:
        """Return a document's rows, ``most`` at most, of up to ``length`` tokens.

        Each begins with BOS where the tokenizer has one; rows of nothing but template are left out.
        """
        rows: list[Encoded] = []
        for _ in range(most):
            first = cut(row, length)
            rows.append(first)
            rest = row.part(len(first.ids), len(row.ids))
            following = self._with_bos(rest)
            if not len(rest.ids) or len(following.ids) >= len(row.ids):
                break
            row = following
        return [row for row in rows if not row.template.all()]

    def _fold(self, messages: Messages) -> list[Message]:
        """Put a system message into the first user turn where the template has no such role."""
        chat = [dict(message) for message in messages]
        if not self.folds(messages):
            return cast("list[Message]", chat)
        system, *rest = chat
        for message in rest:
            if message["role"] == "user":
                message["content"] = f"{system['content']}\n\n{message['content']}"
                break
        return cast("list[Message]", rest)

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
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            # A template's expressions fail on what it does not foresee.
            raise RenderingError(f"{REFUSED} ({type(error).__name__})") from None
        return cast(str, text)

    def _labels(self, messages: Messages) -> tuple[str, NDArray[np.uint8], bool]:
        """Return the rendering, the label of each character, and whether thoughts are left out.

        A label is a role, plus TEMPLATE where the template wrote the character.
        """
        shapes = shapes_of(messages)
        skeleton = self._skeletons.get(shapes)
        if skeleton is None:
            skeleton = skeleton_of(messages, shapes, self._render)
            if not any(shape.extra for shape in shapes):
                self._skeletons[shapes] = skeleton
        text = self._render(messages)
        return text, labels_of_text(text, messages, shapes, skeleton), skeleton.removes


def _peculiarity(messages: Messages) -> str:
    """Return what templates often do not foresee in a chat."""
    if any("tool_calls" in message or message["role"] == "tool" for message in messages):
        return " (a chat with tools)"
    thinks = any("</think>" in str(message["content"]) for message in messages)
    return " (a chat with thoughts)" if thinks else ""


def _whole(tokens: int, start: str, text: str) -> int:
    """Return the tokens of a text, given those of its start."""
    return round(tokens * len(text) / len(start)) if start else tokens


def fix_date(template: str) -> str:
    """Return a template in which today is always :data:`DAY`.

    transformers lets templates call no function of ours, so ``strftime_now`` becomes a macro.
    """
    if "strftime_now" not in template:
        return template
    formats = "".join(f" | replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in CODES)
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{formats} }}}}{{%- endmacro -%}}{template}"


def _plain_row(ids: list[int]) -> Encoded:
    count = len(ids)
    return Encoded(
        np.asarray(ids, dtype=np.int32),
        np.full(count, PLAIN, dtype=np.uint8),
        np.zeros(count, dtype=np.bool_),
    )


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
    return row.part(0, end)
