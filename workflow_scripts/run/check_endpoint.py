"""Check, before any work is done, that a configured LLM could be called. Sends nothing."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from workflow_scripts.autointerp.llm.api_key import is_loopback, read_key
from workflow_scripts.autointerp.llm.cache import normalise_url
from workflow_scripts.common import cli

PATIENCE = 5.0
"""Seconds that an endpoint has to take a connection."""


def check_endpoint(annotator: str, base_url: str, key_env: str, mode: str, cache: Path) -> None:
    """Do nothing for the lexical annotator; else check address and key, or the archive to replay.

    Raises
    ------
    UserError
        If the config asks for an LLM and something is missing: nothing stands in for it.
    """
    if annotator == "lexical":
        return
    if annotator != "llm":
        raise cli.UserError(f"autointerp.annotator is {annotator!r}: choose lexical or llm")
    if not base_url:
        raise cli.UserError(
            "the config asks for an LLM, but autointerp.llm.base_url is empty: "
            "name an endpoint, or set autointerp.annotator to lexical"
        )
    normalise_url(base_url)
    if mode == "replay":
        if not cache.is_dir():
            raise cli.UserError(
                f"replay needs the response cache {cache}: unpack the archive there"
            )
        return
    read_key(key_env)


def warn_of_silence(base_url: str) -> None:
    """Say so if nothing listens at an endpoint.

    The run goes on: the server may be started later, or the cache may hold every answer. Behind a
    proxy nothing can be told.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotator", required=True, help="lexical or llm")
    parser.add_argument("--base-url", default="")
    parser.add_argument("--key-env", default="")
    parser.add_argument("--mode", choices=("live", "replay"), default="live")
    parser.add_argument("--cache", type=Path, default=Path("results/llm_cache"))
    a = parser.parse_args(argv)
    return cli.guarded(lambda: check_endpoint(a.annotator, a.base_url, a.key_env, a.mode, a.cache))


if __name__ == "__main__":
    raise SystemExit(main())
