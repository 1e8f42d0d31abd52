"""Checks of a run's settings against each other and against files, before any work.

Each raises a UserError with one sentence that names the culprit and the mend.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labels import LEXICAL, TRUE
from workflow_scripts.crosscoder.settings import Fit
from workflow_scripts.dataset.local_files import matches, patterns
from workflow_scripts.dataset.settings import FileSource
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES
from workflow_scripts.models.settings import ModelSource
from workflow_scripts.paper.published import read_study
from workflow_scripts.run.settings import Config

ORIGINS = {"organism", "path", "hub"}


def check_models(config: Config) -> None:
    """Check that each model has one source, and the sources of the trained ones."""
    if len(config.models) < 1:
        raise UserError("config: models is empty: name at least two models")
    for name, model in config.models.items():
        given = sorted(ORIGINS & set(_given(model)))
        if len(given) != 1:
            raise UserError(
                f"config: models.{name} has {' and '.join(given) or 'no source'}: "
                "give exactly one of organism, path and hub"
            )
        if model.hub is not None and model.revision is None:
            raise UserError(
                f"config: models.{name} has no revision: give the commit of {model.hub} "
                "(40 hex digits)"
            )
        if model.hub is None and model.revision is not None:
            raise UserError(f"config: models.{name}.revision only goes with hub: delete it")
        _check_adapter(name, model)
        if model.organism is not None:
            _check_organism(config, name)


def _check_adapter(name: str, model: ModelSource) -> None:
    where = f"config: models.{name}"
    if model.adapter is None:
        if model.adapter_revision is not None:
            raise UserError(f"{where}.adapter_revision only goes with adapter: delete it")
        return
    if model.organism is not None:
        raise UserError(f"{where} has organism and adapter: adapters go with path or hub only")
    folder = Path(model.adapter)
    if model.adapter_revision is None and not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{where}.adapter: {model.adapter} is no folder with an adapter_config.json: correct "
            "it, or give adapter_revision, the commit of an adapter on the hub (40 hex digits)"
        )


def _given(model: BaseModel) -> list[str]:
    return [name for name, value in model if value is not None]


def _check_organism(config: Config, name: str) -> None:
    organism = config.models[name].organism
    assert organism is not None
    known = PLAIN_CATEGORIES + CHAT_CATEGORIES
    preferred = (organism.simpo.categories if organism.simpo else None) or ()
    for where, categories, allowed in (
        ("teach", organism.teach, known),
        ("simpo.categories", preferred, CHAT_CATEGORIES),
    ):
        for category in categories:
            if category not in allowed:
                raise UserError(
                    f"config: models.{name}.organism.{where} names the unknown category "
                    f"{category}: use some of {', '.join(allowed)}"
                )
    if organism.base is None and not organism.teach:
        raise UserError(f"config: models.{name}.organism.teach is empty: teach it something")
    chain, base = [name], organism.base
    while base is not None:
        parent = config.models.get(base)
        if parent is None or parent.organism is None:
            raise UserError(
                f"config: models.{chain[-1]}.organism.base names {base}, which is no organism "
                "among the models: define it or correct the name"
            )
        if base in chain:
            raise UserError(f"config: models.{name} has itself as base ({' from '.join(chain)})")
        chain.append(base)
        base = parent.organism.base


def check_text(config: Config) -> None:
    """Check that there are sources, and their files."""
    if not config.text.sources:
        raise UserError("config: text.sources is empty: name at least one source")
    for name, source in config.text.sources.items():
        if isinstance(source, FileSource):
            _check_files(f"config: text.sources.{name}", source)


def check_splits(config: Config) -> None:
    """Check the template, the sizes of rows and shards, and the splits."""
    text = config.text
    for name, share in text.splits:
        if share == 0:
            raise UserError(f"config: text.splits.{name} is 0: every split is needed")
    if text.template is not None and not Path(text.template).is_file():
        raise UserError(f"config: text.template: {text.template} does not exist: check the path")
    if text.context_length > text.shard_tokens:
        raise UserError(
            f"config: text.context_length is {text.context_length}, above text.shard_tokens "
            f"{text.shard_tokens}: make shards at least as long as a document"
        )


def _check_files(where: str, source: FileSource) -> None:
    for pattern in patterns(source):
        files = matches(pattern)
        if not files:
            raise UserError(f"{where}.path: {pattern} does not exist: check the path")
        if all(_is_empty(path) for path in files):
            raise UserError(f"{where}.path: {pattern} is empty: it holds no documents")


def _is_empty(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            if block.strip():
                return False
    return True


def check_fits(config: Config) -> None:
    """Check each fit's models, layer and sizes."""
    dumped = sorted({layer for layers in config.layers.values() for layer in layers})
    if not config.fits:
        raise UserError("config: there is no fit: name at least two models, or give `fits`")
    for name, fit in config.fits.items():
        where = f"config: fits.{name}"
        for model in fit.models:
            if model not in config.models:
                raise UserError(
                    f"{where} names the unknown model {model}: use some of "
                    f"{', '.join(config.models)}"
                )
        if len(set(fit.models)) < len(fit.models):
            raise UserError(f"{where}.models names a model twice: give each once")
        if fit.control is not None and len(fit.models) != 2:
            raise UserError(
                f"{where}.control is {fit.control}, but the fit has {len(fit.models)} models: "
                "controls are fits of two"
            )
        if fit.layer not in dumped:
            raise UserError(
                f"{where}.layer is {fit.layer}, which no group in `layers` dumps: add it there "
                f"or use one of {', '.join(map(str, dumped))}"
            )
        _check_imported(where, fit)
        check_training(where, fit)


