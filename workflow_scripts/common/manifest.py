"""The manifest of a model, ``model.json``: what it is, where its files lie, and its tokenizer.

Nothing is downloaded: the manifest names a local folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json, write_json
from workflow_scripts.common.foreign import one_sentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = ("tokenizer.json", "vocab.json")
"""Tokenizers that are read as they are; of SentencePiece models transformers gives other ids."""


@dataclass(frozen=True)
class Manifest:
    """What ``model.json`` says; ``folder`` may be relative to the manifest."""

    name: str
    kind: str  # organism, folder, hub or gguf
    folder: str
    architecture: str
    hidden_size: int
    layers: int
    vocabulary: int
    hub: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None  # folder of a LoRA adapter, relative to the manifest as ``folder``
    adapter_hub: str | None = None
    adapter_revision: str | None = None
    gguf: str | None = None  # name of the file of which the folder was made
    gguf_sha256: str | None = None
    positions: int | None = None  # tokens of the longest text that it was made for, where known
    training: dict[str, object] | None = None  # of a model trained here: what decided its weights

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises
        ------
        UserError
            If the file is missing or is no manifest.
        """
        values = read_json(path)
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            return cls(**known)
        except TypeError as error:
            raise UserError(
                f"{path} is no model manifest ({error}): delete it and run again"
            ) from None

    def write(self, path: Path) -> None:
        """Write the manifest, without the entries that not every model has."""
        values = asdict(self)
        optional = ("adapter", "gguf", "positions", "training")
        write_json(path, {k: v for k, v in values.items() if v or not k.startswith(optional)})


def model_folder(manifest: Path) -> Path:
    """Return the folder that holds the model's files."""
    return (manifest.parent / Manifest.read(manifest).folder).resolve()


def adapter_folder(manifest: Path) -> Path | None:
    """Return the folder of the model's adapter, if it has one."""
    adapter = Manifest.read(manifest).adapter
    return (manifest.parent / adapter).resolve() if adapter else None


def own_tokenizer(folder: Path) -> bool:
    """Return whether a folder brings a tokenizer."""
    return any((folder / name).exists() for name in TOKENIZERS)


def tokenizer_folder(manifest: Path) -> Path:
    """Return the folder that holds the tokenizer: the adapter's where it brings one."""
    adapter = adapter_folder(manifest)
    return adapter if adapter is not None and own_tokenizer(adapter) else model_folder(manifest)


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Raises
    ------
    UserError
        If the folder holds no tokenizer that can be read.
    """
    described = Manifest.read(manifest)
    return read_tokenizer(
        f"model {described.name}", tokenizer_folder(manifest), described.trust_remote_code
    )


def read_tokenizer(where: str, folder: Path, trust: bool) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder, with the BOS that it puts first, named or not.

    ``where`` begins the sentence of an error.

    Raises
    ------
    UserError
        If it cannot be read, or has no fast form, which token offsets need.
    """
    from transformers import AutoTokenizer

    problem = f"{where}: the tokenizer in {folder}"
    with one_sentence(f"{problem} cannot be read", "fetch or save the tokenizer's files again"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust
        )
        if not tokenizer.is_fast:
            raise UserError(
                f"{problem} has no fast form (tokenizer.json), which token offsets need: convert "
                "it with transformers"
            )
        first, plain = (
            tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False)
        )
        # Some name no BOS, but their post-processor writes one.
        if tokenizer.bos_token_id is None and first[1:] == plain:
            tokenizer.bos_token = tokenizer.convert_ids_to_tokens(first[0])
    return tokenizer
