"""Write the manifest of a model that is not trained here: a local folder, or a pinned hub commit.

Either may carry a LoRA adapter, a folder or a pinned hub commit too. Of a hub, configuration,
tokenizer and safetensors are fetched, nothing else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.common.manifest import TOKENIZERS, Manifest
from workflow_scripts.models import adapters
from workflow_scripts.models.download import fetch

INDEX = "model.safetensors.index.json"
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def check_files(name: str, folder: Path) -> None:
    """Check that a folder holds a model's configuration, safetensors and tokenizer.

    Raises
    ------
    UserError
        Naming the first thing that is missing.
    """
    if not (folder / "config.json").is_file():
        raise cli.UserError(
            f"model {name}: {folder} has no config.json: give a folder in Hugging Face format"
        )
    weights = {path.name for path in folder.glob("*.safetensors")}
    if not weights:
        pickled = any(folder.glob("*.bin"))
        told = "only pickled weights (*.bin), which may run code" if pickled else "no weights"
        raise cli.UserError(f"model {name}: {folder} has {told}: save them as safetensors")
    index = folder / INDEX
    wanted = set(files.read_json(index)["weight_map"].values()) if index.exists() else set()
    if missing := sorted(wanted - weights):
        raise cli.UserError(f"model {name}: {folder} lacks {missing[0]}: fetch it again")
    if not any((folder / file).exists() for file in TOKENIZERS):
        raise cli.UserError(
            f"model {name}: {folder} has no tokenizer: put the tokenizer's files there"
        )


def describe(
    name: str, folder: Path, hub: str | None, revision: str | None, trust: bool, output: Path
) -> Manifest:
    """Return the manifest of the model in ``folder``, as seen from ``output``.

    Raises
    ------
    UserError
        If files are missing, or transformers does not know the architecture.
    """
    check_files(name, folder)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    except (OSError, ValueError, KeyError) as error:
        raise cli.UserError(
            f"model {name}: {folder / 'config.json'} cannot be read ({cli.first_line(error)}): "
            "check the architecture, or set trust_remote_code if its code can be trusted"
        ) from None
    sizes = config.get_text_config()
    return Manifest(
        name=name,
        kind="hub" if hub else "folder",
        folder=os.path.relpath(folder.resolve(), output.parent.resolve()),
        architecture=(config.architectures or ["unknown"])[0],
        hidden_size=int(sizes.hidden_size),
        layers=int(sizes.num_hidden_layers),
        vocabulary=int(sizes.vocab_size),
        hub=hub,
        revision=revision,
        trust_remote_code=trust,
    )


def with_adapter(manifest: Manifest, adapter: str, revision: str | None, output: Path) -> Manifest:
    """Return the manifest of a model with an adapter: a folder, or a hub id at ``revision``.

    Raises
    ------
    UserError
        If the adapter is none, or cannot be had.
    """
    folder = Path(adapter) if revision is None else fetch(adapter, revision, adapters.WANTED)
    adapters.check_adapter(manifest.name, folder)
    return replace(
        manifest,
        adapter=os.path.relpath(folder.resolve(), output.parent.resolve()),
        adapter_hub=None if revision is None else adapter,
        adapter_revision=revision,
        vocabulary=adapters.embedded_tokens(folder) or manifest.vocabulary,
    )


def resolve_model(
    name: str,
    path: Path | None,
    hub: str | None,
    revision: str | None,
    trust_remote_code: bool,
    output: Path,
    adapter: str | None = None,
    adapter_revision: str | None = None,
) -> None:
    """Write ``model.json`` for the folder ``path``, or for ``hub`` at ``revision``."""
    if path is None:
        if hub is None or revision is None:
            raise cli.UserError(f"model {name} has no source: give --path, or --hub and --revision")
        path = fetch(hub, revision, [*WANTED, "*.py"] if trust_remote_code else WANTED)
    manifest = describe(name, path, hub, revision, trust_remote_code, output)
    if adapter is not None:
        manifest = with_adapter(manifest, adapter, adapter_revision, output)
    manifest.write(output)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and resolve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", type=Path, default=None, help="folder in Hugging Face format")
    parser.add_argument("--hub", default=None, help="id on the Hugging Face hub")
    parser.add_argument("--revision", default=None, help="commit, 40 hex digits")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--adapter", default=None, help="LoRA adapter: a folder, or a hub id")
    parser.add_argument("--adapter-revision", default=None, help="the adapter's commit on the hub")
    parser.add_argument("--output", type=Path, required=True, help="model.json")
    a = parser.parse_args(argv)
    source = (a.path, a.hub, a.revision, a.trust_remote_code)
    return cli.guarded(
        lambda: resolve_model(a.name, *source, a.output, a.adapter, a.adapter_revision)
    )


if __name__ == "__main__":
    raise SystemExit(main())
