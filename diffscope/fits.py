"""A crosscoder of a run, with its latents and the models that it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from diffscope.firing import Firing, TextReader
from diffscope.latents import Latent, annotators, contexts_of, live_latents, names_of
from diffscope.run_paths import RunPaths
from workflow_scripts.common import files
from workflow_scripts.common.artifacts import SeedFiles
from workflow_scripts.common.cli import UserError

if TYPE_CHECKING:
    from workflow_scripts.crosscoder.model import Crosscoder


@dataclass(frozen=True)
class Fit:
    """A crosscoder of two or more models at one layer, for one seed."""

    name: str
    seed: int
    paths: RunPaths
    files: SeedFiles
    """the tables of its latents"""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(self.paths.config.fits[self.name].models)

    @property
    def layer(self) -> int:
        """The layer: output of that decoder block, counted from 1."""
        return self.paths.config.fits[self.name].layer

    @property
    def folder(self) -> Path:
        """Where the crosscoder lies."""
        return Path(self.paths.crosscoder(self.name, self.seed))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """FVE per model, L0 and dead share on held-out text, as evaluation.json has them."""
        return dict(files.read_json(self.folder / "evaluation.json"))

    def crosscoder(self) -> Crosscoder:
        """Return the crosscoder itself, whose ``encode`` and ``decode`` work on tensors."""
        from workflow_scripts.crosscoder.model import Crosscoder

        return Crosscoder.load(self.folder)

    def latents(self) -> pd.DataFrame:
        """Return a row per live latent.

        Columns: ``latent`` (its number), ``unique_to`` (the model that alone has it; empty:
        shared), ``named_by``, ``category``, ``explanation`` and ``auroc`` (empty and NaN where
        nobody named it), then all of ``latents.parquet``: ``decoder_norm_<model>``,
        ``delta_norm_<a>_<b>`` (0: only a, ½: shared, 1: only b), ``nu_r_<own>_vs_<other>``,
        ``firing_rate`` and others.
        """
        return self._latents.copy()

    @cached_property
    def _latents(self) -> pd.DataFrame:
        return live_latents(self.files)

    def latent(self, number: int) -> Latent:
        """Return a live latent with all its names and contexts.

        Raises
        ------
        UserError
            If it is dead, or there is none of this number.
        """
        rows = self._latents[self._latents["latent"] == number]
        if rows.empty:
            raise UserError(f"latent {number} of {self.name} is not live: take one of latents()")
        measured = {str(name): value for name, value in rows.iloc[0].items()}
        tables = [names_of(self.files, name) for name in annotators(self.files)]
        own = [table[table["latent"] == number].drop(columns="latent") for table in tables]
        names = pd.concat(own, ignore_index=True) if own else pd.DataFrame()
        unique_to = str(measured["unique_to"])
        contexts = contexts_of(self.files, [number]).get(number, ())
        return Latent(number, unique_to, names, measured, contexts)

    def fire(self, text: str | Sequence[Mapping[str, object]]) -> Firing:
        """Return which latents fire on a text, token by token.

        The models read it as the run reads a document, and their activations are rounded as a dump
        rounds them. The first call loads the models, which stay loaded as long as this object.

        Parameters
        ----------
        text
            plain text, or a chat as a list of ``{"role": …, "content": …}``

        Raises
        ------
        UserError
            If the text is empty, longer than a document of the run, holds control tokens, or is a
            chat that the template refuses; or if the models are not there any more.
        """
        return self._reader.fire(text, self._latents)

    @cached_property
    def _reader(self) -> TextReader:
        return TextReader.load(self.paths, self.crosscoder(), self.models, self.layer)
