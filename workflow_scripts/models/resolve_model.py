"""Write the manifest of a model that is not trained here: a local folder, or a pinned hub commit.

A hub model's files are fetched into the local cache of ``huggingface_hub`` (which honours
``HF_HOME`` and ``HF_HUB_OFFLINE``): configuration, tokenizer and safetensors, nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts import cli, files
from workflow_scripts.models.loading import Manifest

COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch(hub: str, revision: str, trust_remote_code: bool) -> Path:
    """Return the local folder of a hub model at a commit, after fetching what is missing.

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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [*WANTED, "*.py"] if trust_remote_code else list(WANTED)
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise cli.UserError(
            f"{hub} at {revision} cannot be fetched ({reason}): check the id, the commit, your "
            "access to it (HF_TOKEN) and the network"
        ) from None


def describe(
    name: str, folder: Path, hub: str | None, revision: str | None, trust: bool, output: Path
) -> Manifest:
    """Return the manifest of the model in ``folder``, as seen from ``output``.

    Raises
    ------
    UserError
        If the folder has no config.json, or it lacks a size.
    """
    config = files.read_json(folder / "config.json")
    sizes = {**config, **config.get("text_config", {})}
    missing = [n for n in ("hidden_size", "num_hidden_layers", "vocab_size") if n not in sizes]
    if missing:
        raise cli.UserError(
            f"{folder / 'config.json'} does not say {missing[0]}: it is no causal language model"
        )
    return Manifest(
        name=name,
        kind="hub" if hub else "folder",
        folder=os.path.relpath(folder.resolve(), output.parent.resolve()),
        architecture=(config.get("architectures") or ["unknown"])[0],
        hidden_size=int(sizes["hidden_size"]),
        layers=int(sizes["num_hidden_layers"]),
        vocabulary=int(sizes["vocab_size"]),
        hub=hub,
        revision=revision,
        trust_remote_code=trust,
    )


def resolve_model(
    name: str,
    path: Path | None,
    hub: str | None,
    revision: str | None,
    trust_remote_code: bool,
    output: Path,
) -> None:
    """Write ``model.json`` for the folder ``path``, or for ``hub`` at ``revision``."""
    if path is None:
        if hub is None or revision is None:
            raise cli.UserError(f"model {name} has no source: give --path, or --hub and --revision")
        path = fetch(hub, revision, trust_remote_code)
    describe(name, path, hub, revision, trust_remote_code, output).write(output)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and resolve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", type=Path, default=None, help="folder in Hugging Face format")
    parser.add_argument("--hub", default=None, help="id on the Hugging Face hub")
    parser.add_argument("--revision", default=None, help="commit, 40 hex digits")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--output", type=Path, required=True, help="model.json")
    a = parser.parse_args(argv)
    return cli.guarded(
        lambda: resolve_model(a.name, a.path, a.hub, a.revision, a.trust_remote_code, a.output)
    )


if __name__ == "__main__":
    raise SystemExit(main())
