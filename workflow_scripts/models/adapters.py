"""LoRA adapters, the usual output of fine-tuning: merged into the base model's weights.

An adapter is a folder in the format of ``peft``: adapter_config.json and safetensors. It may bring
its own tokenizer, and embeddings of the turn tokens that it added.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.foreign import one_sentence
from workflow_scripts.models.weights import TensorEntry, read_header, read_object

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PATTERNS = (
    "adapter_*.json",
    "adapter_*.safetensors",
    "*token*",
    "*vocab*",
    "*.jinja",
    "merges.txt",
)
RETRAINED = ("modules_to_save", "original_module")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in")
"""Names of the token embeddings in the architectures of transformers."""


def check_adapter(name: str, folder: Path) -> None:
    """Check that a folder holds a LoRA adapter as safetensors.

    Raises
    ------
    UserError
        Naming the first thing that is missing or of another kind.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"model {name}: the adapter {folder} has no {CONFIG}: give a folder that peft saved"
        )
    if not (folder / WEIGHTS).is_file():
        pickled = any(folder.glob("adapter_model.bin"))
        weights = "only pickled weights (*.bin), which may run code" if pickled else "no weights"
        raise UserError(
            f"model {name}: the adapter {folder} has {weights}: save them as safetensors"
        )
    read_header(f"model {name}", folder / WEIGHTS)
    kind = read_object(f"model {name}", folder / CONFIG).get("peft_type")
    if kind != "LORA":
        raise UserError(
            f"model {name}: the adapter {folder} is of the type {kind}, not LORA: merge it into "
            "its base model and give that folder"
        )


def check_fit(name: str, folder: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Check that an adapter's matrices have the sizes of those in its base model's ``tensors``.

    Raises
    ------
    UserError
        Naming the first that has other ones.
    """
    header = read_header(f"model {name}", folder / WEIGHTS)
    for key, entry in header.items():
        part, found, _ = key.removeprefix("base_model.model.").partition(".lora_")
        base = tensors.get(f"{part}.weight")
        if not found or base is None or len(entry.shape) != 2 or "embedding" in key:
            continue
        size = entry.shape[1 if "lora_A" in key else 0]
        if size not in base.shape:
            raise UserError(
                f"model {name}: the adapter {folder} does not fit its base model ({key} is made "
                f"for {size}, {part} is {list(base.shape)}): check which model it was trained on"
            )


def embedded_tokens(folder: Path) -> int | None:
    """Return the rows of the embedding that an adapter brings; None where it brings none."""
    rows = [
        entry.shape[0]
        for name, entry in read_header("the adapter", folder / WEIGHTS).items()
        if not any(part in name for part in ("lora_", "trainable_tokens")) and _embeds(name)
    ]
    return max(rows, default=None)


def _embeds(name: str) -> bool:
    return any(f".{embedding}." in name for embedding in EMBEDDINGS)


def merge_adapter(name: str, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return the model with the adapter's weights added to its own.

    Raises
    ------
    UserError
        If the adapter does not fit the model, or is damaged.
    """
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    with one_sentence(
        f"model {name}: the adapter {folder} does not fit its base model",
        "check which model it was trained on",
    ):
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
        rows = embedded_tokens(folder)
        if rows is not None and rows != cast(Any, model.get_input_embeddings()).num_embeddings:
            model.resize_token_embeddings(rows, mean_resizing=False)
        config = PeftConfig.from_pretrained(str(folder))
        adapted = PeftModel(model, config, autocast_adapter_dtype=False)
        result: Any = set_peft_model_state_dict(adapted, weights)
        # peft writes retrained modules (embeddings) several times, under names that it passes over.
        lacking = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
        strange = [key for key in result.unexpected_keys if not any(m in key for m in RETRAINED)]
        if alone := sorted([*strange, *lacking]):
            raise ValueError(f"{alone[0]} is in one of them only")
        merged = cast(Any, adapted).merge_and_unload(safe_merge=True)
    return cast("PreTrainedModel", merged)
