"""Open a model or its tokenizer from the manifest ``model.json``.

Weights are read from safetensors only; code that comes with a model runs only where the manifest
says so. Nothing is downloaded: the manifest names a local folder.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json, write_json
from workflow_scripts.models.adapters import merge_adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def add_running_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how models run."""
    parser.add_argument("--compute-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    add_device_flags(parser)


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where is computed."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)


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
            raise UserError(f"{path} is no model manifest ({error}): make it anew") from None

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


def load_model(
    manifest: Path, dtype: torch.dtype, device: torch.device, gpus: int = 1
) -> PreTrainedModel:
    """Return the causal language model in evaluation mode, its adapter merged.

    With several ``gpus`` its blocks are spread over them.

    Raises
    ------
    UserError
        If the folder holds no such model as safetensors, or not all of its weights, the adapter
        does not fit, or there are fewer GPUs.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    check_gpus(device, gpus)

    described = Manifest.read(manifest)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_folder(manifest),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=described.trust_remote_code,
            dtype=dtype,
            # Eager attention is the one kernel that implements Gemma-2's soft-capping everywhere.
            attn_implementation="eager",
            device_map="balanced" if gpus > 1 else None,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"the weights of model {described.name} in {model_folder(manifest)} cannot be read "
            f"({first_line(error)}): give a folder with config.json and *.safetensors"
        ) from None
    model: PreTrainedModel
    model, report = loaded
    # transformers fills what is missing with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights of model {described.name} in {model_folder(manifest)} lack {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}: fetch or save them again"
        )
    if gpus == 1:
        model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's signature
    if (adapter := adapter_folder(manifest)) is not None:
        model = merge_adapter(described.name, model, adapter)
    model.eval()
    return model


def check_gpus(device: torch.device, gpus: int) -> None:
    """Refuse to spread a model over GPUs that are not there.

    Raises
    ------
    UserError
        If there are fewer than ``gpus``.
    """
    import torch

    at_hand = torch.cuda.device_count() if device.type == "cuda" else 0
    if gpus > 1 and at_hand < gpus:
        raise UserError(
            f"activations.gpus is {gpus}, but the job sees {at_hand}: lower it, or ask for as many"
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
