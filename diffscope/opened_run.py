"""A finished run in its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from diffscope.fits import Fit
from diffscope.run_paths import RunPaths
from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError
from workflow_scripts.comparison.answers import sentences
from workflow_scripts.figures import verdict_rows
from workflow_scripts.run import report_plan
from workflow_scripts.run.settings import Config


@dataclass(frozen=True)
class Run:
    """A finished run, as ``open_run`` returns it."""

    folder: Path
    """where it lies"""
    paths: RunPaths
    """where its artifacts lie"""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.paths.config.run

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Settings, models, library versions and digests of code, as provenance.json has them."""
        return dict(files.read_json(self.folder / "provenance.json"))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What answers the run, as comparison/answer.json has it."""
        return dict(files.read_json(self.folder / "comparison" / "answer.json"))

    @property
    def answer(self) -> list[str]:
        """The answer, a sentence per kind of labels."""
        return sentences(self.facts)

    def changes(self, every: bool = False) -> pd.DataFrame:
        """Return the verdict on each label's text, changes first.

        The columns are those of ``comparison/changes.csv``: ``label``, ``verdict``, ``behaviour``
        (nats per token by which the candidate predicts the text better), ``representation`` (how
        much further apart the activations are than on unchanged text), intervals and tests.

        Parameters
        ----------
        every
            all comparisons, labellers and seeds, not only those that answer the run

        Raises
        ------
        UserError
            If the run has no verdict yet.
        """
        table = verdict_rows.read_changes(self.folder / "comparison" / "changes.csv")
        if not every:
            facts = self.facts
            table = verdict_rows.answering(table, facts["comparison"], facts["labeller"])
        return table.reset_index(drop=True)

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """The compared crosscoders by name, of several seeds the first."""
        return {name: self.fit(name) for name in report_plan.report_fits(self.paths)}

    def fit(self, name: str, seed: int | None = None) -> Fit:
        """Return a compared crosscoder with its latents; without ``seed``, the first one.

        Raises
        ------
        UserError
            If the run has no such fit or seed.
        """
        known = report_plan.report_fits(self.paths)
        if name not in known:
            raise UserError(f"the run {self.name} has no fit {name}: choose {' or '.join(known)}")
        seeds = known[name].seeds
        chosen = next(iter(seeds)) if seed is None else seed
        if chosen not in seeds:
            listed = ", ".join(map(str, seeds))
            raise UserError(f"the fit {name} has no seed {chosen}: choose one of {listed}")
        source = seeds[chosen]
        if not self.paths.annotated:  # nobody named latents, so that there are no such tables
            source = source.model_copy(update={"labels": (), "explanations": (), "scores": ()})
        return Fit(name, chosen, self.paths, source)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path
        its folder, ``results/<run>``

    Raises
    ------
    UserError
        If there is no finished run, or one that another version made.
    """
    folder = Path(path)
    record = folder / "provenance.json"
    if not record.is_file():
        raise UserError(
            f"{folder} holds no finished run (there is no {record.name}): give results/<run>, or "
            "run the workflow to its end"
        )
    try:
        config = Config.model_validate(files.read_json(record).get("settings"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise UserError(
            f"{folder} was made by another version of diffscope (its {where}: {first['msg']}): "
            "open it with that version, or run again"
        ) from None
    return Run(folder, RunPaths(config, folder))
