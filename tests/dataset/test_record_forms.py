"""Rows in the forms that people use are read; bad ones are skipped and counted, or stop a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.conftest import chat, sample, write_jsonl
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json
from workflow_scripts.dataset.bad_rows import EARLY
from workflow_scripts.dataset.chats import ChatTurn, RowError
from workflow_scripts.dataset.record_forms import (
    Columns,
    MissingSettingError,
    Preference,
    document_of,
)

USER, ASSISTANT = ("user", "Hi."), ("assistant", "Hello.")
HUMAN, GPT = {"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}
PARTS = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}, "there."]
CALL = {"id": "a", "function": {"name": "look", "arguments": '{"place": "here"}'}}
LOOK = {"name": "look", "arguments": {"place": "here"}}
CALLED = {"tool_calls": [{"id": "a", "type": "function", "function": LOOK}]}
PAIR = {"prompt": "Hi.", "chosen": "Hello.", "rejected": "No."}


def turns(*pairs: tuple[str, str]) -> tuple[ChatTurn, ...]:
    return tuple(ChatTurn(role, text) for role, text in pairs)


READ: dict[str, tuple[dict[str, object], str | tuple[ChatTurn, ...]]] = {
    "text": ({"text": "a", "prompt": "p", "completion": "c"}, "a"),
    "null text": ({"text": None}, ""),
    "bytes": ({"text": "é".encode()}, "é"),
    "messages": ({"messages": chat("Hi.", "Hello."), "text": "a"}, turns(USER, ASSISTANT)),
    "null messages and text": ({"messages": None, "text": "a"}, "a"),
    "null messages": ({"messages": None}, ""),
    "no messages": ({"messages": []}, ""),
    "blank turns": ({"messages": chat(" ", "")}, ""),
    "an empty turn": ({"messages": chat("Hi.", "")}, turns(USER, ("assistant", ""))),
    "messages as JSON": ({"messages": json.dumps(chat("Hi."))}, turns(USER)),
    "ShareGPT": ({"conversations": [HUMAN, GPT]}, turns(USER, ASSISTANT)),
    "ShareGPT in messages": ({"messages": [HUMAN, GPT]}, turns(USER, ASSISTANT)),
    "capital roles": ({"messages": [{"role": "User", "content": "Hi."}]}, turns(USER)),
    "developer": (
        {"messages": [{"role": "developer", "content": "Short."}, *chat("Hi.")]},
        turns(("system", "Short."), USER),
    ),
    "parts": ({"messages": [{"role": "user", "content": PARTS}]}, turns(("user", "Hi\nthere."))),
    "Alpaca": (
        {"instruction": "Hi.", "input": "", "output": "Hello."},
        turns(USER, ASSISTANT),
    ),
    "Alpaca with input": (
        {"instruction": "Hi.", "input": "You?", "output": "Hello.", "system": "Short."},
        turns(("system", "Short."), ("user", "Hi.\n\nYou?"), ASSISTANT),
    ),
    "Dolly": (
        {"instruction": "Hi.", "context": "You?", "response": "Hello."},
        turns(("user", "Hi.\n\nYou?"), ASSISTANT),
    ),
    "OpenOrca": (
        {"id": "1", "system_prompt": "Short.", "question": "Hi.", "response": "Hello."},
        turns(("system", "Short."), USER, ASSISTANT),
    ),
    "a null content beside a value": (
        {"messages": [{"from": "human", "content": None, "value": "Hi."}]},
        turns(USER),
    ),
    "prompt and completion": ({"prompt": "Hi.", "completion": "Hello."}, turns(USER, ASSISTANT)),
    "lists of both": (
        {"prompt": chat("Hi."), "completion": [{"role": "assistant", "content": "Hello."}]},
        turns(USER, ASSISTANT),
    ),
    "question and answer": ({"question": "Hi.", "answer": "Hello."}, turns(USER, ASSISTANT)),
    "thoughts in a field": (
        {"messages": [*chat("Hi."), {**chat("", "Hello.")[1], "reasoning_content": "Hm."}]},
        turns(USER, ("assistant", "<think>\nHm.\n</think>\n\nHello.")),
    ),
    "a call of a tool": (
        {
            "messages": [
                *chat("Hi."),
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "It is.", "tool_call_id": "a", "name": None},
            ]
        },
        (
            ChatTurn(*USER),
            ChatTurn("assistant", "", json.dumps(CALLED)),
            ChatTurn("tool", "It is.", json.dumps({"tool_call_id": "a"})),
        ),
    ),
    "a call of ShareGPT's": (
        {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "look"}'}]},
        (
            ChatTurn(*USER),
            ChatTurn(
                "assistant",
                "",
                '{"tool_calls": [{"type": "function", "function": '
                '{"name": "look", "arguments": {}}}]}',
            ),
        ),
    ),
    "a lone surrogate": ({"text": "a\ud83db"}, "a\ufffdb"),
    "a pair of surrogates": ({"text": "a\ud83d\ude00b"}, "a😀b"),
}


@pytest.mark.parametrize("form", READ)
def test_forms_that_are_read(form: str) -> None:
    record, expected = READ[form]
    document = document_of(record, Columns())
    assert (document.text or document.messages or "") == expected


def test_what_is_altered_or_left_out_is_named() -> None:
    document = document_of({"messages": [{"role": "user", "content": PARTS}]}, Columns())
    assert document.changes == ("image_url parts left out",)
    document = document_of({"messages": chat("a\udc00")}, Columns())
    assert document.changes == ("lone surrogates replaced",)


@pytest.mark.parametrize(("side", "text"), [("chosen", "Hello."), ("rejected", "No.")])
def test_a_setting_chooses_the_side_of_preference_pairs(side: Preference, text: str) -> None:
    columns = Columns(preference=side)
    wanted = turns(USER, ("assistant", text))
    assert document_of(PAIR, columns).messages == wanted
    whole = {**PAIR, "chosen": chat("Hi.", "Hello."), "rejected": chat("Hi.", "No.")}
    assert document_of(whole, columns).messages == wanted
    alone = {"chosen": "Hello.", "rejected": "No."}
    assert document_of(alone, columns).text == text
    beside = {**whole, "messages": chat("Hi.", "Hello.")}  # some sets hold the chosen one twice
    assert document_of(beside, columns).messages == wanted
    asked = {"system": "Short.", "question": "Hi.", "chosen": "Hello.", "rejected": "No."}
    assert document_of(asked, columns).messages == (*turns(("system", "Short.")), *wanted)
    with pytest.raises(MissingSettingError, match="set the source's preference to chosen or rej"):
        document_of(PAIR, Columns())


BAD: dict[str, tuple[dict[str, object], str]] = {
    "no column": ({"body": "a"}, r"has no column 'text' \(it has body\): set text_column"),
    "half a pair": ({"prompt": "Hi."}, r"has no column 'text' \(it has prompt\)"),
    "names with line breaks": ({"a\n" * 99: "a"}, r"\(it has (a )+a?\): set"),
    "a number": ({"text": 3}, "holds int in 'text', not text"),
    "not UTF-8": ({"text": b"\xff"}, "is not UTF-8 in 'text'"),
    "no user": ({"messages": chat("", "Hello.")[1:]}, "has no user message"),
    "a role": ({"messages": [{"role": "narrator", "content": "a"}]}, "has the role 'narrator'"),
    "no role": ({"messages": [{"content": "a"}]}, "has a message without text content"),
    "a text as message": ({"messages": ["a"]}, "has str as a message"),
    "a number as content": ({"messages": [{"role": "user", "content": 3}]}, "has int as content"),
    "a mapping": ({"messages": {"role": "user"}}, "holds dict for messages"),
    "text for messages": ({"messages": "hello"}, "holds text for messages"),
    "deep text": ({"messages": "[" * 100_000}, "holds text for messages"),
    "a call": (
        {"messages": [*chat("Hi."), {"role": "assistant", "content": "", "tool_calls": [3]}]},
        "has tool calls of another form",
    ),
}


@pytest.mark.parametrize("form", BAD)
def test_forms_that_are_refused(form: str) -> None:
    record, sentence = BAD[form]
    with pytest.raises(RowError, match=sentence):
        document_of(record, Columns())


def lines(good: int, bad: int) -> list[object]:
    rows: list[object] = [{"text": f"document {i}"} for i in range(good)]
    return [*rows, *({"text": i} for i in range(bad))]


def draw(folder: Path, rows: list[object], **settings: object) -> Any:
    path = write_jsonl(folder / "own.jsonl", rows)
    source = {"own": {"kind": "jsonl", "path": str(path), **settings}}
    return read_json(sample(folder, source, 200_000).with_name("manifest.json"))["sources"]["own"]


@pytest.mark.parametrize(("good", "bad"), [(3, 1), (37, 3), (1200, 12)])
def test_few_bad_rows_are_skipped_and_counted(good: int, bad: int, tmp_path: Path) -> None:
    facts = draw(tmp_path, lines(good, bad))
    assert (facts["documents"], facts["bad_rows"]) == (good, {"no text in the column": bad})


@pytest.mark.parametrize(("good", "bad"), [(37, 4), (1200, 13), (1200, 400)])
def test_many_bad_rows_stop_the_run_with_examples(good: int, bad: int, tmp_path: Path) -> None:
    told = r"rows hold no document, above the 1% .*bad_rows to skip"
    with pytest.raises(UserError, match=told) as caught:
        draw(tmp_path, lines(good, bad))
    assert str(caught.value).count("own.jsonl line ") == 3
    assert draw(tmp_path, lines(good, bad), bad_rows="skip")["documents"] == good


def test_one_bad_row_stops_where_the_setting_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source own: .*line 38 holds int in 'text'"):
        draw(tmp_path, lines(37, 1), bad_rows="stop")


@pytest.mark.parametrize("bad", [1, EARLY, 300])
@pytest.mark.parametrize("rule", [None, "skip"])
def test_where_every_row_is_bad_the_first_one_says_why(
    rule: str | None, bad: int, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"^source own: \S+ line \d+ holds int in 'text', not text:"
    ):
        draw(tmp_path, lines(0, bad), **({"bad_rows": rule} if rule else {}))


def test_bad_rows_are_counted_over_the_parts(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "own.jsonl", lines(1200, 12))
    source = {"own": {"kind": "jsonl", "path": str(path)}}
    parts: list[Path] = []
    for index, tokens in enumerate((1_000, 4_000, 200_000)):
        parts.append(sample(tmp_path / f"part{index}", source, tokens, earlier=parts))
    facts = [read_json(part.with_name("manifest.json")) for part in parts]
    assert facts[-1]["place"]["bad_rows"] == {"own": 12}
    counted = [sum(fact["sources"]["own"]["bad_rows"].values()) for fact in facts]
    assert sum(counted) == 12
    assert min(counted) < 12


def test_a_file_may_mix_text_and_chats(tmp_path: Path) -> None:
    rows: list[object] = [{"text": f"document {i}"} for i in range(20)]
    rows += [{"messages": chat(f"q {i}", f"a {i}")} for i in range(20)]
    path = write_jsonl(tmp_path / "own.jsonl", rows)
    table = pd.read_parquet(sample(tmp_path, {"own": {"kind": "jsonl", "path": str(path)}}))
    assert table["kind"].value_counts().to_dict() == {"plain": 20, "chat": 20}


def parquet(folder: Path, table: pa.Table) -> pd.DataFrame:
    pq.write_table(table, folder / "own.parquet", row_group_size=15)
    source = {"own": {"kind": "parquet", "path": str(folder / "own.parquet")}}
    return pd.read_parquet(sample(folder, source))


def test_parquet_of_any_text_type(tmp_path: Path) -> None:
    texts = [f"document {i}" for i in range(40)]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        assert set(parquet(tmp_path, pa.table({"text": pa.array(texts, kind)}))["text"]) == {*texts}
    coded = pa.array(texts).dictionary_encode()
    assert set(parquet(tmp_path, pa.table({"text": coded}))["text"]) == {*texts}


def test_parquet_with_nulls_structs_and_both_columns(tmp_path: Path) -> None:
    message = {"role": "user", "content": "q", "tool_calls": None, "name": None}
    chats = [[{**message, "content": f"q {i}"}] if i % 2 else None for i in range(40)]
    form = pa.list_(
        pa.struct(
            [(name, pa.string()) for name in ("role", "content", "name")]
            + [("tool_calls", pa.list_(pa.string()))]
        )
    )
    texts = [None if i % 4 == 0 else f"document {i}" for i in range(40)]
    table = parquet(tmp_path, pa.table({"messages": pa.array(chats, form), "text": texts}))
    assert table["kind"].value_counts().to_dict() == {"chat": 20, "plain": 10}
    assert json.loads(table["messages"].max()) == [{"role": "user", "content": "q 9"}]
