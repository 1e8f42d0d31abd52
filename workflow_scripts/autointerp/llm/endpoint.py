"""The one place that opens a socket: a single call to an OpenAI-compatible endpoint, classified.

A body is sent byte for byte as it is stored, and the reply is read as text: the typed methods of
the `openai` package lose a paid text that breaks a schema, and take twice the time. Exceptions of
a call hold the key in their request, so none leaves this module.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx2  # the transport of the openai package
import openai

from workflow_scripts.autointerp.llm.api_key import is_loopback, is_openai, redact, without
from workflow_scripts.autointerp.llm.completion import (
    FILTERED,
    Completion,
    ErrorDetail,
    NotACompletionError,
    read_completion,
    read_error,
)
from workflow_scripts.common.cli import UserError

Kind = Literal["ok", "retry", "fatal", "rejected", "filtered"]
KEPT_HEADERS = ("date", "x-request-id", "openai-model", "openai-processing-ms", "server")
_DURATION = re.compile(
    r"(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,6}(?:\.\d{1,9})?)s)?(?:(\d{1,6})ms)?"
)
"""As in 1h2m3.5s or 12ms."""
LEAST_SECRET = 8
"""Characters from which on a key or a header's value is taken out of replies: shorter ones are
dummies for servers without keys, and occur in any text."""
LOADING = 503
"""Status of a server whose model is not loaded yet; its message says so."""
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "quota_exceeded")


@dataclass(frozen=True)
class Reply:
    """What came of one call; of a kind `retry`, the same call may succeed later."""

    kind: Kind
    text: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """For people; holds no secret."""
    retry_after: float | None = None
    """Seconds that the endpoint asks to wait before the next call; None: it asks for none."""
    completion: Completion | None = None
    """What the text says, if the kind is ok or filtered."""
    timed_out: bool = False
    loading: bool = False
    """Whether the server says that it loads its model."""


class Endpoint:
    """A client of one endpoint. Use as an asynchronous context manager.

    The package's aiohttp transport takes two thirds of the time of its usual one with a connection
    for each call, and pools connections at no cost.
    """

    def __init__(
        self, base_url: str, key: str, connections: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self.base_url = base_url
        values = (key, *(headers or {}).values())
        self._secrets = [value for value in values if len(value) >= LEAST_SECRET]
        remove = _remove_machine if is_openai(base_url) else _remove_machine_and_account
        try:
            transport = openai.DefaultAioHttpClient(
                follow_redirects=False,
                trust_env=not is_loopback(base_url),
                limits=httpx2.Limits(
                    max_connections=connections, max_keepalive_connections=connections
                ),
                event_hooks={"request": [remove]},
            )
            self._client = openai.AsyncOpenAI(
                api_key=key,
                base_url=base_url,
                max_retries=0,
                timeout=None,  # one deadline holds for the whole call
                default_headers=headers,
                http_client=transport,
            )
        except Exception as error:  # of three packages; they read proxies and certificates
            raise UserError(
                f"no connection to {base_url} can be prepared ({_first_cause(error)}): check the "
                "environment's proxy and certificate variables, such as HTTPS_PROXY"
            ) from None

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, body: bytes, deadline: float) -> Reply:
        """Make one call within so many seconds and classify its reply; raises for no fault."""
        try:
            async with asyncio.timeout(deadline):
                response = await self._client.post(
                    "/chat/completions", content=body, cast_to=httpx2.Response
                )
        except TimeoutError:
            return Reply("retry", reason=f"no answer within {deadline:g} s", timed_out=True)
        except openai.APIStatusError as error:
            return self._refused(error.response)
        except Exception as error:  # of three packages, and none may leave: it may hold the key
            return Reply("retry", reason=f"connection failed ({_first_cause(error)})")
        text = without(response.content.decode("utf-8", errors="replace"), *self._secrets)
        try:
            completion = read_completion(text, response.status_code)
        except NotACompletionError as error:
            return self._failed(error, response)
        headers = response.headers
        return Reply(
            "ok",
            text,
            response.status_code,
            {name: headers[name] for name in KEPT_HEADERS if name in headers},
            retry_after=_time_to_reset(headers),
            completion=completion,
        )

    def _failed(self, error: NotACompletionError, response: httpx2.Response) -> Reply:
        """Classify a body that is no completion: by the code of the error that it holds."""
        reason = redact(str(error), *self._secrets)
        code = int(error.detail.code) if error.detail.code in _CODES else response.status_code
        if error.detail.names(_QUOTA) or code in (401, 402, 403, 404):
            return Reply("fatal", status=code, reason=_quota(error.detail, code, reason))
        wait = _time_to_reset(response.headers)
        return Reply("retry", status=code, reason=reason, retry_after=wait)

    def _refused(self, response: httpx2.Response) -> Reply:
        text, status = response.content.decode("utf-8", errors="replace"), response.status_code
        detail = read_error(text)
        message = redact(detail.message or text, *self._secrets)
        if status == 402 or (status == 429 and detail.names(_QUOTA)):
            return Reply("fatal", text, status, reason=_quota(detail, 402, message))
        if status == LOADING and "loading" in message.lower():
            return Reply("retry", status=status, reason=message, loading=True)
        if status in (408, 409, 425, 429) or status >= 500:
            wait = _retry_after(response.headers)
            if wait is None:
                wait = _time_to_reset(response.headers)
            return Reply("retry", status=status, reason=f"HTTP {status}", retry_after=wait)
        if status == FILTERED and detail.names(("content_filter",)):
            # This text is stored, though no answer needs it: it must not quote the key.
            stored = without(text, *self._secrets)
            return Reply("filtered", stored, status, completion=read_completion(stored, status))
        if status in (400, 422):
            return Reply("rejected", text, status, reason=message)
        return Reply("fatal", text, status, reason=message)


_CODES = ("401", "402", "403", "404", "429")
"""Codes of errors within a body that mean what they mean as a status."""


def _quota(detail: ErrorDetail, code: int, message: str) -> str:
    used_up = code == 402 or detail.names(_QUOTA)
    return f"the quota is used up ({message})" if used_up else message


async def _remove_machine(request: httpx2.Request) -> None:
    """Remove the headers by which the package describes this machine to the provider."""
    for name in [name for name in request.headers if name.startswith("x-stainless-")]:
        del request.headers[name]


async def _remove_machine_and_account(request: httpx2.Request) -> None:
    """Remove an OpenAI account's names too, which the package reads from the environment."""
    await _remove_machine(request)
    for name in ("openai-organization", "openai-project"):
        request.headers.pop(name, None)


