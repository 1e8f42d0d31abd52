"""Check, before any work is done, that a configured LLM could be called. Sends nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from workflow_scripts.autointerp.llm.api_key import is_loopback, read_headers, read_key
from workflow_scripts.autointerp.llm.cache import normalise_url
from workflow_scripts.autointerp.settings import Connection
from workflow_scripts.common import cli

PATIENCE = 5.0
"""Seconds that an endpoint has to take a connection."""


NO_HEADERS: dict[str, str] = {}


def check_endpoint(llm: Connection, headers: Mapping[str, str] = NO_HEADERS) -> None:
    """Check address, key and headers of an endpoint, or that the answers to replay are there.

    Raises
    ------
    UserError
        If something is missing: nothing stands in for it.
    """
    if not llm.base_url:
        raise cli.UserError(
            "the config asks for an LLM, but autointerp.llm.base_url is empty: "
            "name an endpoint, or set autointerp.annotator to lexical"
        )
    normalise_url(llm.base_url)
    if llm.mode == "replay":
        if not Path(llm.cache).is_dir():
            raise cli.UserError(
                f"replay needs the response cache {llm.cache}: unpack the archive there"
            )
        return
    read_key(llm.key_env)
    read_headers(headers)


def warn_of_silence(base_url: str) -> None:
    """Say so if nothing listens at an endpoint.

    The run goes on: the server may be started later, or the cache may hold every answer. Behind a
    proxy this cannot be known.
    """
    url = urlsplit(normalise_url(base_url))
    if getproxies() and not is_loopback(base_url):
        return
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    try:
        socket.create_connection((str(url.hostname), port), PATIENCE).close()
    except OSError as error:
        cli.log(
            f"warning: nothing answers at {url.netloc} ({error.strerror or error}): start the "
            "server or correct autointerp.llm.base_url, unless the cache holds every answer"
        )
