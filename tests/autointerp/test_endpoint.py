"""One call: what is sent, and what is said of a call that fails."""

from __future__ import annotations

import asyncio
import hashlib
import socket

import pytest

from tests.autointerp.fake_server import FakeServer
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.conversation import Question
from workflow_scripts.autointerp.dialect import Dialect, probe_body
from workflow_scripts.autointerp.endpoint import Endpoint, Reply

KEY = "sk-a-key-of-tests"


def send(url: str, deadline: float = 5.0) -> Reply:
    """Send the preflight's body once."""

    async def one() -> Reply:
        async with Endpoint(url, KEY, deadline, 2) as endpoint:
            return await endpoint.send(Question.of(probe_body("fake", Dialect(), 0.0)).body)

    return asyncio.run(one())


def test_a_good_call_says_what_was_answered() -> None:
    with FakeServer() as server:
        reply = send(server.url)
        assert server.counters.key_hashes == {hashlib.sha256(f"Bearer {KEY}".encode()).hexdigest()}
    assert (reply.kind, reply.status) == ("ok", 200)
    assert reply.completion is not None
    assert reply.completion.content == '{"ready": "yes"}'
    assert set(reply.headers) == {"date", "server"}


def test_a_refused_connection_is_no_time_out() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        reply = send(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
    assert (reply.kind, reply.reason) == ("retry", "connection failed (ClientConnectorError)")


@pytest.mark.parametrize("fault", ["hang:1", "drip:1"])
def test_the_deadline_is_for_the_whole_call(fault: str) -> None:
    with FakeServer(Behaviour(probe_fault=fault)) as server:
        reply = send(server.url, deadline=0.2)
    assert (reply.kind, reply.reason) == ("retry", "no answer within 0.2 s")


@pytest.mark.parametrize("fault", ["rst", "short"])
def test_a_connection_that_breaks_is_retried_and_says_so(fault: str) -> None:
    with FakeServer(Behaviour(probe_fault=fault)) as server:
        reply = send(server.url)
    assert reply.kind == "retry"
    assert reply.reason.startswith("connection failed (")
    assert KEY not in repr(reply)


def test_organisation_goes_along_and_this_machine_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-tests")
    monkeypatch.delenv("OPENAI_PROJECT_ID", raising=False)
    headers = Endpoint("http://127.0.0.1:1/v1", KEY, 1.0, 1)._headers
    assert headers["OpenAI-Organization"] == "org-of-tests"
    assert "OpenAI-Project" not in headers
    assert not [name for name in headers if name.startswith("x-stainless")]
