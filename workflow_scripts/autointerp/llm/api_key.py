"""The key of an endpoint, and how it is kept out of everything that is written."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from workflow_scripts.common.cli import UserError

_SECRET = re.compile(r"(?i)(bearer\s+|sk-)[\w.\-]{6,}")


def read_key(name: str) -> str:
    """Return the key from the environment variable ``name``, or from the file ``<name>_FILE``.

    An empty ``name`` means that the endpoint needs no key.

    Raises
    ------
    UserError
        If neither is set, the file cannot be read, or the key is none that could be sent. The key
        is never part of a message.
    """
    if not name:
        return "none"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UserError(
            "autointerp.llm.key_env must be the name of an environment variable, not the key itself"
        )
    key = os.environ.get(name, "").strip()
    path = os.environ.get(f"{name}_FILE", "")
    if not key and path:
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UserError(
                f"the key file named by {name}_FILE cannot be read: {error.strerror}"
            ) from None
    if not key:
        raise UserError(
            f"the config asks for an LLM, but the environment variable {name} holds no key: "
            f"export {name} (or {name}_FILE), or set autointerp.annotator to lexical"
        )
    return _sendable(key, name)


def _sendable(value: str, name: str) -> str:
    """Return what the variable ``name`` holds if a header can carry it."""
    if not (value.isascii() and value.isprintable()):
        raise UserError(
            f"the key in {name} holds characters that no HTTP header carries, such as a line break "
            "or a curly quote: copy it again"
        )
    return value


def read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return further headers with the values of the environment variables that they name.

    Raises
    ------
    UserError
        If a variable is not set, or holds what cannot be sent. No value is part of a message.
    """
    values = {}
    for header, name in headers.items():
        value = os.environ.get(name, "").strip()
        if not value:
            raise UserError(
                f"autointerp.llm.headers takes the header {header} from the environment variable "
                f"{name}, which is not set: export {name}"
            )
        values[header] = _sendable(value, name)
    return values


def is_loopback(base_url: str) -> bool:
    """Whether an address is on this machine, whatever its name resolves to."""
    host = urlsplit(base_url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_openai(base_url: str) -> bool:
    """Whether an address is OpenAI's own."""
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


def redact(text: str, *secrets: str) -> str:
    """Return ``text`` without secrets, on one line of at most 300 characters."""
    clean = _SECRET.sub("[key]", " ".join(without(text, *secrets).split()))
    return "".join(c if c.isprintable() else "?" for c in clean)[:300]


def without(text: str, *secrets: str) -> str:
    """Return ``text`` with a mark in place of each secret."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret and secret != "none":
            text = text.replace(secret, "[key]")
    return text
