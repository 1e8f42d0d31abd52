"""An endpoint that is bad and then good: what is kept, what is asked again, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.autointerp.calling import output_digests
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import Run
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.budget import Amount, SpendLog
from workflow_scripts.autointerp.llm.caller import HOPELESS

LATENTS = 4
ALLOWED = ("--max-failures", "1000", "--max-unexplained", "1000")
BAD = [
    # fault, purpose, replies per request, status
    ("length", "explain", 3, "truncated"),
    ("empty_length", "explain", 3, "truncated"),
    ("null_length", "classify", 3, "truncated"),
    ("think_length", "score", 3, "truncated"),
    ("repeats", "explain", 3, "truncated"),
    ("empty", "explain", 3, "empty"),
    ("null_content", "score", 3, "empty"),
    ("think_open", "classify", 3, "empty"),
    ("repeated", "explain", 3, "invalid"),
    ("prose", "explain", 3, "invalid"),
    ("extra_key", "explain", 3, "invalid"),
    ("dup_key", "explain", 3, "invalid"),
    ("bad_enum", "classify", 3, "invalid"),
    ("missing_index", "score", 3, "invalid"),
    ("wrong_count", "score", 3, "invalid"),
    ("dup_index", "score", 3, "invalid"),
    ("bad_score", "score", 3, "invalid"),
    ("refusal", "explain", 1, "refused"),
    ("filter", "explain", 1, "filtered"),
    ("filter400", "explain", 1, "filtered"),
    ("error200", "explain", 3, "transport_failed"),
    ("error_choice", "explain", 3, "transport_failed"),
    ("html200", "classify", 3, "transport_failed"),
]


def prepare(contexts: Path, folder: Path, url: str, purpose: str = "explain") -> Run:
    """Return a run whose requests of one purpose are built: four of them."""
    run = Run(contexts, folder / "a", url, folder / "cache", held_out=4, null=0)
    run.flags += ("--attempts", "3", "--concurrency", "2", "--spend", str(folder / "spend.jsonl"))
    if purpose != "explain":
        with FakeServer() as good:
            first = Run(contexts, folder / "a", good.url, folder / "other", held_out=4, null=0)
            assert first.purpose("explain") == 0
    assert run.build(purpose) == 0
    return run


def manifest_of(run: Run, purpose: str) -> dict[str, Any]:
    """Return the manifest of one purpose."""
    manifest: dict[str, Any] = json.loads(run.file(purpose, "manifest.json").read_text())
    return manifest


@pytest.mark.parametrize(("fault", "purpose", "replies", "status"), BAD)
def test_only_what_was_bad_is_asked_again(
    contexts: Path, tmp_path: Path, fault: str, purpose: str, replies: int, status: str
) -> None:
    with FakeServer(Behaviour(script=(fault,))) as server:
        run = prepare(contexts, tmp_path, server.url, purpose)
        server.behaviour.first = {1: "ok"}
        assert run.call(purpose) == 2
        assert not run.file(purpose, "responses.jsonl").exists()
        bad = LATENTS - 1
        assert server.counters.calls == 1 + replies * bad
        server.behaviour.script = ("ok",)
        assert run.call(purpose) == run.parse(purpose) == 0
        assert server.counters.calls == 1 + replies * bad + bad
        calls = server.counters.calls + server.counters.probes
        assert run.call(purpose) == 0
        assert server.counters.calls + server.counters.probes == calls
    assert manifest_of(run, purpose)["statuses"] == {"ok": LATENTS}
    ledger = pd.read_csv(run.file(purpose, "ledger.csv"))
    silent = status == "transport_failed"
    in_vain = bad if silent else replies * bad  # a row per request that was given up
    assert ledger["kept"].value_counts().to_dict() == {"yes": LATENTS, "no": in_vain}
    assert ledger["attempts"].sum() == 1 + replies * bad + bad  # all that was sent
    assert manifest_of(run, purpose)["tokens"]["calls_in_vain"] == (0 if silent else in_vain)
    assert SpendLog(tmp_path / "spend.jsonl").total().requests == calls


@pytest.mark.parametrize("fault", ["length", "empty", "prose", "refusal", "error_choice"])
def test_a_run_that_allows_failures_is_replayed_with_them(
    contexts: Path, tmp_path: Path, fault: str
) -> None:
    with FakeServer(Behaviour(script=(fault,))) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain", *ALLOWED) == 0
        first = output_digests(run, "explain")
        assert run.call("explain", *ALLOWED, "--mode", "replay") == 0
        assert output_digests(run, "explain") == first
        assert run.call("explain", *ALLOWED) == 0  # live, it asks again
        assert server.counters.calls == 2 * LATENTS * (1 if fault == "refusal" else 3)
        second = output_digests(run, "explain")
    assert run.call("explain", *ALLOWED, "--mode", "replay") == 0
    assert output_digests(run, "explain") == second
    ledger = pd.read_csv(run.file("explain", "ledger.csv"))
    assert set(ledger["kept"]) == {"no"}


@pytest.mark.parametrize("purpose", ["explain", "score"])
def test_a_question_is_drawn_again_with_another_seed(
    contexts: Path, tmp_path: Path, purpose: str
) -> None:
    faults = ("repeats", "repeats", "ok") if purpose == "explain" else ("think_length", "ok")
    with FakeServer(Behaviour(first=dict(enumerate(faults, 1)))) as server:
        run = prepare(contexts, tmp_path, server.url, purpose)
        assert run.call(purpose, "--concurrency", "1") == 0
        bodies = server.counters.bodies[: len(faults)]
    assert manifest_of(run, purpose)["statuses"] == {"ok": LATENTS - 1, "reasked": 1}
    assert len({body["seed"] for body in bodies}) == len(faults)
    assert [body["temperature"] for body in bodies] == [0.0] + [0.7] * (len(faults) - 1)
    assert [body["messages"] for body in bodies] == [bodies[0]["messages"]] * len(faults)
    limits = [body["max_completion_tokens"] for body in bodies]
    # What ran on needs less; what was cut off amid its thoughts does not.
    assert limits == ([300, 150, 150] if purpose == "explain" else [400, 400])


PROBE_FAULTS = ("length", "empty_length", "null_content", "think_open", "prose", "error_choice")


@pytest.mark.parametrize("fault", PROBE_FAULTS)
def test_nothing_is_learnt_of_an_endpoint_from_a_bad_reply(
    contexts: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=(fault,), probe_fault=fault)) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        err = capsys.readouterr().err
        if fault != "prose":
            assert server.counters.calls == 0  # refused before any text of the study was sent
            assert "base_url" in err if fault == "error_choice" else "max_output" in err
        assert not (run.cache / "dialects").exists()
        server.behaviour.script, server.behaviour.probe_fault = ("ok",), ""
        assert run.call("explain") == 0
    assert manifest_of(run, "explain")["dialects"]["fake"]["form"] == "json_schema"


def test_a_run_without_a_good_answer_stops_before_all_is_paid(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=("empty_length",))) as server:
        run = prepare(contexts, tmp_path, server.url, "score")
        run.held_out = 100
        assert run.build("score") == 0
        assert run.call("score") == 2
        assert server.counters.calls <= 3 * (HOPELESS + 2)
    err = capsys.readouterr().err
    assert f"none of the first {HOPELESS} requests has a good answer" in err
    assert "max_output" in err


def test_failures_that_an_earlier_version_kept_are_asked_again(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(script=("length",))) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        for path in (run.cache / "failures").iterdir():
            attempt = json.loads(path.read_text())["attempts"][0]
            for stored in attempt["entries"]:
                place = run.cache / stored["entry"]["key"][:2]
                place.mkdir(exist_ok=True)
                text = json.dumps(stored, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
                (place / f"{stored['entry']['key']}.json").write_text(f"{text}\n")
            path.unlink()
        before = server.counters.calls
        server.behaviour.script = ("ok",)
        assert run.call("explain") == 0
        assert server.counters.calls == before + LATENTS
    assert manifest_of(run, "explain")["statuses"] == {"ok": LATENTS}
    ledger = pd.read_csv(run.file("explain", "ledger.csv"))
    assert ledger["kept"].value_counts().to_dict() == {"no": 3 * LATENTS, "yes": LATENTS}


def test_what_an_interrupted_request_had_paid_is_in_the_ledger(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(first={1: "prose", 2: "quota"})) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain", "--concurrency", "1") == 2
        assert run.call("explain") == 0
        total = SpendLog(tmp_path / "spend.jsonl").total()
        assert total.requests == server.counters.calls + server.counters.probes
    assert isinstance(total, Amount)
    ledger = pd.read_csv(run.file("explain", "ledger.csv"))
    assert ledger["kept"].value_counts().to_dict() == {"yes": LATENTS, "no": 1}
