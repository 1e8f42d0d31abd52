"""Load a model from its manifest.

Weights are read from safetensors only; code that comes with a model runs only where the manifest
says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.foreign import one_sentence
from workflow_scripts.common.manifest import Manifest, adapter_folder, model_folder
from workflow_scripts.models.adapters import merge_adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_model(
    manifest: Path, dtype: torch.dtype, device: torch.device, gpus: int = 1
) -> PreTrainedModel:
    """Return the causal language model in evaluation mode, its adapter merged.

    With several ``gpus`` its blocks are spread over them.

    Raises
    ------
    UserError
        If the folder holds no such model as safetensors, or not all of its weights, the adapter
        does not fit, weights are not finite, or there are fewer GPUs.
    """
    from transformers import AutoModelForCausalLM

    check_gpus(device, gpus)

    described = Manifest.read(manifest)
    with one_sentence(
        f"the weights of model {described.name} in {model_folder(manifest)} cannot be read",
        "give a folder with config.json and *.safetensors that fit each other",
    ):
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
    check_finite(described.name, model)
    model.eval()
    return model


def check_finite(name: str, model: PreTrainedModel) -> None:
    """Refuse weights that are no numbers, such as a diverged training leaves.

    Raises
    ------
    UserError
        Naming the first tensor with NaN or infinity.
    """
    for part, weights in model.named_parameters():
        # The extremes are NaN where any weight is, and need no copy of the weights.
        if not all(extreme.isfinite() for extreme in weights.detach().aminmax()):
            kind = str(weights.dtype).removeprefix("torch.")
            raise UserError(
                f"the weights of model {name} are not finite numbers ({part} holds NaN or infinity "
                f"in {kind}): give a checkpoint from before they diverged"
                + (", or compute in bfloat16 or float32" if kind == "float16" else "")
            )


def check_gpus(device: torch.device, gpus: int) -> None:
    """Refuse to spread a model over GPUs that are not there.

    Raises
    ------
    UserError
        If there are fewer than ``gpus``.
    """
    import torch

    available = torch.cuda.device_count() if device.type == "cuda" else 0
    if gpus > 1 and available < gpus:
        raise UserError(
            f"activations.gpus is {gpus}, but the step sees {available}: lower it, or request more"
        )
