"""Write the manifest of a model that is not trained here: a local folder, or a pinned hub commit.

A folder may have been made of a GGUF file (:mod:`workflow_scripts.models.convert_gguf`).

Either may carry a LoRA adapter, a folder or a pinned hub commit too. Of a hub, configuration,
tokenizer and safetensors are fetched, nothing else.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.common.manifest import Manifest
from workflow_scripts.models import adapters
from workflow_scripts.models.architecture import check_architecture, read_architecture
from workflow_scripts.models.download import fetch
from workflow_scripts.models.folders import GGUF_ORIGIN, read_folder
from workflow_scripts.models.settings import ModelFiles
from workflow_scripts.models.weights import read_tensors

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")


def describe(
    name: str, folder: Path, hub: str | None, revision: str | None, trust: bool, output: Path
) -> Manifest:
    """Return the manifest of the model in ``folder``, as seen from ``output``.

    Raises
    ------
    UserError
        If files are missing or damaged, transformers does not know the architecture, or the weights
        are not its.
    """
    where = f"model {name}"
    found = read_folder(where, folder)
    check_architecture(where, folder, found, trust)
    config = read_architecture(where, folder, trust)
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
        positions=found.positions,
    )


def with_adapter(
    manifest: Manifest, base: Path, adapter: str, revision: str | None, output: Path
) -> Manifest:
    """Return the manifest of a model with an adapter: a folder, or a hub id at ``revision``.

    ``base`` is the folder of the model without it.

    Raises
    ------
    UserError
        If the adapter is none, does not fit, or cannot be had.
    """
    folder = Path(adapter) if revision is None else fetch(adapter, revision, adapters.PATTERNS)
    adapters.check_adapter(manifest.name, folder)
    adapters.check_fit(manifest.name, folder, read_tensors(f"model {manifest.name}", base))
    return replace(
        manifest,
        adapter=os.path.relpath(folder.resolve(), output.parent.resolve()),
        adapter_hub=None if revision is None else adapter,
        adapter_revision=revision,
        vocabulary=adapters.embedded_tokens(folder) or manifest.vocabulary,
    )


def resolve_model(name: str, source: ModelFiles, output: Path) -> None:
    """Write ``model.json`` for a folder, or for a hub model after fetching it.

    Parameters
    ----------
    name
        name of the model
    output
        model.json to write

    Raises
    ------
    UserError
        If there is no source, files are missing, or the hub does not give them.
    """
    trust = source.trust_remote_code
    if source.path is not None:
        path = Path(source.path)
    elif source.hub is not None and source.revision is not None:
        path = fetch(source.hub, source.revision, [*PATTERNS, "*.py"] if trust else PATTERNS)
    else:
        raise cli.UserError(f"model {name} has no source: give --path, or --hub and --revision")
    manifest = describe(name, path, source.hub, source.revision, trust, output)
    if (path / GGUF_ORIGIN).is_file():
        origin = files.read_json(path / GGUF_ORIGIN)
        manifest = replace(manifest, kind="gguf", gguf=origin["file"], gguf_sha256=origin["sha256"])
    if source.adapter is not None:
        manifest = with_adapter(manifest, path, source.adapter, source.adapter_revision, output)
    manifest.write(output)


main = cli.command(resolve_model)


if __name__ == "__main__":
    raise SystemExit(main())
