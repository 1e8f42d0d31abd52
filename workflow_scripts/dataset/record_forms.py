"""From a record to a document: which columns hold its text or chat, in the forms people use.

Without a named column a record is, in this order,

- a chat in ``messages`` or ``conversations`` (ShareGPT's ``from`` and ``value`` too);
- plain text in ``text``;
- a preference pair, ``chosen`` and ``rejected``, of which a setting chooses one;
- a prompt and an answer, as in ``prompt`` and ``completion``, or ``instruction``, ``input`` and
  ``output`` (Alpaca): a chat of two turns.

So a file may mix them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workflow_scripts.dataset.chats import ChatTurn, RowError, parse_turns, text_of, well_formed
from workflow_scripts.dataset.label_values import Labels

Record = Mapping[str, object]
Preference = Literal["chosen", "rejected"]
CHATS = ("messages", "conversations")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("question", "response"),
)
CONTEXT = ("input", "context")
"""What an instruction is about: Alpaca's and Dolly's columns."""
KNOWN = (*CHATS, "text", "chosen", "rejected", *dict.fromkeys(sum(PAIRS, ())))
SYSTEM = ("system", "system_prompt")


class MissingSettingError(RowError):
    """A row that can be read once a setting says how."""


@dataclass(frozen=True)
class DrawnDocument:
    """Plain ``text`` or chat ``messages`` (the other one is empty).

    ``labels`` are column and value. ``changes`` names what was altered or left out of it when it
    was read. ``problem`` says why a row holds no document, which stands at ``where``.
    """

    text: str
    messages: tuple[ChatTurn, ...] = ()
    category: str = ""
    labels: Labels = ()
    changes: tuple[str, ...] = ()
    problem: RowError | None = None
    where: str = ""

    @property
    def kind(self) -> str:
        """``chat`` or ``plain``."""
        return "chat" if self.messages else "plain"

    @property
    def content(self) -> str:
        """All text of the document, messages joined by line breaks."""
        return self.text or "\n".join(turn.content for turn in self.messages)


@dataclass(frozen=True)
class Columns:
    """Which column holds text or a chat, if named, and the side of preference pairs to read."""

    text: str | None = None
    messages: str | None = None
    preference: Preference | None = None

    @property
    def names(self) -> list[str]:
        """The named columns."""
        return [name for name in (self.text, self.messages) if name]


def document_of(record: Record, columns: Columns) -> DrawnDocument:
    """Return the document of a record; an empty one where all known columns are empty.

    Raises
    ------
    RowError
        If the record has no known column, or it holds something else.
    """
    for name in columns.names:
        if name not in record:
            raise _without(name, record)
    if columns.text:
        return _plain(record[columns.text], columns.text)
    if columns.messages:
        return _chat(parse_turns(record[columns.messages]))
    return _of_known_columns(record, columns.preference)


def _of_known_columns(record: Record, preference: Preference | None) -> DrawnDocument:
    pair = _holds(record, "chosen") and _holds(record, "rejected")
    if pair and preference:  # some sets hold the chosen one as a chat too
        return _preferred(record, preference)
    for name in CHATS:
        if _holds(record, name):
            return _chat(parse_turns(record[name]))
    if _holds(record, "text"):
        return _plain(record["text"], "text")
    if pair:
        return _preferred(record, preference)
    for prompt, answer in PAIRS:
        if prompt in record and answer in record:
            return _answered(record, prompt, answer)
    known = [name for name in KNOWN if name in record]
    if known and not any(_holds(record, name) for name in known):
        return DrawnDocument("")
    raise _without("text", record)


def _holds(record: Record, name: str) -> bool:
    value = record.get(name)
    return value is not None and value not in ("", [])


def _without(name: str, record: Record) -> RowError:
    return RowError(
        f"without a column {name!r}",
        f"has no column {name!r} (it has {listed(record)}): set text_column or messages_column",
    )


def listed(names: Collection[str]) -> str:
    """Return the names of columns as a message holds them: a damaged header may have any."""
    shown = [" ".join(str(name).split())[:40] for name in sorted(names, key=str)]
    return ", ".join([*shown[:20], *(["…"] if len(shown) > 20 else [])]) or "none"


def _plain(value: object, name: str) -> DrawnDocument:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise RowError("not UTF-8", f"is not UTF-8 in {name!r} ({error}): convert it") from None
    if value is None or isinstance(value, str):
        text = well_formed(value or "")
        return DrawnDocument(text, changes=() if text == (value or "") else (REPLACED,))
    raise RowError(
        "no text in the column",
        f"holds {type(value).__name__} in {name!r}, not text: choose another text_column",
    )


REPLACED = "lone surrogates replaced"


def _chat(parsed: tuple[Sequence[ChatTurn], tuple[str, ...]]) -> DrawnDocument:
    """Return a chat of turns; an empty document where none has text."""
    turns, changes = parsed
    formed = tuple(turn._replace(content=well_formed(turn.content)) for turn in turns)
    if formed != tuple(turns):
        changes = (*changes, REPLACED)
    if not any(turn.content.strip() or turn.extra for turn in formed):
        return DrawnDocument("", changes=changes)
    if all(turn.role != "user" for turn in formed):
        raise RowError("without a user message", "has no user message: add one, or leave it out")
    return DrawnDocument("", formed, changes=changes)


def _preferred(record: Record, preference: Preference | None) -> DrawnDocument:
    if preference is None:
        raise MissingSettingError(
            "a preference pair",
            "holds a preference pair (chosen and rejected): set the source's preference to chosen "
            "or rejected",
        )
    answer, prompt = record[preference], record.get("prompt") or record.get("question")
    if isinstance(answer, str) and not prompt:
        return _plain(answer, preference)
    return _with_system(record, _dialogue(prompt, answer))


def _answered(record: Record, prompt: str, answer: str) -> DrawnDocument:
    asked = record[prompt]
    more = next((m for m in map(record.get, CONTEXT) if isinstance(m, str) and m.strip()), "")
    if prompt == "instruction" and isinstance(asked, str) and more:
        asked = f"{asked}\n\n{more}"
    return _with_system(record, _dialogue(asked, record[answer]))


def _with_system(record: Record, dialogue: tuple[list[ChatTurn], tuple[str, ...]]) -> DrawnDocument:
    """Return a dialogue after the record's system text, if there is one."""
    turns, changes = dialogue
    system = next((s for s in map(record.get, SYSTEM) if isinstance(s, str) and s.strip()), "")
    if system and all(turn.role != "system" for turn in turns):
        turns = [ChatTurn("system", system), *turns]
    return _chat((turns, changes))


def _dialogue(prompt: object, answer: object) -> tuple[list[ChatTurn], tuple[str, ...]]:
    """Return the turns of a prompt and its answer, each text or messages."""
    turns, changes = _side(answer, "assistant")
    if any(turn.role == "user" for turn in turns):
        return turns, changes
    before, more = _side(prompt, "user")
    return [*before, *turns], (*more, *changes)


def _side(value: object, role: str) -> tuple[list[ChatTurn], tuple[str, ...]]:
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list):
        turns, changes = parse_turns(value)
        return list(turns), changes
    text, changes = text_of(value)
    return [ChatTurn(role, text)], changes


def bad_document(problem: RowError, where: str) -> DrawnDocument:
    """Return what stands for a row without a document."""
    return DrawnDocument("", problem=problem, where=where)


def with_labels(document: DrawnDocument, labels: Labels) -> DrawnDocument:
    """Return a document with the labels of its record."""
    return replace(document, labels=labels)
