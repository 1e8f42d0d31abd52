"""Write the manifest of a model that is not trained here: a local folder, or a pinned hub commit.

Either may carry a LoRA adapter, a folder or a pinned hub commit too. Of a hub, configuration,
tokenizer and safetensors are fetched, nothing else.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.common.manifest import TOKENIZERS, Manifest
from workflow_scripts.models import adapters
from workflow_scripts.models.download import fetch
from workflow_scripts.models.settings import ModelFiles

INDEX = "model.safetensors.index.json"
PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


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
        problem = "only pickled weights (*.bin), which may run code" if pickled else "no weights"
        raise cli.UserError(f"model {name}: {folder} has {problem}: save them as safetensors")
    index = folder / INDEX
    needed = set(files.read_json(index)["weight_map"].values()) if index.exists() else set()
    if missing := sorted(needed - weights):
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
    folder = Path(adapter) if revision is None else fetch(adapter, revision, adapters.PATTERNS)
    adapters.check_adapter(manifest.name, folder)
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
    if source.adapter is not None:
        manifest = with_adapter(manifest, source.adapter, source.adapter_revision, output)
    manifest.write(output)


main = cli.command(resolve_model)


if __name__ == "__main__":
    raise SystemExit(main())
