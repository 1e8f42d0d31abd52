"""Bodies of replies: what they say, and those that say nothing or lie."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workflow_scripts.autointerp.llm.completion import (
    NotACompletionError,
    Usage,
    read_completion,
    read_error,
)


def body(**more: Any) -> str:
    message = {"role": "assistant", "content": "text", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "model": "m", "system_fingerprint": "f", **more})


def test_a_completion_is_read_whole() -> None:
    said = read_completion(body(usage={"prompt_tokens": 3, "completion_tokens": 4}), 200)
    assert (said.content, said.finish_reason, said.refusal) == ("text", "stop", None)
    assert (said.usage, said.model, said.fingerprint) == (Usage(3, 4), "m", "f")


def test_half_a_character_becomes_one_that_can_be_written() -> None:
    text = body(model="m\ud83d").replace('"text"', r'"half \ud83d, whole \ud83d\ude00"')
    said = read_completion(text, 200)
    assert (said.content, said.model) == ("half ?, whole \U0001f600", "m?")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": None, "completion_tokens": 1},
        {"prompt_tokens": float("inf"), "completion_tokens": 1},
        {"prompt_tokens": float("nan"), "completion_tokens": 1},
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 10**400, "completion_tokens": 1},
    ],
)
def test_usage_that_cannot_be_is_none(usage: object) -> None:
    assert read_completion(body(usage=usage), 200).usage is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        "[" * 100_000,
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}',
        '{"choices": [{"message": {"content": "x"}, "error": {"message": "no"}}]}',
        '{"choices": [{"message": {"content": "x"}, "finish_reason": '
        + "[" * 990
        + "]" * 990
        + "}]}",
        '{"error": {"message": "upstream failed"}}',
        '{"error": "upstream failed"}',
    ],
)
def test_what_is_no_completion_is_refused(text: str) -> None:
    with pytest.raises(NotACompletionError):
        read_completion(text, 200)


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ('{"error": {"message": "no", "code": "bad", "type": "t"}}', "no", "bad"),
        ('{"error": "no"}', "no", ""),
        ('[{"error": {"message": "no", "code": 400}}]', "no", "400"),
        ('{"message": "no", "code": 7}', "no", "7"),
        ("no JSON", "", ""),
        ("[" * 100_000, "", ""),
    ],
)
def test_errors_are_read_as_far_as_they_go(text: str, message: str, code: str) -> None:
    assert (read_error(text).message, read_error(text).code) == (message, code)
