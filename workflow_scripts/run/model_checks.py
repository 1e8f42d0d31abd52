"""Checks of a run's models and of the layers that are dumped from them.

Each raises a UserError with one sentence that names the culprit and the remedy.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from workflow_scripts.common.cli import UserError
from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES
from workflow_scripts.models.settings import ModelSource
from workflow_scripts.run.settings import Config

ORIGINS = {"organism", "path", "hub"}


def check_models(config: Config) -> None:
    """Check that each model has one source, and the sources of the trained ones."""
    if len(config.models) < 1:
        raise UserError("config: models is empty: name at least two models")
    for name, model in config.models.items():
        given = sorted(ORIGINS & set(names_given(model)))
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


def check_layers(config: Config) -> None:
    """Check that every model has the layers to be dumped, as far as local files say."""
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
        raise UserError(f"config: models.{name}: {described} is not valid JSON: fix it") from None
    depth = settings.get("num_hidden_layers") or settings.get("text_config", {}).get(
        "num_hidden_layers"
    )
    return int(depth) if depth else None