def _check_imported(where: str, fit: Fit) -> None:
    found = fit.imported
    if found is None:
        return
    given = sorted({"path", "hub"} & set(_given(found)))
    if len(given) != 1:
        told = " and ".join(given) or "no source"
        raise UserError(f"{where}.imported has {told}: give exactly one of path and hub")
    if (found.hub is None) != (found.revision is None):
        raise UserError(
            f"{where}.imported: hub and revision, its commit (40 hex digits), go together"
        )
    if found.path is not None and not (Path(found.path) / "model.safetensors").is_file():
        raise UserError(
            f"{where}.imported.path: {found.path} is no folder with a model.safetensors: correct it"
        )
    if len(fit.seeds) != 1 or fit.control is not None:
        raise UserError(f"{where} is imported: give it one seed and no control")


def check_training(where: str, fit: Fit) -> None:
    """Check that the settings of a fit go together; ``where`` names it in errors."""
    if fit.k > fit.dictionary_size:
        raise UserError(
            f"{where}.k is {fit.k}, above dictionary_size {fit.dictionary_size}: "
            "lower k or raise dictionary_size"
        )
    if (fit.variant == "l1") != (fit.l1_price > 0):
        raise UserError(
            f"{where}.l1_price is {fit.l1_price:g} and variant {fit.variant}: "
            "variant l1 needs a price above 0, the others none"
        )
    if fit.batch % fit.processes:
        raise UserError(
            f"{where}.processes is {fit.processes}, which does not divide the batch of "
            f"{fit.batch}: change one of them"
        )
    if fit.tokens < fit.batch:
        raise UserError(
            f"{where}.tokens is {fit.tokens}, less than one batch of {fit.batch}: raise it"
        )
    if len(set(fit.seeds)) < len(fit.seeds):
        raise UserError(f"{where}.seeds names a seed twice: give each once")


def check_comparisons(config: Config) -> None:
    """Check that each side of a comparison names a fit and one of its models."""
    leaderboard = config.comparison.leaderboard
    if leaderboard is not None and not Path(leaderboard).is_file():
        raise UserError(
            f"config: comparison.leaderboard: {leaderboard} does not exist: check the path"
        )
    primary = config.comparison.primary
    if primary is not None and primary not in config.comparisons:
        raise UserError(
            f"config: comparison.primary names the unknown comparison {primary}: "
            f"use one of {', '.join(config.comparisons)}"
        )
    for name, comparison in config.comparisons.items():
        for label in ("anchored", "placebo"):
            companion = getattr(comparison, label)
            if companion is not None and companion not in config.comparisons:
                raise UserError(
                    f"config: comparisons.{name}.{label} names the unknown comparison {companion}: "
                    f"use one of {', '.join(config.comparisons)}"
                )
        for label in ("baseline", "candidate"):
            side = getattr(comparison, label)
            where = f"config: comparisons.{name}.{label}"
            if side.fit not in config.fits:
                raise UserError(
                    f"{where} names the unknown fit {side.fit}: use one of {', '.join(config.fits)}"
                )
            models = config.fits[side.fit].models
            if side.model not in models:
                raise UserError(
                    f"{where} names the model {side.model}, which fit {side.fit} lacks: "
                    f"use one of {', '.join(models)}"
                )
            if comparison.against not in (None, *models) or comparison.against == side.model:
                raise UserError(
                    f"config: comparisons.{name}.against names {comparison.against}, which is no "
                    f"other model of fit {side.fit}: use one of "
                    f"{', '.join(m for m in models if m != side.model)}, or leave it out"
                )


