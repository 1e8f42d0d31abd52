"""Content keys: the names of a run's text, models and activations in the store.

A key is a digest of everything that the content depends on: settings, source files, the digests
of the code that makes it. Two runs with equal keys share the files, whatever their names are.
The paths are in :mod:`workflow_scripts.run.paths`. The Snakefile uses this module; no step
does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.activations import VERSION
from workflow_scripts.common.provenance import PACKAGE, ROOT, code_digest
from workflow_scripts.dataset.local_files import source_files
from workflow_scripts.models.folders import ModelFolder, tokenizer_files
from workflow_scripts.models.gguf_header import read_gguf
from workflow_scripts.models.settings import ModelSource
from workflow_scripts.models.weights import read_object
from workflow_scripts.run.fingerprints import fingerprint
from workflow_scripts.run.settings import Config

BY_HAND = ("run", "tools")
IS_STEP = re.compile(r"^(def main\(|main = )", re.MULTILINE)
LABELS_OF_SOURCES = {"sources": {"__all__": {"category"}}}
"""Settings of text that are read after it is drawn."""


def digest(value: object) -> str:
    """Return a short digest of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprints(paths: Iterable[Path]) -> list[list[str]]:
    """Return name and fingerprint of each file."""
    return [[path.name, fingerprint(path)] for path in paths]


def steps() -> list[str]:
    """Return every step of the workflow, as ``stage.verb_object``."""
    stages = [file for file in (ROOT / PACKAGE).glob("*/*.py") if file.parent.name not in BY_HAND]
    modules = [file for file in sorted(stages) if IS_STEP.search(file.read_text(encoding="utf-8"))]
    return [f"{file.parent.name}.{file.stem}" for file in modules]


def step_digest(step: str) -> str:
    """Return the code digest of a step, as ``stage.verb_object``."""
    return code_digest(f"workflow_scripts.{step}")


