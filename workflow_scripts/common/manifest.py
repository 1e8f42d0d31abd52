"""The manifest of a model, ``model.json``: what it is, where its files lie, and its tokenizer.

Nothing is downloaded: the manifest names a local folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import UserError, first_line
from workflow_scripts.common.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class Manifest:
    """What ``model.json`` says; ``folder`` may be relative to the manifest."""

    name: str
    kind: str  # organism, folder or hub
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
        """Write the manifest, without the entries on adapter and training where there is none."""
        values = asdict(self)
        optional = ("adapter", "training")
        write_json(path, {k: v for k, v in values.items() if v or not k.startswith(optional)})


def model_folder(manifest: Path) -> Path:
    """Return the folder that holds the model's files."""
    return (manifest.parent / Manifest.read(manifest).folder).resolve()


def adapter_folder(manifest: Path) -> Path | None:
    """Return the folder of the model's adapter, if it has one."""
    adapter = Manifest.read(manifest).adapter
    return (manifest.parent / adapter).resolve() if adapter else None


def tokenizer_folder(manifest: Path) -> Path:
    """Return the folder that holds the tokenizer: the adapter's where it brings one."""
    adapter = adapter_folder(manifest)
    own = adapter is not None and any((adapter / name).exists() for name in TOKENIZERS)
    return adapter if adapter is not None and own else model_folder(manifest)


def load_tokenizer(manifest: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Raises
    ------
    UserError
        If the folder holds no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    described, folder = Manifest.read(manifest), tokenizer_folder(manifest)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=described.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"the tokenizer of model {described.name} in {folder} cannot be read "
            f"({first_line(error)}): put the tokenizer's files there"
        ) from None
    return tokenizer
