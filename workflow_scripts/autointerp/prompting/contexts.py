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

from workflow_scripts.autointerp.context_schema import CONTEXT_SCHEMA
from workflow_scripts.autointerp.latent_tables import LatentTable
from workflow_scripts.autointerp.prompting.templates import Marked
from workflow_scripts.autointerp.windows import read_windows

ACTIVE_SHARE = 0.3
"""A token is marked when its activation is above this share of the context's maximum."""
SHOWN_TOKENS = 8
HELD_LATENTS = 100
"""Latents whose contexts are in memory at a time."""


@dataclass(frozen=True)
class PromptContext:
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
    """The contexts of all latents; some latents' are held at a time, from the requested one on.

    Ask for latents in ascending order: any other reads the same rows over and over.

    Raises
    ------
    UserError
        If the file is missing or lacks a column.
    """

    def __init__(self, path: Path) -> None:
        self._table = LatentTable(path, CONTEXT_SCHEMA.names)
        self._latents = self._table.latents()
        self._held = _Held(self._table.read(self._latents[:0]))
        self._last: tuple[int, dict[str, list[PromptContext]]] = (-1, {})

    def of(self, latent: int, part: str) -> list[PromptContext]:
        """Return a latent's contexts of one part, in their stored order."""
        if self._last[0] != latent:
            if latent not in self._held.rows:
                first = np.searchsorted(self._latents, latent)
                self._held = _Held(self._table.read(self._latents[first : first + HELD_LATENTS]))
            self._last = latent, self._held.contexts(latent)
        return self._last[1].get(part, [])


class _Held:
    """The contexts of some latents, made into objects on request."""

    def __init__(self, table: pa.Table) -> None:
        ordered = table.sort_by("latent")
        groups = np.unique(ordered["latent"].to_numpy(), return_index=True, return_counts=True)
        self.rows = {
            latent: range(first, first + count)
            for latent, first, count in zip(*(part.tolist() for part in groups), strict=True)
        }
        self._windows = read_windows(ordered)
        self._facts = ordered.select(["part", "kind", "stratum", "document"]).to_pydict()

    def contexts(self, latent: int) -> dict[str, list[PromptContext]]:
        """Return a latent's contexts by part."""
        by_part: dict[str, list[PromptContext]] = {}
        for row in self.rows[latent]:
            by_part.setdefault(self._facts["part"][row], []).append(self._context(row))
        return by_part

    def _context(self, row: int) -> PromptContext:
        windows = self._windows
        tokens = slice(*windows.offsets[row : row + 2].tolist())
        return PromptContext(
            self._facts["kind"][row],
            self._facts["stratum"][row],
            self._facts["document"][row],
            tuple(windows.vocabulary[piece] for piece in windows.piece[tokens].tolist()),
            tuple(windows.activation[tokens].tolist()),
        )


def contexts_digest(contexts: Sequence[PromptContext]) -> str:
    """Return a short digest of which contexts were shown, in order."""
    digest = hashlib.sha256()
    for context in contexts:
        digest.update(f"{context.kind}:{context.document}:{context.text}\0".encode())
    return digest.hexdigest()[:16]
