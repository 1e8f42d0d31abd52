"""The key of an endpoint, and how it is kept out of everything that is written."""

from __future__ import annotations

import os
import re
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
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the key in {name} holds characters that no HTTP header carries, such as a line break "
            "or a curly quote: copy it again"
        )
    return key


def is_loopback(base_url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def redact(text: str, key: str = "") -> str:
    """Return ``text`` without keys, on one line of at most 300 characters."""
    if key and key != "none":
        text = text.replace(key, "[key]")
    clean = _SECRET.sub("[key]", " ".join(text.split()))
    return "".join(c if c.isprintable() else "?" for c in clean)[:300]
