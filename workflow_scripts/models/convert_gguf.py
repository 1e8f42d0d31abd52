"""Write the model of a GGUF file as a folder in Hugging Face format: its weights are dequantised.

transformers reads the file, with the package `gguf`. What quantisation did to the weights stays in
them; they are stored in a type that holds them exactly.
"""

from __future__ import annotations

import hashlib
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.common import cli, files
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.foreign import one_sentence
from workflow_scripts.models.folders import GGUF_ORIGIN
from workflow_scripts.models.gguf_header import GgufFile, read_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROTARY = "rope_freqs.weight"
"""A tensor that transformers passes over."""


def check_gguf(where: str, path: Path) -> None:
    """Check that transformers reads a GGUF file's architecture, without reading its weights.

    Raises
    ------
    UserError
        If it does not.
    """
    from transformers import AutoConfig

    found = read_gguf(where, path)
    with _explained(where, path, found):
        AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if ROTARY in found.tensors:
        cli.log(
            f"warning: {where}: transformers does not read {ROTARY} in {path}, by which "
            "rotary positions are scaled (Llama 3.1 and later): the model computes a little else "
            "than the original, more so over long distances"
        )


def _explained(where: str, path: Path, found: GgufFile) -> Any:
    return one_sentence(
        f"{where}: transformers cannot read {path}, a GGUF file of the architecture "
        f"{found.architecture}",
        "give the model as a folder in Hugging Face format",
    )


def load_gguf(where: str, path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model in a GGUF file, dequantised, and its tokenizer.

    Raises
    ------
    UserError
        If transformers does not read it, or not all weights of the architecture are there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    found = read_gguf(where, path)
    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)  # it would warn that weights are better kept packed
    logging.disable_progress_bar()
    try:
        with _explained(where, path, found):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                local_files_only=True,
                dtype=getattr(torch, found.dtype),
                output_loading_info=True,
            )
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    model, report = loaded
    # All weights are dense, but transformers would not save what it holds for quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{where}: {path} lacks {missing[0]}, which its architecture {found.architecture} "
            "needs: give the model as a folder in Hugging Face format"
        )
    return model, tokenizer


def convert_gguf(gguf: Path, output_dir: Path) -> None:
    """Write configuration, weights as safetensors, tokenizer and chat template of a GGUF file.

    Parameters
    ----------
    gguf
        file of one language model with its tokenizer
    output_dir
        folder to write

    Raises
    ------
    UserError
        If the file is damaged, or transformers does not read it.
    """
    where = f"the model in {gguf.name}"
    model, tokenizer = load_gguf(where, gguf)
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output_dir, max_shard_size="100TB")
    tokenizer.save_pretrained(output_dir)
    files.write_json(output_dir / GGUF_ORIGIN, {"file": gguf.name, "sha256": digest})


main = cli.command(convert_gguf)


if __name__ == "__main__":
    raise SystemExit(main())
