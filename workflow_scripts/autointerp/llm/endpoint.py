"""The one place that opens a socket: a single call to an OpenAI-compatible endpoint, classified.

The `openai` package knows address, headers and transport. Its typed methods are not used: they lose
a paid text that breaks a schema, take a lasting refusal such as an exhausted quota for a passing
one, and spend more time on a body than the network does. A body is sent byte for byte as it is.
Exceptions of a call hold the key in their request, so none leaves this module.
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

Kind = Literal["ok", "retry", "busy", "fatal", "rejected", "filtered"]
KEPT_HEADERS = (b"date", b"x-request-id", b"openai-model", b"openai-processing-ms", b"server")
_DURATION = re.compile(
    r"(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,6}(?:\.\d{1,9})?)s)?(?:(\d{1,6})ms)?"
)
"""As in 1h2m3.5s or 12ms."""
_ROOM = (
    (b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    (b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
)
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
    """Seconds that the endpoint asks to wait before the next call; None: it asks for none."""
    completion: Completion | None = None
    """What the text says, if the kind is ok."""


class Endpoint:
    """A client of one endpoint. Use as an asynchronous context manager.

    The package's aiohttp transport takes two thirds of the time of its usual one with a connection
    for each call, and pools connections at no cost.
    """

    def __init__(self, base_url: str, key: str, deadline: float, connections: int) -> None:
        self.base_url = base_url
        self._key = key
        self._deadline = deadline
        self._http = openai.DefaultAioHttpClient(
            follow_redirects=False,
            trust_env=not is_loopback(base_url),
            timeout=None,  # one deadline holds for the whole call
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
        )
        client = openai.AsyncOpenAI(api_key=key, base_url=base_url, http_client=self._http)
        self._url = httpx2.URL(str(client.base_url).rstrip("/") + "/chat/completions")
        self._headers = httpx2.Headers(_needed(client))

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, body: bytes) -> Reply:
        """Make one call within the deadline and say what came of it; never raises for a fault."""
        try:
            async with asyncio.timeout(self._deadline):
                raw = await self._http.send(self._request(body))
        except TimeoutError:
            return Reply("retry", reason=f"no answer within {self._deadline:g} s")
        except Exception as error:  # of three packages, and none may leave: it may hold the key
            # The transport takes a refused connection for a time-out; its cause tells the truth.
            cause = type(error.__cause__ or error).__name__
            return Reply("retry", reason=f"connection failed ({cause})")
        text, status = raw.content.decode("utf-8", errors="replace"), raw.status_code
        if status >= 300:
            return self._refused(status, text, raw.headers)
        try:
            said = read_completion(text, status)
        except NotACompletionError as error:
            return Reply("retry", status=status, reason=redact(str(error), self._key))
        named = {name.lower(): value for name, value in raw.headers.raw}
        kept = {n.decode(): named[n].decode("latin-1") for n in KEPT_HEADERS if n in named}
        return Reply("ok", text, status, kept, retry_after=_used_up(named), completion=said)

    def _request(self, body: bytes) -> httpx2.Request:
        # As a stream a body gets no headers of its own, which takes a third of the time; aiohttp
        # adds host and length as it sends.
        stream = httpx2.ByteStream(body)
        request = httpx2.Request("POST", self._url, headers=self._headers, stream=stream)
        request.read()
        return request

    def _refused(self, status: int, text: str, headers: Mapping[str, str]) -> Reply:
        detail = read_error(text)
        message = redact(detail.message or text, self._key)
        wait = _retry_after(headers)
        if status in (408, 409, 429) or status >= 500:
            if status == 429 and detail.names(_QUOTA):
                return Reply("fatal", text, status, reason=f"the quota is used up ({message})")
            kind: Kind = "busy" if status == 429 else "retry"  # others do not tell of a rate
            return Reply(kind, status=status, reason=f"HTTP {status}", retry_after=wait)
        if status == FILTERED and detail.names(("content_filter",)):
            # This text is stored, though no answer needs it: it must not quote the key.
            return Reply("filtered", text.replace(self._key, "[key]"), status)
        if status in (400, 422):
            return Reply("rejected", text, status, reason=message)
        return Reply("fatal", text, status, reason=message)


def _needed(client: openai.AsyncOpenAI) -> dict[str, str]:
    """Return the package's headers, less those that describe this machine to the provider."""
    headers = {**client.auth_headers, **client.default_headers}
    # The package marks headers that are not to be sent by values of another type.
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str) and not name.lower().startswith("x-stainless-")
    }


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
    # The endpoint's own clock, where it tells it: this machine's may be wrong.
    now = _moment(headers, "date") or datetime.datetime.now(datetime.UTC)
    return max(0.0, (until - now).total_seconds())


def _used_up(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the seconds until calls are allowed again, where a reply says that none is left."""
    waits = []
    for remaining, reset in _ROOM:
        if headers.get(remaining) == b"0":
            waits.append(_seconds(headers.get(reset, b"").decode("latin-1")))
    return max(waits, default=None)


def _seconds(text: str) -> float:
    """Return the length of a duration such as 1h2m3.5s, 12ms or 7; 0 where it is none."""
    parts = _DURATION.fullmatch(text)
    if parts:
        told = zip(parts.groups(), (3600.0, 60.0, 1.0, 1e-3), strict=True)
        return sum(float(number) * unit for number, unit in told if number)
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,9})?", text) else 0.0


def _moment(headers: Mapping[str, str], name: str) -> datetime.datetime | None:
    """Return the date in a header, or None if there is none that can be read."""
    try:
        found = parsedate_to_datetime(headers[name])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