def _first_cause(error: BaseException) -> str:
    """Return the kind of error at the bottom: the transport calls a refused connection slow."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a reply asks to wait: a number of them, or until a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait):
            return max(0.0, wait)
    until = _moment(headers, "retry-after")
    if until is None:
        return None
    # The endpoint's own clock, where it says so: this machine's may be wrong.
    now = _moment(headers, "date") or datetime.datetime.now(datetime.UTC)
    return max(0.0, (until - now).total_seconds())


def _time_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until calls are allowed again, where a reply says that none is left."""
    waits = [
        _seconds(headers.get(f"x-ratelimit-reset-{unit}", ""))
        for unit in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{unit}") == "0"
    ]
    return max(waits, default=None)


def _seconds(text: str) -> float:
    """Return the length of a duration such as 1h2m3.5s, 12ms or 7; 0 where it is none."""
    parts = _DURATION.fullmatch(text)
    if parts:
        pairs = zip(parts.groups(), (3600.0, 60.0, 1.0, 1e-3), strict=True)
        return sum(float(number) * unit for number, unit in pairs if number)
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,9})?", text) else 0.0


def _moment(headers: Mapping[str, str], name: str) -> datetime.datetime | None:
    """Return the date in a header, or None if there is none that can be read."""
    try:
        moment = parsedate_to_datetime(headers[name])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
