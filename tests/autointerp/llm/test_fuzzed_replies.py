"""Hundreds of replies that no server should send: each request ends with a status."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import Run
from workflow_scripts.autointerp.llm.completion import (
    NotACompletionError,
    read_completion,
    read_error,
)
from workflow_scripts.autointerp.llm.replies import Exchange, Expected, Outcome, conclude

EXPECTED = [
    Expected("explain"),
    Expected("classify", ids=("one", "two", "unassigned")),
    Expected("score", items=("a1", "a2")),
]
GOOD = {
    "id": "x",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"content": '{"explanation": "fruit"}', "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
NESTED = "[" * 950 + "]" * 950
ODD = [
    "null", "true", "-1", "1e999", "NaN", "-Infinity", "9" * 400, '""', '"\\ud800"', '"\\u0000"',
    '"<think>"', "[]", "{}", "[null]", '{"a": 1}', NESTED, '"' + "x" * 10_000 + '"',
]  # fmt: skip
"""Values, as JSON spells them or does not, that stand in for any part of a reply."""


def replies(count: int, seed: int) -> Iterator[bytes]:
    """Yield bodies: whole, cut, with a part replaced, or no JSON at all."""
    rng = random.Random(seed)
    yield from (b"", b"<html>busy</html>", b"\x00\xff\xfe", NESTED.encode(), b"[" * 100_000)
    yield from (f'{{"choices": {value}}}'.encode() for value in ODD)
    yield from (f'{{"error": {value}}}'.encode() for value in ODD)
    for _ in range(count):
        text = json.dumps(_spoilt(GOOD, rng, rng.randint(0, 2)))
        text = text.replace('"@"', rng.choice(ODD))
        if rng.random() < 0.2:
            text = text[: rng.randrange(len(text))]
        if rng.random() < 0.1:
            place = rng.randrange(len(text) or 1)
            text = text[:place] + rng.choice('\x00\x1b{}[]",:\ud7ff') + text[place:]
        yield text.encode()


def _spoilt(value: object, rng: random.Random, times: int) -> object:
    """Return a value in which some parts are marked, to be replaced."""
    value = json.loads(json.dumps(value))
    for _ in range(times):
        inner = value
        while isinstance(inner, dict | list) and inner:
            key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            if rng.random() < 0.3 or not isinstance(inner[key], dict | list):
                if rng.random() < 0.2 and isinstance(inner, dict):
                    del inner[key]
                else:
                    inner[key] = "@"
                break
            inner = inner[key]
    return value


def test_any_body_ends_with_a_status() -> None:
    seen = set()
    for body in replies(1500, seed=3):
        text = body.decode("utf-8", errors="replace")
        read_error(text)
        try:
            said = read_completion(text, 200)
        except NotACompletionError:
            continue
        exchange = Exchange("k", said.content, said.finish_reason, said.refusal)
        for expected in EXPECTED:
            verdict = conclude(expected, [exchange] * 3)
            assert isinstance(verdict, Outcome)
            assert (verdict.answer is None) == (verdict.status != "reasked")
            seen.add(verdict.status)
        json.dumps(vars(exchange), ensure_ascii=False).encode()  # can be written
    assert {"reasked", "invalid", "empty", "refused"} <= seen


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_outlives_any_body(
    contexts: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = Run(contexts, tmp_path / "a", server.url, tmp_path / "cache")
        run.flags += ("--attempts", "2", "--first-backoff", "0.001", "--retry-share", "1000")
        run.flags += ("--max-unexplained", "100000", "--max-failures", "100000")
        run.flags += ("--least-prompt", "0")
        run.replicates = 15
        assert run.build("explain") == 0
        server.behaviour.raw = list(replies(100, seed))
        server.behaviour.script = ("raw",)
        server.behaviour.first = {1: "ok"}
        assert run.call("explain") in (0, 2)
        assert run.call("explain", "--mode", "replay") in (0, 2)
        server.behaviour.script = ("ok",)
        assert run.call("explain") == run.parse("explain") == 0
    err = capsys.readouterr().err
    assert "Traceback" not in err
    manifest = json.loads(run.file("explain", "manifest.json").read_text())
    assert set(manifest["statuses"]) <= {"ok", "repaired", "reasked"}
