"""Do a model's tensors fit the architecture that its config.json describes?

transformers builds the model and loads the tensors by its own rules (renamed, tied and ignored ones
included), but on torch's ``meta`` device, where a tensor has a name and a shape and no values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common.cli import UserError, log
from workflow_scripts.common.foreign import one_sentence
from workflow_scripts.models.folders import ModelFolder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

GENERATION = "generation_config.json"
BLOCK = re.compile(r"\.\d+\.")
TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_architecture(where: str, folder: Path, trust: bool) -> PretrainedConfig:
    """Return transformers' reading of a folder's config.json.

    Raises
    ------
    UserError
        If transformers does not know the architecture, or the values do not fit it.
    """
    from transformers import AutoConfig

    with one_sentence(
        f"{where}: {folder / 'config.json'} cannot be read",
        "check the architecture, or set trust_remote_code if its code can be trusted",
    ):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust
        )
        sizes = config.get_text_config()
        for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
            value = getattr(sizes, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}")
        if not all(isinstance(name, str) for name in config.architectures or ()):
            raise ValueError(f"architectures is {config.architectures!r}")
        return config


def check_architecture(where: str, folder: Path, found: ModelFolder, trust: bool) -> None:
    """Check that the weights are those of the architecture: names, shapes, none missing.

    A model with code of its own is left to that code.

    Raises
    ------
    UserError
        Naming the first tensor that is missing, has another shape, or is of a block that has none.
    """
    config = read_architecture(where, folder, trust)
    if trust and "auto_map" in found.config:
        return
    from transformers import GenerationConfig

    with one_sentence(f"{where}: {folder / GENERATION} cannot be read", "correct it, or delete it"):
        if (folder / GENERATION).is_file():
            GenerationConfig.from_pretrained(folder, local_files_only=True)
    with one_sentence(
        f"{where}: no model can be built from {folder / 'config.json'}",
        "fetch or save it again, or check which model it describes",
    ):
        report = _load_report(config, found)
    _refuse(where, folder, config, found, report)


def _load_report(config: PretrainedConfig, found: ModelFolder) -> Mapping[str, Any]:
    """Return what transformers says of the tensors that it loads."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    tensors: dict[str, Tensor] = {
        name: torch.empty(entry.shape, dtype=getattr(torch, TYPES[entry.dtype]), device="meta")
        for name, entry in found.tensors.items()
        if entry.dtype in TYPES
    }
    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)  # its own report is a table of all names
    logging.disable_progress_bar()
    try:
        with torch.device("meta"):
            kind: Any = type(AutoModelForCausalLM.from_config(config))
        _, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    return dict(report)


def _refuse(
    where: str,
    folder: Path,
    config: PretrainedConfig,
    found: ModelFolder,
    report: Mapping[str, Any],
) -> None:
    unknown = sorted(name for name in report["unexpected_keys"])
    for name, given, expected in sorted(report["mismatched_keys"], key=str):
        words = "vocab_size" if _rows_only(given, expected) else "the sizes"
        raise UserError(
            f"{where}: {name} in {folder} has the shape {list(given)}, but config.json asks for "
            f"{list(expected)}: correct {words} in config.json, or fetch both again"
        )
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        extra = f" (they hold {unknown[0]}, which it does not know)" if unknown else ""
        remedy = "fetch or save them again"
        if missing == ["lm_head.weight"] and not config.get_text_config().tie_word_embeddings:
            remedy = (
                "save the model with its head, or set tie_word_embeddings to true in config.json "
                "if the embedding is its head"
            )
        raise UserError(
            f"{where}: the weights in {folder} lack {missing[0]}{more}, which config.json asks "
            f"for{extra}: {remedy}"
        )
    if further := _of_blocks(unknown, found):
        raise UserError(
            f"{where}: the weights in {folder} hold {further[0]}, which the model of config.json "
            f"lacks (a {config.model_type} of {found.layers} layers): fetch or save both again"
        )
    if unknown:
        log(f"warning: {where}: {unknown[0]} in {folder} is no part of the model: it is not read")


def _of_blocks(unknown: Sequence[str], found: ModelFolder) -> list[str]:
    """Return which tensors are of the model's own blocks, or of further ones beside them.

    Single numbers and causal masks are no weights: old checkpoints of GPT-2 and others hold some.
    """
    read = found.tensors.keys() - set(unknown)
    blocks = {name[: match.start()] for name in read if (match := BLOCK.search(name))}
    weights = [name for name in unknown if not _is_buffer(found.tensors[name].shape)]
    return [n for n in weights if (match := BLOCK.search(n)) and n[: match.start()] in blocks]


def _is_buffer(shape: Sequence[int]) -> bool:
    """Return whether a shape is that of a single number or a causal mask, [1, 1, n, n]."""
    return not shape or (len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3])


def _rows_only(given: Any, expected: Any) -> bool:
    """Return whether two shapes of a matrix differ in the number of rows alone."""
    return len(given) == len(expected) == 2 and given[1] == expected[1]
