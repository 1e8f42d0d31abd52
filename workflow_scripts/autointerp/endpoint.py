"""The one place that opens a socket: a single call to an OpenAI-compatible endpoint, classified.

The `openai` package carries the call; its retries are off (they repeat what must not be repeated,
such as an exhausted quota) and its typed methods are not used (they lose a paid text that breaks a
schema, and spend more time on a body than the network does).
Exceptions of the package hold the key in their request, so none leaves this module.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import httpx2  # the transport of the openai package
import openai

from workflow_scripts.autointerp.answers import Exchange
from workflow_scripts.autointerp.keys import is_loopback, redact

Kind = Literal["ok", "retry", "busy", "fatal", "rejected", "filtered"]
PATH = "/chat/completions"
KEPT_HEADERS = ("date", "x-request-id", "openai-model", "openai-processing-ms", "server")
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "quota_exceeded")


@dataclass(frozen=True)
class Reply:
    """What came of one call."""

    kind: Kind
    text: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """For people; holds no secret."""
    retry_after: float | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens that the endpoint says it has counted."""

    input: int
    output: int


class NotACompletionError(Exception):
    """A body that is no chat completion, whatever its HTTP status."""


class Endpoint:
    """A client of one endpoint. Use as an asynchronous context manager.

    The package's aiohttp client takes two thirds of the time of its usual one with a connection for
    each call, and pools connections at no cost.
    """

    def __init__(self, base_url: str, key: str, deadline: float, connections: int) -> None:
        self.base_url = base_url
        self._key = key
        self._deadline = deadline
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=deadline,
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,
                trust_env=not is_loopback(base_url),
                timeout=deadline,
                limits=httpx2.Limits(
                    max_connections=connections, max_keepalive_connections=connections
                ),
            ),
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, body: Mapping[str, object]) -> Reply:
        """Make one call within the deadline and say what came of it; never raises for a fault."""
        try:
            async with asyncio.timeout(self._deadline):
                raw = await self._client.post(PATH, body=dict(body), cast_to=httpx2.Response)
                text, status = raw.text, raw.status_code
                headers = {k: v for k in KEPT_HEADERS if (v := raw.headers.get(k)) is not None}
        except TimeoutError:
            return Reply("retry", reason=f"no answer within {self._deadline:g} s")
        except openai.APITimeoutError:
            return Reply("retry", reason=f"no answer within {self._deadline:g} s")
        except openai.APIStatusError as error:
            return self._refused(
                error.status_code, error.response.text, dict(error.response.headers)
            )
        except openai.APIConnectionError as error:
            return Reply("retry", reason=f"connection failed ({type(error.__cause__).__name__})")
        except openai.OpenAIError as error:
            return Reply("fatal", reason=redact(str(error), self._key))
        try:
            read_exchange("", text, status)
        except NotACompletionError as error:
            return Reply("retry", status=status, reason=redact(str(error), self._key))
        return Reply("ok", text, status, headers)

    def _refused(self, status: int, text: str, headers: Mapping[str, str]) -> Reply:
        detail = _error_of(text)
        message = redact(detail.message or text, self._key)
        wait = _retry_after(headers)
        if status in (408, 409, 429) or status >= 500:
            if status == 429 and detail.names(_QUOTA):
                return Reply("fatal", text, status, reason=f"the quota is used up ({message})")
            kind: Kind = "busy" if status in (429, 503) else "retry"
            return Reply(kind, status=status, reason=f"HTTP {status}", retry_after=wait)
        if status == 400 and detail.names(("content_filter",)):
            return Reply("filtered", text, status)
        if status in (400, 422):
            return Reply("rejected", text, status, reason=message)
        return Reply("fatal", text, status, reason=message)


@dataclass(frozen=True)
class _Error:
    message: str = ""
    code: str = ""
    type: str = ""

    def names(self, words: tuple[str, ...]) -> bool:
        return self.code in words or self.type in words


def _error_of(text: str) -> _Error:
    try:
        value = json.loads(text)
    except ValueError:
        return _Error()
    inner = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(inner, str):
        return _Error(message=inner)
    if not isinstance(inner, dict):
        return _Error()
    return _Error(*(str(inner.get(name) or "") for name in ("message", "code", "type")))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


def read_exchange(key: str, text: str, status: int) -> Exchange:
    """Read a stored or received body.

    Raises
    ------
    NotACompletionError
        If the body is no chat completion with at least one choice that says something.
    """
    if status == 400:
        return Exchange(key, None, "content_filter")
    try:
        value = json.loads(text)
    except ValueError:
        raise NotACompletionError("the reply is no JSON") from None
    if not isinstance(value, dict):
        raise NotACompletionError("the reply is no JSON object")
    if value.get("error"):
        raise NotACompletionError(f"the reply is an error: {_error_of(text).message}")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NotACompletionError("the reply holds no choice")
    content, refusal = message.get("content"), message.get("refusal")
    finish = str(choice.get("finish_reason") or "")
    if not isinstance(content, str) and not refusal and finish not in ("length", "content_filter"):
        raise NotACompletionError("the reply holds no text")
    return Exchange(key, content if isinstance(content, str) else None, finish, refusal or None)


def read_usage(text: str) -> Usage | None:
    """Return the tokens that a body says were used, or None where it does not say."""
    try:
        usage = json.loads(text)["usage"]
        return Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    except (ValueError, KeyError, TypeError):
        return None


def read_model(text: str) -> tuple[str, str]:
    """Return the model's name and the system fingerprint that a body gives ("" where none)."""
    try:
        value = json.loads(text)
        return str(value.get("model") or ""), str(value.get("system_fingerprint") or "")
    except (ValueError, AttributeError):
        return "", ""