def shards(config: Config) -> int:
    """Return the number of shards, from the budget alone."""
    return -(-config.text.tokens // config.text.shard_tokens)


def shard_tokens(config: Config, shard: int) -> int:
    """Return the tokens that a shard may hold: the last one holds the rest of the budget."""
    return min(config.text.shard_tokens, config.text.tokens - shard * config.text.shard_tokens)


def budget(config: Config, shard: int) -> int:
    """Return the tokens of the shards up to this one."""
    return min((shard + 1) * config.text.shard_tokens, config.text.tokens)


def _shard_key(config: Config, key: str, shard: int) -> str:
    """Return the key of a shard: ``key``, whatever the budget, or one of its own if it is smaller.

    So the full shards of a run are also those of a run with a larger budget.
    """
    tokens = shard_tokens(config, shard)
    return key if tokens == config.text.shard_tokens else digest([key, tokens])


def _text_key(config: Config) -> str:
    text = config.text
    files = {n: fingerprints(source_files(source)) for n, source in text.sources.items()}
    settings = text.model_dump(
        include={
            "sources",
            "shard_tokens",
            "context_length",
            "rows_per_document",
            "reserve",
            "bytes_per_token",
            "splits",
        },
        exclude=LABELS_OF_SOURCES,
    )
    return digest([settings, files, config.seed, step_digest("dataset.sample_documents")])


def documents_key(config: Config, shard: int) -> str:
    """Return the key of the documents that are drawn for a shard."""
    return _shard_key(config, _text_key(config), shard)


def tokens_key(config: Config, shard: int) -> str:
    """Return the key of a token shard."""
    template = fingerprint(Path(config.text.template)) if config.text.template else None
    depends = [
        _text_key(config),
        template,
        [tokenizer_key(config, model) for model in tokenizer_models(config)],
        tokenizer_key(config, config.text.control_tokens) if config.text.control_tokens else None,
        step_digest("dataset.tokenize_documents"),
    ]
    return _shard_key(config, digest(depends), shard)


def tokenizer_models(config: Config) -> list[str]:
    """Return one model, the first, for each different tokenizer."""
    return list(_first_models(config).values())


def control_model(config: Config) -> str | None:
    """Return which of these models has the control tokens that the text gets, if one is chosen."""
    chosen = config.text.control_tokens
    return _first_models(config)[tokenizer_key(config, chosen)] if chosen else None


def _first_models(config: Config) -> dict[str, str]:
    """Return the first model of each tokenizer, by the tokenizer's key."""
    first: dict[str, str] = {}
    for model in config.models:
        first.setdefault(tokenizer_key(config, model), root(config, model))
    return first


def root(config: Config, model: str) -> str:
    """Return the model at the start of an organism's chain of bases; it trains the tokenizer."""
    organism = config.models[model].organism
    while organism is not None and organism.base is not None:
        model = organism.base
        organism = config.models[model].organism
    return model


def tokenizer_key(config: Config, model: str) -> str:
    """Return the key of a model's tokenizer."""
    source = config.models[model]
    adapter = Path(source.adapter or "/nowhere")
    if source.gguf is not None:
        own = read_gguf(f"config: models.{model}", Path(source.gguf)).tokenizer
        code = step_digest("models.convert_gguf")
        return digest([own, fingerprints(tokenizer_files(adapter)), source.adapter_revision, code])
    if source.path is not None:
        folder = Path(source.path)
        described = ModelFolder(read_object(f"config: models.{model}", folder / "config.json"), {})
        sizes = [described.text.get("vocab_size"), described.config.get("model_type")]
        contents = [*tokenizer_files(folder), *tokenizer_files(adapter), *_code(source)]
        return digest([fingerprints(contents), sizes, source.adapter_revision])
    return model_key(config, root(config, model))


def _code(source: ModelSource) -> list[Path]:
    """Return the files of code that comes with a model in a folder, if it is trusted."""
    trusted = source.trust_remote_code and source.path is not None
    return sorted(Path(str(source.path)).rglob("*.py")) if trusted else []


def _model_files(folder: Path) -> list[Path]:
    found = {*folder.glob("*.json"), *folder.glob("*.safetensors"), *tokenizer_files(folder)}
    return sorted(found)


def model_key(config: Config, model: str) -> str:
    """Return the key of a model: its training, its files or its revision; and its adapter's."""
    source = config.models[model]
    adapter: object = [source.adapter, source.adapter_revision]
    if source.adapter is not None and source.adapter_revision is None:
        adapter = [source.adapter, fingerprints(_model_files(Path(source.adapter)))]
    if source.gguf is not None:
        return digest([converted_key(config, model), adapter, step_digest("models.resolve_model")])
    if source.path is not None:
        files = fingerprints([*_model_files(Path(source.path)), *_code(source)])
        return digest([files, adapter, source.path, step_digest("models.resolve_model")])
    if source.organism is not None:
        organism = source.organism
        base = model_key(config, organism.base) if organism.base else None
        shared = config.organism.model_dump()
        own = organism.model_dump(exclude={"base"})
        return digest([shared, own, base, step_digest("models.train_organism")])
    described = source.model_dump(exclude={"gguf"})
    return digest([described, adapter, step_digest("models.resolve_model")])


def converted_key(config: Config, model: str) -> str:
    """Return the key of the folder that is made of a model's GGUF file."""
    content = fingerprint(Path(str(config.models[model].gguf)))
    return digest([content, step_digest("models.convert_gguf")])


def dump_key(config: Config, model: str, group: str, shard: int) -> str:
    """Return the key of one model's activations at one group of layers of a shard.

    The code of ``dump_activations`` is no part of it: an edit redoes the files in place.
    """
    return digest(
        [
            VERSION,
            tokens_key(config, shard),
            model_key(config, model),
            config.layers[group],
            config.activations.model_dump(include={"dtype", "compute_dtype"}),
        ]
    )
