"""Files of a hub, in the local cache of ``huggingface_hub``.

It honours ``HF_HOME`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.foreign import one_sentence

ELSEWHERE = ("consolidated*.safetensors", "*/*.safetensors")
"""The same weights in a form of other programs, as some publishers add them."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(hub: str, revision: str, patterns: Sequence[str]) -> Path:
    """Return the local folder of a hub model at a commit, after fetching what is missing.

    ``patterns`` say which files.

    Raises
    ------
    UserError
        If the revision is no commit, or the files cannot be had.
    """
    if not COMMIT.fullmatch(revision):
        raise cli.UserError(
            f"the revision {revision} of {hub} may change: give a commit (40 hex digits)"
        )
    from huggingface_hub import snapshot_download

    with one_sentence(
        f"{hub} at {revision} cannot be fetched",
        "check the id, the commit, your access to it (HF_TOKEN) and the network",
    ):
        folder = snapshot_download(
            hub, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(ELSEWHERE)
        )
        return Path(folder)
