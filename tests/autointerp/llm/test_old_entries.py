"""Entries of earlier versions stay readable, and what is sent keeps its keys in the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workflow_scripts.autointerp.llm.cache import Entry, ResponseCache, encode_entry
from workflow_scripts.autointerp.llm.completion import read_completion
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.dialect import Dialect, decode_dialects, dialect_key
from workflow_scripts.autointerp.llm.replies import Explanation, Outcome
from workflow_scripts.autointerp.llm.requests import Header, Request

URL = "https://api.example.org/v1"
KEY = "7db23358458707a227e8da02db903d4551aaf026bd86832b5f746a756c4a759b"
STORED = (
    r'{"checksum":"936259b6b8c7f8f7cab6ad904f59a22bd8100b559a07217a0c568c6765560260","entry":'
    r'{"attempts":2,"base_url":"https://api.example.org/v1","body":{"max_completion_tokens":300,'
    r'"messages":[{"content":"You answer.","role":"system"},{"content":"Text é <<x>>",'
    r'"role":"user"}],"model":"m","response_format":{"json_schema":{"name":"explain","schema":'
    r'{"additionalProperties":false,"properties":{"explanation":{"type":"string"}},"required":'
    r'["explanation"],"type":"object"},"strict":true},"type":"json_schema"},"seed":7,'
    r'"temperature":0.0},"headers":{"date":"x"},"key":"'
    + KEY
    + r'","received":"2026-01-02T03:04:05+00:00","replicate":1,"response":"{\"choices\": [{'
    r"\"message\": {\"content\": \"{\\\"explanation\\\": \\\"fruit\\\"}\"}, "
    r'\"finish_reason\": \"stop\"}]}","sdk":"openai 3.51.0","seconds":0.125,"status":200}}'
) + "\n"
ITEMS = {"explain": (), "classify": (), "score": ("a1", "a2"), "one": ("a1",)}


def start(purpose: str, dialect: Dialect | None = None) -> Conversation:
    """Return a conversation with nothing said yet."""
    request = Request(
        id="r",
        purpose=purpose.replace("one", "score"),
        kind=purpose,
        subject=3,
        annotator="first",
        replicate=1,
        model="m",
        system="s",
        user="Text é <<x>>",
        seed=7,
        max_output=300,
        temperature=0.0,
        items=ITEMS[purpose],
    )
    ids = ("one", "two", "unassigned") if purpose == "classify" else ()
    header = Header(request.purpose, {"s": "You answer."}, ids, {})
    return Conversation(URL, header, request, dialect or Dialect(bounds=False))


def test_an_entry_of_an_earlier_version_is_read_and_written_alike(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.path(KEY).parent.mkdir()
    cache.path(KEY).write_text(STORED, encoding="utf-8")
    entry = cache.get(KEY)
    assert entry is not None
    assert encode_entry(entry) == STORED.encode()
    replayed = start("explain")
    assert replayed.follow(cache.get) is None
    assert replayed.outcome == Outcome("ok", Explanation(explanation="fruit"))


@pytest.mark.parametrize(
    ("purpose", "key"),
    [
        ("explain", "7db23358458707a2"),
        ("classify", "0b894b83ad24a600"),
        ("score", "fa7c77330cecc78e"),
        ("one", "9ef5c1dd391cd312"),
    ],
)
def test_a_question_keeps_its_key(purpose: str, key: str) -> None:
    assert start(purpose).question()[0].startswith(key)


def test_a_dialect_of_an_earlier_version_keeps_its_schemas() -> None:
    old = b'{"form":"json_schema","limit":"max_tokens","seed":true,"temperature":true}'
    assert decode_dialects(old) == [Dialect(limit="max_tokens", bounds=False)]


def test_a_question_in_the_poorest_form_and_a_dialect_keep_their_keys() -> None:
    poor = Dialect(form="none", limit="max_tokens", temperature=False, seed=False, bounds=False)
    assert start("explain", poor).question()[0].startswith("f704633bc713cd60")
    assert dialect_key(URL, "m", "auto").startswith("45924264c2bb6a6c")


@pytest.mark.parametrize(
    ("purpose", "content", "key"),
    [
        ("explain", '{"explanation": ""}', "3d17219ac303b176"),
        ("explain", '{"explanation": 3}', "d25c03cf6c52da96"),
        ("explain", '{"explanation": "x", "note": 1}', "5877601c324333d1"),
        ("explain", '{"explanation": "x", "explanation": "y"}', "65763049ab8cffaa"),
        ("explain", json.dumps({"explanation": "x" * 501}), "299015ffb2347934"),
        ("explain", '{"x": NaN}', "b8a3b76c4cc0ed94"),
        ("classify", '{"category": "three", "confidence": 5}', "cab757f6aec1852b"),
        ("classify", '{"category": ["one"], "confidence": 5}', "861e0b4ddd1d1cc2"),
        ("classify", '{"category": "one", "confidence": 101}', "8b04599622c98fce"),
        ("classify", '{"category": "one", "confidence": true}', "9eba238831135fc2"),
        ("classify", '{"category": "one"}', "8aad5cfd5e2622da"),
        ("score", '{"answers": {"a1": 1}}', "38da7b1a2971a17b"),
        ("score", '{"answers": [1]}', "bb260455e9c6b477"),
        ("score", '{"answers": [{"item": "a1"}]}', "fdb50aad8e3ad9fe"),
        ("score", '{"answers": [{"item": "a3", "score": 1}]}', "83e50a1f1928e42d"),
        (
            "score",
            '{"answers": [{"item": "a1", "score": 1}, {"item": "a1", "score": 2}]}',
            "d28a12d5b89399cf",
        ),
        ("score", '{"answers": [{"item": "a1", "score": 1}]}', "2c1c772773d5bcdd"),
        ("score", '{"answers": [{"item": "a1", "score": "1"}]}', "42229bfef0dfad67"),
        ("score", '{"answers": 3, "more": 1}', "91aede2b41cf1aae"),
    ],
)
def test_what_is_asked_after_an_invalid_answer_keeps_its_key(
    purpose: str, content: str, key: str
) -> None:
    conversation = start(purpose)
    first, question = conversation.question()
    response = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})
    entry = Entry(first, URL, question.body, 1, response, 200, {}, 1, "", 0.1, "sdk")
    conversation.add_answer(entry, read_completion(response, 200))
    assert conversation.outcome is None
    assert conversation.question()[0].startswith(key)
