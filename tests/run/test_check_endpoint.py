"""A config that asks for an LLM without key or endpoint stops before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.autointerp.conftest import SENTINEL
from tests.autointerp.fake_server import FakeServer
from tests.run.test_settings import put, smoke
from workflow_scripts.autointerp import call_llm
from workflow_scripts.autointerp.llm.api_key import read_key, redact
from workflow_scripts.autointerp.settings import Connection
from workflow_scripts.common.cli import UserError
from workflow_scripts.run import check_endpoint
from workflow_scripts.run.load import load

URL = "https://api.example.org/v1"


def connection(**settings: str) -> Connection:
    """Return an endpoint's settings."""
    return Connection.model_validate({"base_url": URL, **settings})


@pytest.mark.parametrize(
    ("settings", "needle"),
    [
        ({"base_url": ""}, "base_url is empty"),
        ({"key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY holds no key"),
        ({"base_url": "api.example.org"}, "http://"),
        ({"mode": "replay", "cache": "/nonexistent/cache"}, "unpack"),
    ],
)
def test_what_is_missing_is_told(settings: dict[str, str], needle: str) -> None:
    with pytest.raises(UserError, match=needle):
        check_endpoint.check_endpoint(connection(**settings))


def test_a_key_in_place_of_its_variable_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match="not the key itself") as refused:
        read_key(SENTINEL)
    assert SENTINEL not in str(refused.value)


def test_a_key_among_the_settings_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"base_url": URL, "key_env": SENTINEL, "annotators": {"a": {"model": "m"}}}
    with pytest.raises(UserError, match="key_env must be the name of an env") as refused:
        load(put(smoke(), "autointerp.llm", settings))
    files = [f"--{name}=file" for name in ("requests", "responses", "ledger", "manifest", "spend")]
    given = [*files, "--prices={}", "--headers={}", f"--base-url={URL}", f"--key-env={SENTINEL}"]
    assert call_llm.main(given) == 2
    told = capsys.readouterr()
    assert "--key-env must be the name of an environment variable" in told.err
    assert SENTINEL not in str(refused.value) + told.err + told.out


def test_a_password_in_the_address_is_not_shown() -> None:
    settings = {
        "base_url": f"https://me:{SENTINEL}@api.example.org/v1",
        "annotators": {"a": {"model": "m"}},
    }
    with pytest.raises(UserError, match="base_url must hold no user and no password") as refused:
        load(put(smoke(), "autointerp.llm", settings))
    assert SENTINEL not in str(refused.value)
    assert connection(base_url="https://api.example.org/@org/v1").base_url.endswith("/@org/v1")


def test_what_is_there_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (
        {"key_env": "DIFFSCOPE_TEST_KEY"},
        {"key_env": ""},
        {"mode": "replay", "cache": str(tmp_path)},
    ):
        check_endpoint.check_endpoint(connection(**settings))
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("FILED_KEY_FILE", str(tmp_path / "key"))
    assert read_key("FILED_KEY") == "from-a-file"
    monkeypatch.setenv("FILED_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="FILED_KEY_FILE cannot be read"):
        read_key("FILED_KEY")


@pytest.mark.parametrize("key", ["sk-first\nsk-second", "sk-\u201cquoted\u201d", "sk-a\tb"])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_KEY", key)
    with pytest.raises(UserError, match="the key in ODD_KEY holds characters") as told:
        read_key("ODD_KEY")
    assert "sk-" not in str(told.value)


def test_a_dead_endpoint_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        url = server.url
        check_endpoint.warn_of_silence(url)
        assert capsys.readouterr().err == ""
        assert server.counters.calls + server.counters.probes == 0
    check_endpoint.warn_of_silence(url)
    err = capsys.readouterr().err
    assert "warning: nothing answers at 127.0.0.1:" in err
    assert err.count("\n") == 1


def test_keys_are_taken_out_of_messages() -> None:
    text = "Incorrect key sk-abcdef123456 with Bearer abc.def-123456 or topsecret\nline"
    clean = redact(text, "topsecret")
    for secret in ("abcdef123456", "def-123456", "topsecret"):
        assert secret not in clean
    assert "\n" not in clean
