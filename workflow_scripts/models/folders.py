"""Is a folder a whole model in Hugging Face format? From file names, JSON and headers alone.

Fast enough for a dry run, since nothing is imported but the standard library. Whether tensors fit
the architecture says :mod:`workflow_scripts.models.architecture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.common.cli import UserError, quoted
from workflow_scripts.common.manifest import own_tokenizer
from workflow_scripts.models.weights import (
    TensorEntry,
    check_pointer,
    read_object,
    read_tensors,
)

ADAPTER = "adapter_config.json"
GGUF_ORIGIN = "gguf.json"
"""In a folder made of a GGUF file: which file that was."""
SMALL = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
TOKENIZER_FILES = (
    "*token*",
    "*vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "chat_template*",
    "additional_chat_templates/*",
)
"""Patterns of the files that decide how a tokenizer cuts text and renders chat."""
MOST = 100_000  # layers or experts; more is damage, and building them would not end


@dataclass(frozen=True)
class ModelFolder:
    """What a folder's files say of a model: config.json, and its tensors by name."""

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]

    @property
    def text(self) -> Mapping[str, Any]:
        """The settings of the language model; of a multimodal one they are a group."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def layers(self) -> int | None:
        """The number of decoder blocks, where config.json says it."""
        return _number(self.text, LAYERS)

    @property
    def positions(self) -> int | None:
        """The longest text that the model was made for, in tokens, where config.json says it."""
        longest = _number(self.text, POSITIONS)
        rope = self.text.get("rope_parameters") or self.text.get("rope_scaling")
        if longest is None or not isinstance(rope, dict):
            return longest
        factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
        if not isinstance(factor, int | float) or not 1 < factor < MOST:
            return longest
        return max(longest, int(factor * (original if isinstance(original, int) else longest)))


def _number(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (settings.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def read_folder(where: str, folder: Path) -> ModelFolder:
    """Return what the files in ``folder`` say of a model, after checking that all are there.

    ``where`` begins each sentence: the setting or the model that names the folder.

    Raises
    ------
    UserError
        Naming the first file that is missing, damaged, a Git LFS pointer, or of another kind.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{where}: {_no_model(where, folder)}")
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"{where}: {folder} holds a LoRA adapter beside the model ({ADAPTER}): move the "
            "adapter's files to a folder of their own"
        )
    config = read_object(where, folder / "config.json")
    _check_config(where, folder, config)
    found = ModelFolder(config, read_tensors(where, folder))
    layers = found.layers
    if layers is not None and layers > len(found.tensors):
        raise UserError(
            f"{where}: {folder / 'config.json'} tells of {layers} layers, but the weights hold "
            f"only {len(found.tensors)} tensors: fetch or save both again"
        )
    check_tokenizer_files(where, folder)
    return found


def check_tokenizer_files(where: str, folder: Path) -> None:
    """Check that a folder holds the files of a tokenizer.

    Raises
    ------
    UserError
        If there is none that transformers reads as it was made, or one is a Git LFS pointer or
        damaged.
    """
    files = tokenizer_files(folder)
    for file in files:
        check_pointer(where, file)
    if not own_tokenizer(folder):
        others = [file.name for file in files if file.suffix not in (".json", ".jinja", ".txt")]
        found = (
            f" but {others[0]}, which transformers cannot turn into it exactly" if others else ""
        )
        raise UserError(
            f"{where}: {folder} has no tokenizer.json{found}: put that of the model from which it "
            "was fine-tuned there"
        )
    for name in SMALL:
        if (folder / name).is_file():
            read_object(where, folder / name)


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that decide how a tokenizer cuts text and renders chat."""
    found = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())


def _no_model(where: str, folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: check the path"
    if folder.suffix == ".gguf":
        return f"{folder} is a GGUF file: name it by gguf in place of path"
    if not (folder / ADAPTER).is_file():
        return f"{folder} is no folder of a Hugging Face model (it has no config.json): check it"
    base = read_object(where, folder / ADAPTER).get("base_model_name_or_path")
    return (
        f"{folder} is a LoRA adapter, not a model: write adapter: {folder} beside path or hub of "
        f"its base model{f', which it calls {quoted(base)}' if isinstance(base, str) else ''}"
    )


def _check_config(where: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what config.json says that no step can work with."""
    inner = config.get("text_config")
    groups = [config, inner] if isinstance(inner, dict) else [config]
    for group in groups:
        for name in ("quantization_config", "compression_config"):
            if group.get(name):
                settings = group[name]
                method = settings.get("quant_method") if isinstance(settings, dict) else settings
                raise UserError(
                    f"{where}: {folder} is quantised ({name}: {quoted(method)}): give the model "
                    "in full precision"
                )
        for name, value in group.items():
            many = isinstance(value, int | float) and not abs(value) <= MOST
            if many and ("layer" in name or "expert" in name):
                raise UserError(
                    f"{where}: {folder / 'config.json'} says {name} is {quoted(value)}: fetch or "
                    "save it again"
                )
