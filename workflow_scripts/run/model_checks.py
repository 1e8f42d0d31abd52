"""Checks of a run's models and of the layers that are dumped from them.

Each raises a UserError with one sentence that names the culprit and the remedy.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from workflow_scripts.common.cli import UserError
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES
from workflow_scripts.models.adapters import check_adapter, check_fit
from workflow_scripts.models.folders import read_folder
from workflow_scripts.models.gguf_header import read_gguf
from workflow_scripts.models.settings import ModelSource
from workflow_scripts.run.settings import Config

ORIGINS = {"gguf", "hub", "organism", "path"}


def check_models(config: Config) -> None:
    """Check that each model has one source, and the sources of the trained ones."""
    if len(config.models) < 1:
        raise UserError("config: models is empty: name at least two models")
    for name, model in config.models.items():
        given = sorted(ORIGINS & set(names_given(model)))
        if len(given) != 1:
            raise UserError(
                f"config: models.{name} has {' and '.join(given) or 'no source'}: "
                "give exactly one of path, hub, gguf and organism"
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
        raise UserError(
            f"{where} has organism and adapter: adapters go with path, hub or gguf only"
        )
    folder = Path(model.adapter)
    if model.adapter_revision is None and not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{where}.adapter: {model.adapter} is no folder with an adapter_config.json: correct "
            "it, or give adapter_revision, the commit of an adapter on the hub (40 hex digits)"
        )


def names_given(group: BaseModel) -> list[str]:
    """Return the names of the settings of a group that have a value."""
    return [name for name, value in group if value is not None]


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


def check_folders(config: Config) -> None:
    """Check models in local folders and GGUF files, as far as names, JSON and headers say.

    That each is whole and of a kind that is read, has the layers to be dumped, reads texts of the
    context length, and that its adapter fits.
    """
    for name, model in config.models.items():
        where = f"config: models.{name}"
        adapter = model.adapter if model.adapter_revision is None else None
        if adapter is not None and not model.hub:
            check_adapter(name, Path(adapter))
        if model.gguf is not None:
            file = read_gguf(where, Path(model.gguf))
            _check_sizes(config, name, file.layers, file.positions)
        elif model.path is not None:
            found = read_folder(where, Path(model.path))
            if adapter is not None:
                check_fit(name, Path(adapter), found.tensors)
            _check_sizes(config, name, found.layers, found.positions)


def _check_sizes(config: Config, name: str, layers: int | None, longest: int | None) -> None:
    _check_layers(config, name, layers)
    if longest is not None and longest < config.text.context_length:
        raise UserError(
            f"config: text.context_length is {config.text.context_length}, but model {name} "
            f"was made for {longest} positions: lower it"
        )


def check_layers(config: Config) -> None:
    """Check that there are layers to be dumped, and that trained models have them."""
    for group, layers in config.layers.items():
        if not layers:
            raise UserError(f"config: layers.{group} is empty: give layer numbers")
    for name, model in config.models.items():
        if model.organism is not None:
            _check_layers(config, name, config.organism.architecture.layers)


def _check_layers(config: Config, name: str, depth: int | None) -> None:
    for group, layers in config.layers.items():
        if depth is not None and max(layers) > depth:
            raise UserError(
                f"config: layers.{group} asks for layer {max(layers)}, but model {name} has "
                f"{depth} layers: use 1 to {depth}"
            )
