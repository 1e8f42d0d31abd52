"""Checks of a run's fits and comparisons.

Each raises a UserError with one sentence that names the culprit and the remedy.
"""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.common.cli import UserError
from workflow_scripts.crosscoder.settings import Fit
from workflow_scripts.run.model_checks import names_given
from workflow_scripts.run.settings import Config


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
    imported = fit.imported
    if imported is None:
        return
    given = sorted({"path", "hub"} & set(names_given(imported)))
    if len(given) != 1:
        origins = " and ".join(given) or "no source"
        raise UserError(f"{where}.imported has {origins}: give exactly one of path and hub")
    if (imported.hub is None) != (imported.revision is None):
        raise UserError(
            f"{where}.imported: hub and revision, its commit (40 hex digits), go together"
        )
    if imported.path is not None and not (Path(imported.path) / "model.safetensors").is_file():
        raise UserError(
            f"{where}.imported.path: {imported.path} is no folder with a model.safetensors: "
            "correct it"
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
