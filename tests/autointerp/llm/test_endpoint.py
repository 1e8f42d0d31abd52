"""One call: what is sent, and what is said of a call that fails."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import socket
from email.utils import format_datetime

import openai
import pytest

from tests.autointerp.fake_server import FakeServer
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm import endpoint as endpoint_module
from workflow_scripts.autointerp.llm.api_key import is_loopback, is_openai
from workflow_scripts.autointerp.llm.completion import read_completion
from workflow_scripts.autointerp.llm.conversation import Question
from workflow_scripts.autointerp.llm.dialect import Dialect, probe_body
from workflow_scripts.autointerp.llm.endpoint import Endpoint, Reply, _retry_after, _time_to_reset
from workflow_scripts.common.cli import UserError

KEY = "sk-a-key-of-tests"
BODY = Question.of(probe_body("fake", Dialect(), 0.0)).body


def send(
    url: str, deadline: float = 5.0, headers: dict[str, str] | None = None, key: str = KEY
) -> Reply:
    """Send the preflight's body once."""

    async def one() -> Reply:
        async with Endpoint(url, key, 2, headers) as endpoint:
            return await endpoint.send(BODY, deadline)

    return asyncio.run(one())


def test_a_good_call_says_what_was_answered() -> None:
    with FakeServer() as server:
        reply = send(server.url)
        assert server.counters.key_hashes == {hashlib.sha256(f"Bearer {KEY}".encode()).hexdigest()}
    assert (reply.kind, reply.status) == ("ok", 200)
    assert reply.completion is not None
    assert reply.completion.content == '{"ready": "yes"}'
    assert set(reply.headers) == {"date", "server"}


@pytest.mark.parametrize("dummy", ["1", "a", "ready", "none"])
def test_a_dummy_for_a_key_does_not_alter_answers(dummy: str) -> None:
    with FakeServer() as server:
        reply = send(server.url, key=dummy)
    assert reply.completion is not None
    assert reply.completion.content == '{"ready": "yes"}'
    assert read_completion(reply.text, 200) == reply.completion


def test_a_key_in_an_answer_is_not_kept() -> None:
    with FakeServer() as server:
        reply = send(server.url, key="assistant")  # a word of the reply, as long as a key
    assert reply.completion is not None
    assert "assistant" not in reply.text
    assert read_completion(reply.text, 200) == reply.completion


def test_a_refused_connection_is_no_time_out() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        reply = send(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
    assert (reply.kind, reply.reason) == ("retry", "connection failed (ConnectionRefusedError)")


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


@pytest.mark.parametrize("openais", [True, False])
def test_a_body_goes_as_it_is_without_this_machine_and_its_account(
    openais: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-tests")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-tests")
    monkeypatch.setattr(endpoint_module, "is_openai", lambda _: openais)
    with FakeServer() as server:
        send(server.url, headers={"X-Team": "of-tests"})
        headers = server.counters.headers
        assert set(server.counters.body_hashes) == {hashlib.sha256(BODY).hexdigest()}
    account = {"openai-organization": "org-of-tests", "openai-project": "project-of-tests"}
    sent = {name: value for name, value in headers.items() if name in account}
    assert sent == (account if openais else {})
    assert headers["content-type"] == "application/json"
    assert headers["x-team"] == "of-tests"
    assert not [name for name in headers if name.startswith("x-stainless")]


@pytest.mark.parametrize(
    ("url", "loopback", "openais"),
    [
        ("http://localhost:1/v1", True, False),
        ("http://127.8.0.1/v1", True, False),
        ("http://[::1]:8/v1", True, False),
        ("http://127.0.0.1.example.com/v1", False, False),
        ("http://localhost.example.com/v1", False, False),
        ("https://api.openai.com/v1", False, True),
        ("https://eu.api.openai.com/v1", False, True),
        ("https://api.openai.com.example.com/v1", False, False),
        ("https://notopenai.com/v1", False, False),
    ],
)
def test_hosts_are_told_apart_by_address_and_not_by_how_they_begin(
    url: str, loopback: bool, openais: bool
) -> None:
    assert (is_loopback(url), is_openai(url)) == (loopback, openais)


def test_an_environment_that_allows_no_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ValueError("Unknown scheme for proxy URL")

    monkeypatch.setattr(openai, "DefaultAioHttpClient", refuse)
    with pytest.raises(UserError, match=r"no connection to .* can be prepared .*HTTPS_PROXY"):
        Endpoint("https://api.example.org/v1", KEY, 1)


@pytest.mark.parametrize(
    ("left", "reset", "wait"),
    [
        ("0", "1h2m3.5s", 3723.5),
        ("0", "12ms", 0.012),
        ("0", "7", 7.0),
        ("0", "soon", 0.0),
        ("1", "7s", None),
        ("", "7s", None),
    ],
)
def test_calls_that_are_used_up_are_waited_for(left: str, reset: str, wait: float | None) -> None:
    headers = {"x-ratelimit-remaining-tokens": "5"}
    for name, value in (("remaining", left), ("reset", reset)):
        headers[f"x-ratelimit-{name}-requests"] = value
    assert _time_to_reset(headers) == wait
    headers |= {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2h"}
    assert _time_to_reset(headers) == max(wait or 0.0, 7200.0)


NOON = {"date": "Fri, 02 Jan 2026 12:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "-3"}, 0.0),
        ({**NOON, "retry-after": "Fri, 02 Jan 2026 12:00:30 GMT"}, 30.0),
        ({**NOON, "retry-after": "Fri, 02 Jan 2026 13:01:00 +0100"}, 60.0),
        ({**NOON, "retry-after": "Fri, 02 Jan 2026 12:00:05 -0000"}, 5.0),
        ({**NOON, "retry-after": "Fri, 02 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 02 Jan 2015 11:00:00 GMT"}, 0.0),
        ({"date": "today", "retry-after": "Fri, 02 Jan 2015 11:00:00 GMT"}, 0.0),
        *(
            ({**NOON, "retry-after": garbage}, None)
            for garbage in ("", "nan", "inf", "soon", "Fri, 99 Jan 2026 12:00:30 GMT", "\x00")
        ),
    ],
)
def test_a_wait_is_a_number_or_a_date(headers: dict[str, str], wait: float | None) -> None:
    assert _retry_after(headers) == wait


def test_a_date_is_taken_by_this_clock_where_the_reply_tells_none() -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    wait = _retry_after({"retry-after": format_datetime(later, usegmt=True)})
    assert wait is not None
    assert 50 < wait <= 60


def test_an_endpoint_may_name_a_date_to_wait_for() -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    fault = f"retry_after:{format_datetime(later, usegmt=True)}"
    with FakeServer(Behaviour(probe_fault=fault)) as server:
        reply = send(server.url)
    assert reply.kind == "retry"
    assert reply.retry_after is not None
    assert 50 < reply.retry_after <= 60
