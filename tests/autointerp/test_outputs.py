"""The calling step's outputs: in the order of the requests, whatever order they ended in."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from workflow_scripts.autointerp.cache import Entry
from workflow_scripts.autointerp.conversation import Conversation
from workflow_scripts.autointerp.dialect import Dialect
from workflow_scripts.autointerp.outputs import LEDGER, Outputs, writing
from workflow_scripts.autointerp.requests import Header, Request

HEADER = Header("explain", {"main": "You explain."}, (), {"explain_main": "a" * 64})
URL = "http://127.0.0.1:1/v1"


def talk(number: int, model: str = "fake", said: str | None = None) -> Conversation:
    request = Request(
        id=f"r{number}",
        purpose="explain",
        kind="explain",
        latent=number,
        annotator="first",
        replicate=0,
        model=model,
        system="main",
        user="text",
        seed=number,
        max_output=10,
        temperature=0.0,
    )
    found = Conversation(URL, HEADER, request, Dialect())
    if said is not None:
        key, question = found.question()
        message = {"content": json.dumps({"explanation": said}), "refusal": None}
        response = {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "model": "=cmd()\x1b[31m",
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        }
        entry = Entry(key, URL, question.body, 0, json.dumps(response), 200, {}, 1, "", 0.1, "sdk")
        found.hear(entry)
    return found


def test_requests_are_written_in_the_order_of_their_file(tmp_path: Path) -> None:
    outputs = Outputs(*(tmp_path / name for name in ("responses", "ledger", "manifest")))
    with writing(outputs, HEADER, "127.0.0.1:1") as writer:
        for place in (3, 1, 0, 4, 2):
            if place == 3:
                writer.add(place, talk(place), "HTTP 500")
            else:
                writer.add(place, talk(place, said=f"word {place}"))
    rows = [json.loads(line) for line in outputs.responses.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(5)]
    assert [row["failure"] for row in rows] == [None, None, None, "HTTP 500", None]
    with outputs.ledger.open(newline="", encoding="utf-8") as file:
        book = list(csv.DictReader(file))
    assert list(book[0]) == LEDGER
    assert [row["request"] for row in book] == ["r0", "r1", "r2", "r4"]
    assert book[0]["returned_model"] == "'=cmd()?[31m"  # no formula, no control character
    manifest = json.loads(outputs.manifest.read_text())
    assert manifest["statuses"] == {"ok": 4, "transport_failed": 1}
    assert manifest["tokens"] == {"calls": 4, "calls_without_usage": 0, "input": 20, "output": 8}
    assert "\x1b" not in outputs.manifest.read_text().encode().decode("unicode_escape")


def test_nothing_appears_where_the_step_fails(tmp_path: Path) -> None:
    outputs = Outputs(*(tmp_path / name for name in ("responses", "ledger", "manifest")))

    def fail() -> None:
        with writing(outputs, HEADER, "127.0.0.1:1") as writer:
            writer.add(0, talk(0, said="word"))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert not list(tmp_path.iterdir())
