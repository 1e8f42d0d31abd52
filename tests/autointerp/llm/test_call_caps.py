"""Caps on requests, tokens and money: what is booked, and what outlives a step."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.autointerp.calling import quick_run, request_ids
from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.budget import Amount, SpendingBudget, SpendLog
from workflow_scripts.autointerp.llm.conversation import Question
from workflow_scripts.autointerp.llm.dialect import Dialect, probe_body
from workflow_scripts.autointerp.llm.endpoint import Endpoint
from workflow_scripts.autointerp.llm.requests import Request
from workflow_scripts.autointerp.llm.sender import Policy, Sender
from workflow_scripts.autointerp.settings import Calls, Retries, SpendingCaps
from workflow_scripts.common.cli import UserError


@pytest.mark.parametrize(
    ("flags", "most"),
    [(("--max-requests", "6"), 6), (("--max-tokens", "30000"), None)],
)
def test_caps_are_never_exceeded_and_a_higher_one_resumes(
    contexts: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    most: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.held_out, run.null = 40, 40
        assert run.purpose("explain") == 0
        assert run.build("score") == 0
        before = server.counters.calls
        spent = server.counters.prompt_tokens + server.counters.completion_tokens
        assert run.call("score", "--concurrency", "32", *flags) == 2
        assert "cap" in capsys.readouterr().err
        sent = server.counters.calls - before
        if most is not None:
            assert sent == most
        tokens = server.counters.prompt_tokens + server.counters.completion_tokens - spent
        assert 0 < tokens <= 30000
        assert run.call("score") == 0
        assert server.counters.calls == before + len(request_ids(run, "score"))


def test_calls_that_hang_are_booked_at_their_bound(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=("hang:1",))) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        total = json.loads(run.file("explain", "plan.json").read_text())["total"]
        bound = round(1.5 * (total["input_bound"] + total["output_bound"]))
        flags = ("--deadline", "0.2", "--attempts", "3", "--max-tokens", str(bound))
        assert run.call("explain", *flags) == 2
        assert "cap" in capsys.readouterr().err
        assert 0 < server.counters.calls < 3 * 4


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        ("hang:1", True),
        ("rst", True),
        ("short", True),
        ("trunc", True),
        ("500", False),
        ("429", False),
        ("401", False),
    ],
)
def test_only_a_refusal_costs_no_tokens(fault: str, billed: bool) -> None:
    question = Question.of(probe_body("fake", Dialect(), 0.0))

    async def send(url: str) -> Amount:
        async with Endpoint(url, SENTINEL, 1) as endpoint:
            sender = _sender(endpoint, 0.3)
            await sender.send(_REQUEST, question)
            assert sender.tally.cut_off == billed
            return sender.budget.spent

    with FakeServer(Behaviour(probe_fault=fault)) as server:
        spent = asyncio.run(send(server.url))
    bound = Amount(1, question.input_bound, _REQUEST.max_output)
    assert spent == (bound if billed else Amount(1))


def test_a_call_cancelled_in_flight_is_booked_at_its_bound() -> None:
    question = Question.of(probe_body("fake", Dialect(), 0.0))

    async def cancel(server: FakeServer) -> Amount:
        async with Endpoint(server.url, SENTINEL, 1) as endpoint:
            sender = _sender(endpoint, 10)
            task = asyncio.create_task(sender.send(_REQUEST, question))
            while not server.counters.in_flight:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            return sender.budget.spent

    with FakeServer(Behaviour(probe_fault="hang:1")) as server:
        spent = asyncio.run(cancel(server))
    assert spent == Amount(1, question.input_bound, _REQUEST.max_output)


_REQUEST = Request(
    "r", "explain", "explain", 0, "first", 0, "fake", "main", "text", 0, 10, temperature=0.0
)


def _sender(endpoint: Endpoint, deadline: float) -> Sender:
    return Sender(endpoint, Policy("auto", Calls(deadline=deadline), Retries(), SpendingCaps(), {}))


def test_steps_of_a_run_share_its_caps(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(latency=0.01)) as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        run.flags = (*run.flags, "--spend", str(tmp_path / "run" / "spend.jsonl"))
        assert run.purpose("explain") == 0
        before = server.counters.calls + server.counters.probes
        assert run.build("score") == 0
        assert run.call("score", "--max-requests", str(before + 7)) == 2
        assert "cap" in capsys.readouterr().err
        assert server.counters.calls + server.counters.probes == before + 7
        assert run.call("score", "--max-requests", str(before + 7)) == 2
        assert server.counters.calls + server.counters.probes == before + 7
        assert run.call("score", "--max-requests", "100000") == 0


def test_a_call_in_flight_of_a_killed_step_stays_booked(tmp_path: Path) -> None:
    async def reserve(log: SpendLog, tokens: int) -> bool:
        return await SpendingBudget(SpendingCaps(max_tokens=100), log).reserve(Amount(1, tokens, 0))

    path = tmp_path / "spend.jsonl"
    assert asyncio.run(reserve(SpendLog(path), 60))  # and then it is killed
    assert not asyncio.run(reserve(SpendLog(path), 50))
    assert asyncio.run(reserve(SpendLog(path), 40))
    assert SpendLog(path).total() == Amount(2, 100, 0, 0.0)


def test_a_paid_answer_outlives_a_file_of_spending_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async def pay(budget: SpendingBudget) -> None:
        bound = Amount(1, 60, 0)
        assert await budget.reserve(bound)
        monkeypatch.setattr(os, "write", full)
        budget.settle(bound, Amount(1, 20, 0))  # must not keep the answer from the cache
        with pytest.raises(UserError, match="No space left on device"):
            await budget.reserve(bound)

    log = SpendLog(tmp_path / "spend.jsonl")
    asyncio.run(pay(SpendingBudget(SpendingCaps(max_tokens=100), log)))
    assert log.total() == Amount(1, 60, 0, 0.0)


@pytest.mark.parametrize("content", ["[1, 2\n", "nothing\n", '{"a": 1}\n', '["x", 1, 1, 1]\n'])
def test_a_damaged_file_of_spending_is_told(
    contexts: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spend = tmp_path / "spend.jsonl"
    spend.write_text(content, encoding="utf-8")
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        assert run.call("explain", "--spend", str(spend)) == 2
        err = capsys.readouterr().err
        assert f"{spend}, which keeps what the run has spent, is damaged" in err
        assert "Traceback" not in err
        assert server.counters.calls == 0


def test_spending_that_cannot_be_written_is_told(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        assert run.call("explain", "--spend", str(tmp_path / "file" / "spend.jsonl")) == 2
        err = capsys.readouterr().err
        assert "what the run spends cannot be written to" in err
        assert "Traceback" not in err
        assert server.counters.calls + server.counters.probes == 0


def test_a_price_makes_a_cap_on_cost(contexts: Path, tmp_path: Path) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        run.prices = '{"fake": [1000, 1000]}'
        assert run.call("explain", "--max-cost", "0.5") == 2
        assert server.counters.calls + server.counters.probes == 1  # the preflight alone fits


def test_a_cap_on_cost_needs_a_price(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        run = quick_run(contexts, tmp_path / "a", server.url)
        assert run.build("explain") == 0
        run.prices = '{"another": [1, 1]}'
        assert run.call("explain", "--max-cost", "5") == 2
        assert "max_cost cannot hold without the price of fake" in capsys.readouterr().err
        assert server.counters.calls + server.counters.probes == 0
        assert run.call("explain", "--dry-run") == 0
        assert "no price is configured for fake" in capsys.readouterr().out
