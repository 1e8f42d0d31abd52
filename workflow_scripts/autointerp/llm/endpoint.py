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

from workflow_scripts.autointerp.llm.api_key import is_loopback, redact
from workflow_scripts.autointerp.llm.completion import (
    FILTERED,
    Completion,
    NotACompletionError,
    read_completion,
    read_error,
)

Kind = Literal["ok", "retry", "fatal", "rejected", "filtered"]
KEPT_HEADERS = ("date", "x-request-id", "openai-model", "openai-processing-ms", "server")
_DURATION = re.compile(
    r"(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,6}(?:\.\d{1,9})?)s)?(?:(\d{1,6})ms)?"
)
"""As in 1h2m3.5s or 12ms."""
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


class Endpoint:
    """A client of one endpoint. Use as an asynchronous context manager.

    The package's aiohttp transport takes two thirds of the time of its usual one with a connection
    for each call, and pools connections at no cost.
    """

    def __init__(self, base_url: str, key: str, deadline: float, connections: int) -> None:
        self.base_url = base_url
        self._key = key
        self._deadline = deadline
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=None,  # one deadline holds for the whole call
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,
                trust_env=not is_loopback(base_url),
                limits=httpx2.Limits(
                    max_connections=connections, max_keepalive_connections=connections
                ),
                event_hooks={"request": [_remove_machine]},
            ),
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, body: bytes) -> Reply:
        """Make one call within the deadline and classify its reply; never raises for a fault."""
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._client.post(
                    "/chat/completions", content=body, cast_to=httpx2.Response
                )
        except TimeoutError:
            return Reply("retry", reason=f"no answer within {self._deadline:g} s")
        except openai.APIStatusError as error:
            return self._refused(error.response)
        except Exception as error:  # of three packages, and none may leave: it may hold the key
            return Reply("retry", reason=f"connection failed ({_first_cause(error)})")
        text = response.content.decode("utf-8", errors="replace")
        try:
            completion = read_completion(text, response.status_code)
        except NotACompletionError as error:
            reason = redact(str(error), self._key)
            return Reply("retry", status=response.status_code, reason=reason)
        headers = response.headers
        return Reply(
            "ok",
            text,
            response.status_code,
            {name: headers[name] for name in KEPT_HEADERS if name in headers},
            retry_after=_time_to_reset(headers),
            completion=completion,
        )

    def _refused(self, response: httpx2.Response) -> Reply:
        text, status = response.content.decode("utf-8", errors="replace"), response.status_code
        detail = read_error(text)
        message = redact(detail.message or text, self._key)
        if status in (408, 409, 429) or status >= 500:
            if status == 429 and detail.names(_QUOTA):
                return Reply("fatal", text, status, reason=f"the quota is used up ({message})")
            wait = _retry_after(response.headers)
            if wait is None:
                wait = _time_to_reset(response.headers)
            return Reply("retry", status=status, reason=f"HTTP {status}", retry_after=wait)
        if status == FILTERED and detail.names(("content_filter",)):
            # This text is stored, though no answer needs it: it must not quote the key.
            stored = text.replace(self._key, "[key]")
            return Reply("filtered", stored, status, completion=read_completion(stored, status))
        if status in (400, 422):
            return Reply("rejected", text, status, reason=message)
        return Reply("fatal", text, status, reason=message)


async def _remove_machine(request: httpx2.Request) -> None:
    """Remove the headers by which the package describes this machine to the provider."""
    for name in [name for name in request.headers if name.startswith("x-stainless-")]:
        del request.headers[name]


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