def check_layers(config: Config) -> None:
    """Check that every model has the layers asked of it, as far as files at hand tell."""
    for group, layers in config.layers.items():
        if not layers:
            raise UserError(f"config: layers.{group} is empty: give layer numbers")
        for name, model in config.models.items():
            depth = _depth(config, name, model)
            if depth is not None and max(layers) > depth:
                raise UserError(
                    f"config: layers.{group} asks for layer {max(layers)}, but model {name} has "
                    f"{depth} layers: use 1 to {depth}"
                )


def _depth(config: Config, name: str, model: ModelSource) -> int | None:
    if model.organism is not None:
        return config.organism.architecture.layers
    if model.path is None:
        return None
    described = Path(model.path) / "config.json"
    if not described.is_file():
        raise UserError(
            f"config: models.{name}.path: {model.path} is no folder of a Hugging Face model "
            "(it has no config.json): check the path"
        )
    if not any(Path(model.path).glob("*.safetensors")):
        raise UserError(
            f"config: models.{name}.path: {model.path} holds no safetensors file, the one format "
            "of weights that is read: convert the model"
        )
    try:
        settings = json.loads(described.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise UserError(f"config: models.{name}: {described} is not valid JSON: mend it") from None
    depth = settings.get("num_hidden_layers") or settings.get("text_config", {}).get(
        "num_hidden_layers"
    )
    return int(depth) if depth else None


def check_taxonomy(config: Config) -> None:
    """Check that a taxonomy that is given is there."""
    if config.taxonomy is not None and not Path(config.taxonomy).is_file():
        raise UserError(f"config: taxonomy: {config.taxonomy} does not exist: check the path")


def check_paper(config: Config) -> None:
    """Check that the published quantities can be read, where a study is reproduced."""
    for file in config.paper.published if config.paper else ():
        read_study(Path(file))


def check_annotator(config: Config) -> None:
    """Check that an LLM that is asked for is described."""
    if config.autointerp.annotator == "llm" and config.autointerp.llm is None:
        raise UserError(
            "config: autointerp.annotator is llm, but autointerp.llm is missing: "
            "give its base_url and annotators, or use lexical"
        )
    llm = config.autointerp.llm
    reserved = {TRUE, LEXICAL}.intersection(llm.annotators if llm else ())
    if reserved:
        raise UserError(
            f"config: autointerp.llm.annotators: {min(reserved)!r} means labels that no LLM gives: "
            "call the annotator otherwise"
        )
    asked = llm if config.autointerp.annotator == "llm" and llm and llm.mode == "live" else None
    unpriced = {a.model for a in asked.annotators.values()} - asked.prices.keys() if asked else ()
    if asked and asked.max_cost is not None and unpriced:
        raise UserError(
            f"config: autointerp.llm.max_cost cannot hold without the price of {min(unpriced)}: "
            "add it to autointerp.llm.prices"
        )
    kinds = {source.kind for source in config.text.sources.values()}
    if config.autointerp.annotator == "none" and "generator" not in kinds:
        raise UserError(
            "config: autointerp.annotator is none, but no text has a known category: "
            "use lexical, or a source of kind generator"
        )


def check_results(config: Config) -> None:
    """Check that the results folder can be written to."""
    folder = Path("results", config.run)
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"the results folder {folder} cannot be written to ({error.strerror}): "
            "mend its permissions or run elsewhere with --directory"
        ) from None


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_models,
    check_text,
    check_splits,
    check_layers,
    check_fits,
    check_comparisons,
    check_taxonomy,
    check_annotator,
    check_paper,
    check_results,
)
