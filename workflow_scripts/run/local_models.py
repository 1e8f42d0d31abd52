"""Checks of local models that take transformers, and warnings about them.

A run makes them once, when it starts; of a hub model, ``resolve_model`` makes them after fetching.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import log
from workflow_scripts.common.manifest import own_tokenizer, read_tokenizer
from workflow_scripts.common.provenance import library_versions
from workflow_scripts.models.architecture import check_architecture
from workflow_scripts.models.convert_gguf import check_gguf
from workflow_scripts.models.folders import read_folder, tokenizer_files
from workflow_scripts.models.settings import ModelSource
from workflow_scripts.models.weights import weight_files
from workflow_scripts.run import resources
from workflow_scripts.run.fingerprints import fingerprint
from workflow_scripts.run.plan_run import dumps, human
from workflow_scripts.run.settings import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECISIVE = ("torch", "transformers", "tokenizers")
"""Libraries of which another version may compute other activations."""


def check_weights(config: Config) -> None:
    """Check that transformers reads local models, those in folders with all of their weights."""
    for name, model in config.models.items():
        where = f"config: models.{name}"
        if model.gguf is not None:
            check_gguf(where, Path(model.gguf))
        if model.path is not None:
            folder = Path(model.path)
            found = read_folder(where, folder)
            check_architecture(where, folder, found, model.trust_remote_code)


def check_tokenizers(config: Config) -> None:
    """Check that the tokenizers of models in local folders can be read, and agree."""
    folders = {name: _tokenizer(m) for name, m in config.models.items() if m.path}
    if not folders:
        return
    from workflow_scripts.dataset.vocabularies import check_agreement

    tokenizers = {
        name: read_tokenizer(
            f"config: models.{name}", folder, config.models[name].trust_remote_code
        )
        for name, folder in folders.items()
    }
    check_agreement(tokenizers, control_tokens=config.text.control_tokens)
    for name, tokenizer in tokenizers.items():
        _warn_of_rows(config, name, tokenizer)


def _warn_of_rows(config: Config, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn where a model has no embedding for words that its tokenizer makes."""
    model = config.models[name]
    rows = read_folder(f"config: models.{name}", Path(str(model.path))).text.get("vocab_size")
    added = set(tokenizer.get_added_vocab())
    beyond = [t for t, i in tokenizer.get_vocab().items() if isinstance(rows, int) and i >= rows]
    if model.adapter is None and (words := sorted(set(beyond) - added)):
        log(
            f"warning: the tokenizer of {name} has {len(words)} tokens without a row in the "
            f"model's embedding of {rows} ({words[0]!r} …): documents with them are dropped; check "
            "whether the tokenizer is the model's"
        )


def _tokenizer(model: ModelSource) -> Path:
    """Return the folder of a local model's tokenizer: the adapter's where it brings one."""
    adapter = Path(model.adapter or "/nowhere")
    return adapter if own_tokenizer(adapter) else Path(str(model.path))


def warn_of_twins(config: Config) -> None:
    """Warn where two models are the same files, so that no difference can be found."""
    first: dict[str, str] = {}
    for name, model in config.models.items():
        if model.adapter is not None:
            continue
        if model.gguf is not None:
            files = [Path(model.gguf)]
        elif model.path is not None:
            folder = Path(model.path)
            files = [*weight_files(f"config: models.{name}", folder), *tokenizer_files(folder)]
        else:
            continue
        same = json.dumps([fingerprint(file) for file in files])
        if (other := first.setdefault(same, name)) != name:
            log(f"warning: models {other} and {name} are the same files: nothing can differ")


def warn_of_memory(config: Config) -> None:
    """Warn where a model does not fit in the memory of this machine, if it runs on its CPU."""
    device = config.activations.device
    if device == "cuda" or (device == "auto" and shutil.which("nvidia-smi")):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in config.models:
        parameters = resources.size(config, name).parameters
        needed = parameters * resources.BYTES[config.activations.compute_dtype]
        if needed > memory:
            log(
                f"warning: model {name} takes about {human(needed)} of memory in "
                f"{config.activations.compute_dtype}, this machine has {human(memory)}: set "
                "activations.compute_dtype to bfloat16, or run it elsewhere"
            )


def warn_of_libraries(config: Config, to_make: Collection[Path]) -> None:
    """Warn where a dump that is kept was made with other versions of libraries than today's.

    The files in ``to_make`` are not kept.
    """
    now = library_versions()
    for path, then in _first_dumps(config, to_make):
        if other := [lib for lib in DECISIVE if lib in then and then[lib] != now[lib]]:
            told = ", ".join(f"{lib} {then[lib]} (here {now[lib]})" for lib in other)
            log(
                f"warning: {path} was made with {told}: if results are to come from one version, "
                "delete the dumps and run again"
            )


def _first_dumps(
    config: Config, to_make: Collection[Path]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the first dump of each model and group that is kept, and the libraries it names."""
    import h5py

    from workflow_scripts.common.hdf5 import get_text

    seen = set()
    for path, (model, group, _) in dumps(config).items():
        if (model, group) in seen or path in to_make or not path.exists():
            continue
        seen.add((model, group))
        try:
            with h5py.File(path, "r") as file:
                yield path, json.loads(get_text(file, "provenance"))["libraries"]
        except (OSError, LookupError, ValueError):  # the step that reads it says what is wrong
            continue
