"""Every fault of an endpoint: how often it is called, and how the requests end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import Run
from tests.autointerp.oracle import Behaviour

FAST = ("--first-backoff", "0.02", "--attempts", "3", "--concurrency", "2")
# Only faults that keep the client waiting meet a short deadline: on a busy machine a good answer
# may take longer than that, and would be asked for again.
SHORT = ("--deadline", "1.5")
LATENTS = 4
PASSING = [
    "500",
    "502",
    "503",
    "429",
    "429:30",
    "html200",
    "error200",
    "trunc",
    "short",
    "rst",
    "hang:4",
    "drip:4",
    "empty_choices",
    "error_choice",
]
ALLOWED = ("--max-failures", "1000", "--max-unexplained", "1000")


def _prepare(
    contexts: Path, folder: Path, url: str, purpose: str = "explain", flags: tuple[str, ...] = ()
) -> Run:
    run = Run(contexts, folder, url, folder / "cache", flags=(*FAST, *flags), held_out=4, null=0)
    if purpose != "explain":
        with FakeServer() as good:
            first = Run(contexts, folder, good.url, folder / "other", held_out=4, null=0)
            assert first.purpose("explain") == 0
    assert run.build(purpose) == 0
    return run


def _statuses(run: Run, purpose: str) -> dict[str, int]:
    manifest = json.loads(run.file(purpose, "manifest.json").read_text())
    statuses: dict[str, int] = manifest["statuses"]
    return statuses


@pytest.mark.parametrize("fault", PASSING)
def test_passing_faults_are_retried_once(contexts: Path, tmp_path: Path, fault: str) -> None:
    flags = SHORT if fault.startswith(("hang", "drip")) else ()
    with FakeServer(Behaviour(script=(fault, "ok"))) as server:
        run = _prepare(contexts, tmp_path, server.url, flags=flags)
        assert run.call("explain") == 0
        assert set(server.counters.keys.values()) == {2}
        assert len(server.counters.keys) == LATENTS
    assert _statuses(run, "explain") == {"ok": LATENTS}


@pytest.mark.parametrize("fault", ["500", "trunc", "rst", "html200"])
def test_lasting_faults_end_as_transport_failed(contexts: Path, tmp_path: Path, fault: str) -> None:
    with FakeServer(Behaviour(script=(fault,))) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        assert set(server.counters.keys.values()) == {3}
        assert not run.file("explain", "responses.jsonl").exists()
        assert run.call("explain", *ALLOWED) == 0
        assert _statuses(run, "explain") == {"transport_failed": LATENTS}
        # No answer was stored, so a later run asks again, and may succeed.
        server.behaviour.script = ("ok",)
        assert run.call("explain") == 0
        assert run.parse("explain") == 0
    assert _statuses(run, "explain") == {"ok": LATENTS}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("fenced", "repaired"),
        ("embedded", "repaired"),
        ("nul", "repaired"),
        ("no_usage", "ok"),
        ("wrong_model", "ok"),
        ("finish_null", "ok"),
        ("think", "ok"),
        ("think_end", "ok"),
        ("reasoning", "ok"),
        ("parts", "ok"),
    ],
)
def test_good_answers_are_paid_once(
    contexts: Path, tmp_path: Path, fault: str, status: str
) -> None:
    with FakeServer(Behaviour(script=(fault,))) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 0
        assert _statuses(run, "explain") == {status: LATENTS}
        assert server.counters.calls == LATENTS
        assert run.call("explain") == run.parse("explain") == 0
        assert server.counters.calls == LATENTS
    texts = pd.read_parquet(run.llm("explanations"))["explanation"]
    assert all(text.startswith("words: ") for text in texts)
    manifest = json.loads(run.file("explain", "manifest.json").read_text())
    if fault == "no_usage":
        assert manifest["tokens"]["calls_without_usage"] == LATENTS
    if fault == "wrong_model":
        assert manifest["warnings"] == ["fake is an alias: another-model answered"]


def test_an_invalid_answer_is_asked_for_again(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(first={1: "prose"})) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 0
        assert server.counters.calls == LATENTS + 1
        bodies = [b for b in server.counters.bodies if len(b["messages"]) == 4]
        assert len(bodies) == 1
        assert "That answer is not valid" in bodies[0]["messages"][3]["content"]
    assert _statuses(run, "explain") == {"ok": LATENTS - 1, "reasked": 1}
    assert run.parse("explain") == 0


@pytest.mark.parametrize(
    ("fault", "needle"),
    [
        ("401", "refuses the key"),
        ("403", "refuses the key"),
        ("404", "no such path or model"),
        ("quota", "quota"),
        ("redirect", "redirects elsewhere"),
        ("400_other", "rejects the request"),
        ("retry_after:300", "asks to wait 300 s"),
    ],
)
def test_what_will_repeat_stops_the_run_and_keeps_what_is_paid(
    contexts: Path, tmp_path: Path, fault: str, needle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(from_call=(3, fault))) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        assert server.counters.calls <= 4  # two good ones, then at most one per worker
        assert server.counters.redirected == 0
        assert not run.file("explain", "responses.jsonl").exists()
        printed = capsys.readouterr()
        assert needle in printed.err
        assert SENTINEL not in printed.err + printed.out
        calls = server.counters.calls
        server.behaviour.from_call = None
        assert run.call("explain") == 0
        assert server.counters.calls == calls + 2  # exactly the missing ones
    assert _statuses(run, "explain") == {"ok": LATENTS}


def test_too_many_retries_stop_the_run(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(script=("500",))) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain", "--attempts", "50", "--first-backoff", "0.001") == 2
        assert server.counters.calls <= 20 + 4


@pytest.mark.parametrize(
    ("reject", "form", "limit"),
    [
        (("json_schema",), "json_object", "max_completion_tokens"),
        (("json_schema", "json_object"), "none", "max_completion_tokens"),
        (("max_completion_tokens", "temperature", "seed"), "json_schema", "max_tokens"),
    ],
)
def test_the_endpoints_dialect_is_found_once(
    contexts: Path, tmp_path: Path, reject: tuple[str, ...], form: str, limit: str
) -> None:
    with FakeServer(Behaviour(reject=reject)) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 0
        assert server.counters.calls == LATENTS
        assert server.counters.probes == len(reject) + 1
        assert run.build("explain") == run.call("explain") == 0
        assert server.counters.probes == len(reject) + 1
    manifest = json.loads(run.file("explain", "manifest.json").read_text())
    dialect = manifest["dialects"]["fake"]
    assert (dialect["form"], dialect["limit"]) == (form, limit)
    assert _statuses(run, "explain") == {"ok": LATENTS}


def test_a_server_that_ignores_the_schema_is_asked_by_prompt_alone(
    contexts: Path, tmp_path: Path
) -> None:
    with FakeServer(Behaviour(ignore_schema=True)) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.purpose("explain") == 0
        assert server.counters.probes == 3
    assert _statuses(run, "explain") == {"repaired": LATENTS}


@pytest.mark.parametrize("fault", ["html200", "401"])
def test_a_wrong_endpoint_fails_at_the_preflight(
    contexts: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(probe_fault=fault)) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        assert server.counters.calls == 0  # no text of the study was sent
    err = capsys.readouterr().err
    assert "base_url" in err or "refuses the key" in err


def test_no_more_calls_at_once_than_allowed(contexts: Path, tmp_path: Path) -> None:
    with FakeServer(Behaviour(latency=0.02)) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain", "--concurrency", "3") == 0
        assert server.counters.most_in_flight <= 3


def test_failures_are_counted_per_row(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(first={2: "refusal"})) as server:
        run = _prepare(contexts, tmp_path, server.url)
        assert run.call("explain", "--max-unexplained", "0.25") == 0
    message = (
        "1 of 4 latents stay without an explanation (1 refused), which autointerp.llm.max_unexpl"
    )
    assert message in capsys.readouterr().err
    assert run.parse("explain") == 0
    table = pd.read_parquet(run.llm("explanations"))
    assert Counter(table["status"]) == {"ok": 3, "refused": 1}
    assert table.loc[table["status"] == "refused", "explanation"].tolist() == [""]
