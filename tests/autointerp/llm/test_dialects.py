"""How servers differ: fields that they refuse, prompts that they cut, models that they load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.autointerp.fake_server import FakeServer
from tests.autointerp.llm_run import Run
from tests.autointerp.oracle import Behaviour
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.dialect import Dialect
from workflow_scripts.autointerp.llm.prompt_check import PromptCheck
from workflow_scripts.autointerp.llm.requests import Header, Request
from workflow_scripts.autointerp.settings import Annotator, Llm

LATENTS = 4
URL = "https://api.example.org/v1"


def prepare(contexts: Path, folder: Path, url: str) -> Run:
    """Return a run whose four requests to explain are built."""
    run = Run(contexts, folder / "a", url, folder / "cache", held_out=4, null=0)
    run.flags += ("--attempts", "2", "--concurrency", "2")
    assert run.build("explain") == 0
    return run


def dialect_of(run: Run) -> dict[str, Any]:
    """Return the dialect in which the endpoint was asked."""
    manifest = json.loads(run.file("explain", "manifest.json").read_text())
    dialect: dict[str, Any] = manifest["dialects"]["fake"]
    return dialect


@pytest.mark.parametrize("manner", ["openai", "mistral", "gemini"])
@pytest.mark.parametrize(
    ("reject", "changes"),
    [
        (("seed",), {"seed": False}),
        (("temperature",), {"temperature": False}),
        (("seed", "max_completion_tokens"), {"seed": False, "limit": "max_tokens"}),
        (("max_completion_tokens", "max_tokens"), {"limit": "omitted"}),
        (("maxLength",), {"bounds": False}),
        (("json_schema",), {"form": "json_object"}),
        (("system",), {"system": False}),
    ],
)
def test_a_field_that_is_refused_is_left_out_once(
    contexts: Path, tmp_path: Path, manner: str, reject: tuple[str, ...], changes: dict[str, object]
) -> None:
    with FakeServer(Behaviour(reject=reject, manner=manner)) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == run.parse("explain") == 0
        assert server.counters.probes == 1 + len(reject)
        assert (server.counters.calls, server.counters.refused) == (LATENTS, 0)
        assert run.call("explain") == 0
        assert server.counters.probes == 1 + len(reject)
    assert dialect_of(run) == vars(Dialect()) | changes


def _turn_round(requests: Path) -> None:
    """Put the requests of a file into the opposite order."""
    head, *lines = requests.read_text(encoding="utf-8").splitlines()
    requests.write_text("\n".join([head, *lines[::-1], ""]), encoding="utf-8")


@pytest.mark.parametrize("manner", ["openai", "mistral", "gemini"])
def test_a_field_that_is_refused_later_is_left_out_and_what_was_paid_stays(
    contexts: Path, tmp_path: Path, manner: str
) -> None:
    with FakeServer() as server:
        run = prepare(contexts, tmp_path, server.url)
        server.behaviour.from_call = (3, "quota")
        assert run.call("explain", "--concurrency", "1") == 2  # two answers are paid
        server.behaviour.from_call = None
        _turn_round(run.file("explain", "requests.jsonl"))  # so that the first one lacks
        server.behaviour.reject, server.behaviour.manner = ("seed",), manner
        before = server.counters.calls
        assert run.call("explain", "--concurrency", "1") == 0
        assert server.counters.calls == before + 1 + 2  # one refusal, and the two that lack
        assert run.call("explain") == run.call("explain", "--mode", "replay") == 0
        assert server.counters.calls == before + 1 + 2
        assert [body.get("seed") for body in server.counters.bodies[-2:]] == [None, None]


@pytest.mark.parametrize(
    "complaint",
    [
        "'max_tokens' is too large: 300. This model's maximum context length is 2048 tokens",
        "the request exceeds the available context size (max_completion_tokens)",
        "no such thing",
    ],
)
def test_what_no_field_is_to_blame_for_changes_nothing(complaint: str) -> None:
    assert Dialect().weaker(complaint) is None


def test_a_prompt_too_long_for_the_model_is_told(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(script=("too_long",))) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
    assert "give the model a longer context, or send less" in capsys.readouterr().err


def test_a_server_that_cuts_prompts_is_told_and_its_answers_are_not_kept(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(context=512)) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain") == 2
        err = capsys.readouterr().err
        assert "the endpoint counts 512 tokens in a prompt of about" in err
        assert "num_ctx" in err
        before = server.counters.calls
        server.behaviour.context = 0
        assert run.call("explain") == 0
        assert server.counters.calls >= before + 3
        assert "num_ctx" not in capsys.readouterr().err
        server.behaviour.context = 512
        other = prepare(contexts, tmp_path / "b", server.url)
        assert other.call("explain", "--least-prompt", "0") == 0


def test_a_thrifty_tokenizer_cuts_nothing() -> None:
    request = Request(
        "r", "explain", "explain", 0, "a", 0, "m", "s", "word " * 1000, 0, 10, temperature=0.0
    )
    conversation = Conversation(URL, Header("explain", {"s": ""}, (), {}), request, Dialect())
    body = conversation.question()[1].body
    thrifty, cut, single = PromptCheck(0.8), PromptCheck(0.8), PromptCheck(0.8)
    for number in range(20):
        thrifty.add(conversation, body, 610 + 9 * number)  # as many as prompts' lengths differ
        cut.add(conversation, body, 700)
    single.add(conversation, body, 700)
    assert thrifty.complaint() is None
    assert "counts 700 tokens in a prompt of about 1008" in str(cut.complaint())
    assert single.complaint() is None
    assert single.complaint(least=1) is not None


def test_a_model_that_is_loaded_is_waited_for(
    contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(Behaviour(loading=2.5)) as server:
        run = prepare(contexts, tmp_path, server.url)
        assert run.call("explain", "--attempts", "1", "--max-requests", str(LATENTS + 1)) == 0
        assert server.counters.calls == LATENTS
        assert "the server loads its model (Loading model): waiting" in capsys.readouterr().err
    with FakeServer(Behaviour(loading=60)) as server:
        run = prepare(contexts, tmp_path / "b", server.url)
        assert run.call("explain", "--loading", "0") == 2
        assert "raise autointerp.llm.loading" in capsys.readouterr().err


def test_further_fields_and_limits_are_sent_and_headers_come_from_the_environment(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-secret-of-tests-51c8"
    monkeypatch.setenv("TEAM_TOKEN", secret)
    extra = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    with FakeServer() as server:
        run = Run(contexts, tmp_path / "a", server.url, tmp_path / "cache")
        run.annotators = {"first": {"model": "fake", "extra_body": extra}}
        run.limits = {"explain": 4000}
        run.flags += ("--headers", '{"X-Team": "TEAM_TOKEN"}')
        assert run.build("explain") == run.call("explain") == 0
        for body in server.counters.bodies:
            assert {name: body[name] for name in extra} == extra
            assert body["max_completion_tokens"] == 4000
        assert server.counters.headers["x-team"] == secret
        calls = server.counters.calls
        run.annotators = {"first": {"model": "fake", "extra_body": {"reasoning_effort": "high"}}}
        assert run.build("explain") == run.call("explain") == 0
        assert server.counters.calls == calls + LATENTS  # another question
        monkeypatch.delenv("TEAM_TOKEN")
        run.seed = 1
        assert run.build("explain") == 0
        assert run.call("explain") == 2
        assert server.counters.calls == calls + LATENTS
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("body", "needle"),
    [
        ({"max_tokens": 5}, "autointerp.llm.max_output sets it"),
        ({"model": "x"}, "must not hold model"),
        ({"stream": True}, "must not hold stream"),
        ({"api_key": "x"}, "must hold no key"),
        ({"provider": {"token": "sk-a-key-itself"}}, "must hold no key"),
        ({"provider": [{"headers": {"Authorization": "Token 1"}}]}, "must hold no key"),
    ],
)
def test_what_other_settings_give_is_no_further_field(body: dict[str, object], needle: str) -> None:
    with pytest.raises(ValueError, match=needle):
        Annotator.model_validate({"model": "m", "extra_body": body})


@pytest.mark.parametrize(
    "headers", [{"X-Team": "sk-a-key-itself"}, {"X-Team": ""}, {"X Team": "NAME"}, {"Host": "NAME"}]
)
def test_a_header_names_a_variable(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="headers") as refused:
        llm(headers=headers)
    assert "sk-a-key" not in refused.value.errors()[0]["msg"]  # type: ignore[attr-defined]


def llm(**settings: object) -> Llm:
    """Return the settings of an endpoint."""
    needed = {"base_url": "https://api.example.org/v1", "annotators": {"a": {"model": "m"}}}
    return Llm.model_validate(needed | settings)


def test_the_limit_is_a_number_or_one_per_purpose() -> None:
    assert llm().output_limits["explain"] == 300
    assert set(llm(max_output=9).output_limits.values()) == {9}
    assert llm(max_output={"score": 9}).output_limits == llm().output_limits | {"score": 9}
