"""Contexts as the prompts show them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflow_scripts.autointerp.by_latent import read_table
from workflow_scripts.autointerp.prompts import Marked
from workflow_scripts.autointerp.select_contexts import CONTEXT_SCHEMA

ACTIVE_SHARE = 0.3
"""A token is marked when its activation is above this share of the context's maximum."""
SHOWN_TOKENS = 8


@dataclass(frozen=True)
class Context:
    """One context of a latent; activations are relative to the latent's maximum."""

    kind: str
    stratum: str
    document: int
    pieces: tuple[str, ...]
    activations: tuple[float, ...]

    @cached_property
    def text(self) -> str:
        """The context's text, nothing marked."""
        return "".join(self.pieces)

    def marked(self) -> Marked:
        """Return the text with its active stretches; neighbouring active tokens are one."""
        return self._mark(self._active())

    def mismarked(self, rng: random.Random) -> Marked | None:
        """Return the text with as many marks on silent tokens; None where there are too few."""
        count = sum(self._active())
        silent = [i for i, value in enumerate(self.activations) if value == 0]
        silent = [i for i in silent if self.pieces[i].strip()]
        if len(silent) < count:
            return None
        chosen = set(rng.sample(silent, count))
        return self._mark([i in chosen for i in range(len(self.pieces))])

    def _active(self) -> list[bool]:
        bound = ACTIVE_SHARE * max(self.activations)
        return [value > 0 and value >= bound for value in self.activations]

    def _mark(self, flags: Sequence[bool]) -> Marked:
        pairs = zip(flags, self.pieces, strict=True)
        return Marked(
            tuple(
                ("".join(piece for _, piece in group), active)
                for active, group in groupby(pairs, key=lambda pair: pair[0])
            )
        )

    def strongest(self) -> list[list[object]]:
        """Return the strongest distinct tokens as [token, strength 1..9], strongest first."""
        best: dict[str, float] = {}
        for piece, value in zip(self.pieces, self.activations, strict=True):
            if value > best.get(piece, 0.0):
                best[piece] = value
        order = sorted(best, key=lambda piece: -best[piece])
        return [[piece, max(1, min(9, round(9 * best[piece])))] for piece in order[:SHOWN_TOKENS]]


class ContextTable:
    """The contexts of all latents; those of one are made into objects when asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        latents = table["latent"].to_numpy()
        change = np.flatnonzero(np.diff(latents)) + 1
        starts = [0, *change.tolist()] if len(latents) else []
        stops = [*change.tolist(), len(latents)]
        self._slices = {int(latents[a]): (a, b - a) for a, b in zip(starts, stops, strict=False)}

    @classmethod
    def read(cls, path: Path) -> ContextTable:
        """Read `contexts.parquet`.

        Raises
        ------
        UserError
            If the file is missing or lacks a column.
        """
        return cls(read_table(path, CONTEXT_SCHEMA.names).sort_by("latent"))

    def of(self, latent: int, part: str) -> list[Context]:
        """Return a latent's contexts of one part, in their stored order."""
        mine = self._table.slice(*self._slices[latent])
        mine = mine.filter(pc.equal(mine["part"], part))
        rows = mine.select(["kind", "stratum", "document", "pieces", "activations"]).to_pylist()
        return [
            Context(
                row["kind"],
                row["stratum"],
                row["document"],
                tuple(row["pieces"]),
                tuple(row["activations"]),
            )
            for row in rows
        ]


def contexts_digest(contexts: Sequence[Context]) -> str:
    """Return a short digest of which contexts were shown, in order."""
    digest = hashlib.sha256()
    for context in contexts:
        digest.update(f"{context.kind}:{context.document}:{context.text}\0".encode())
    return digest.hexdigest()[:16]
