"""Read a run's settings from its config, or refuse them with one sentence before any work."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import combinations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workflow_scripts.common.cli import UserError, quoted
from workflow_scripts.common.settings import Settings
from workflow_scripts.dataset.settings import SOURCE_KINDS
from workflow_scripts.run.checks import CHECKS
from workflow_scripts.run.settings import Config

EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "named": "a list of two numbers",  # a NamedTuple
}


def load(raw: Mapping[str, object]) -> Config:
    """Return the typed settings of the config mapping ``raw``, checked against each other.

    Raises
    ------
    UserError
        One sentence for the first mistake found.
    """
    expanded = expand(raw)
    try:
        config = Config.model_validate(expanded)
    except ValidationError as error:
        raise UserError(sentence(error, expanded)) from None
    for check in CHECKS:
        check(config)
    return config


def expand(raw: Mapping[str, object]) -> dict[str, object]:
    """Write out the short forms: paths as models, fit defaults, default fits and comparisons."""
    full = dict(raw)
    models = full.get("models")
    if isinstance(models, Mapping):
        full["models"] = {n: _source(m) for n, m in models.items()}
        full.setdefault("fits", _default_fits(list(models), full.get("layers")))
    shared, fits = full.get("crosscoder") or {}, full.get("fits")
    if isinstance(fits, Mapping) and isinstance(shared, Mapping):
        whole: dict[str, object] = {
            n: {**shared, **f} if isinstance(f, Mapping) else f for n, f in fits.items()
        }
        full["fits"] = whole
        full.setdefault("comparisons", _default_comparisons(whole))
    return full


def _source(model: object) -> object:
    """Return a model's source, written out where only its folder or GGUF file is named."""
    if not isinstance(model, str):
        return model
    return {"gguf" if model.lower().endswith(".gguf") else "path": model}


def _default_fits(models: list[str], layers: object) -> dict[str, object]:
    groups = list(layers.values()) if isinstance(layers, Mapping) else []
    layer = groups[0][0] if groups and isinstance(groups[0], list) and groups[0] else 1
    return {
        f"{first}_{second}": {"models": [first, second], "layer": layer}
        for first, second in combinations(models, 2)
    }


def _default_comparisons(fits: Mapping[str, object]) -> dict[str, object]:
    comparisons: dict[str, object] = {}
    for name, fit in fits.items():
        models = fit.get("models") if isinstance(fit, Mapping) else None
        if isinstance(models, list) and len(models) == 2:
            baseline, candidate = ({"fit": name, "model": model} for model in models)
            comparisons[name] = {"baseline": baseline, "candidate": candidate}
    return comparisons


def sentence(error: ValidationError, raw: Mapping[str, object]) -> str:
    """Return the first mistake of a validation as one sentence."""
    first = error.errors(include_url=False)[0]
    place = _place(first["loc"], raw)
    where = ".".join(place) or "the config"
    if first["type"] == "extra_forbidden":
        return f"config: {where} is no setting{_nearest(place)}"
    if first["type"] == "missing":
        return f"config: {where} is missing: set it (config/README.md describes it)"
    if first["type"] == "string_pattern_mismatch":
        allowed = first["ctx"]["pattern"].strip("^$+")
        return f"config: {where}: {first['input']!r} must be of the characters {allowed} only"
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        kinds = ", ".join(SOURCE_KINDS)
        return f"config: {where} has no known kind: give `kind`, one of {kinds}"
    if first["type"] == "value_error":  # of a group's own validator
        return f"config: {where} {first['ctx']['error']}"
    expected = EXPECTED.get(first["type"].split("_")[0])
    expected = f"give {expected}" if expected else first["msg"][0].lower() + first["msg"][1:]
    return f"config: {where} is {quoted(first['input'])}: {expected}{_hint(first)}"


def _hint(error: ErrorDetails) -> str:
    """Return how to write a value that YAML reads otherwise than people do."""
    value = error["input"]
    if error["type"].startswith("string") and isinstance(value, bool | int | float):
        return ": put it in quotes"
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e15
        return f": YAML reads it as text: write {int(number) if whole else repr(number)}"
    return ""


def _place(loc: Iterable[int | str], raw: Mapping[str, object]) -> list[str]:
    """Return the keys of an error's location, without the tags of unions and «[key]»."""
    place: list[str] = []
    parts = [part for part in loc if part != "[key]"]
    value: object = raw
    for index, part in enumerate(parts):
        known = isinstance(value, Mapping) and part in value
        listed = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if known or listed:
            value = value[part]  # type: ignore[index]
        elif index < len(parts) - 1 or part in SOURCE_KINDS:
            continue
        place.append(str(part))
    return place


def _nearest(place: list[str]) -> str:
    names = sorted({name for group in all_settings() for name in group.model_fields})
    near = difflib.get_close_matches(place[-1], names, n=1)
    return f": did you mean {near[0]}?" if near else ": config/README.md lists all settings"


def all_settings() -> list[type[Settings]]:
    """Return every class of settings."""
    waiting, groups = [Settings], list[type[Settings]]()
    while waiting:
        for group in waiting.pop(0).__subclasses__():
            groups.append(group)
            waiting.append(group)
    return groups
