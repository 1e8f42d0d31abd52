"""The latents of a crosscoder: what was measured, how they are named, where they fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import SeedFiles
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labellers import LEXICAL
from workflow_scripts.figures.report_data import first_answers

ACTIVE = 0.3
"""Share of the largest activation above which a printed context marks a piece, as scores do."""
PRINTED = 5
NAMES = ("named_by", "category", "explanation", "auroc")
"""Columns of names: who gave them, and the AUROC of the explanation on unseen contexts."""


@dataclass(frozen=True)
class Context:
    """A window of text in which a latent fires, in pieces of whole characters."""

    document: int
    split: str
    """``explain``: explanations were made from it; ``verify``: they were scored on it"""
    pieces: tuple[str, ...]
    activations: tuple[float, ...]
    """the largest activation of each piece's tokens"""

    def __str__(self) -> str:
        """Return the text; where the latent fires strongly, it stands between « and »."""
        least = ACTIVE * max(self.activations, default=0.0)
        pairs = zip(self.pieces, self.activations, strict=True)
        marked = (f"«{piece}»" if value > least else piece for piece, value in pairs)
        return "".join(marked).replace("»«", "")


@dataclass(frozen=True)
class Latent:
    """A live latent."""

    number: int
    unique_to: str
    """the model that alone has it, ``a+b`` for several; empty: shared"""
    names: pd.DataFrame
    """a row per annotator: ``named_by``, ``category``, ``explanation``, ``auroc``"""
    measured: dict[str, Any]
    """its row of ``latents.parquet``"""
    contexts: tuple[Context, ...]
    """the strongest first; a sample of the shared latents has some, and all unique ones"""

    def __str__(self) -> str:
        """Return its names and first contexts as text."""
        owner = f"unique to {self.unique_to}" if self.unique_to else "shared"
        lines = [f"latent {self.number}, {owner}"]
        for row in self.names.to_dict("records"):
            lines.append(f"  {row['named_by']}: {row['category'] or '–'}: {row['explanation']}")
        return "\n".join(
            [*lines, *(f"  | {' '.join(str(c).split())}" for c in self.contexts[:PRINTED])]
        )


def live_latents(source: SeedFiles) -> pd.DataFrame:
    """Return a row per live latent: ``latent``, ``unique_to``, its first names, what was measured.

    Names are those of the first annotator that answered: of LLMs before counted words.
    """
    selection = files.read_parquet(source.selection)[["latent", "unique_to"]]
    measured = files.read_parquet(source.latents)
    answers = [names_of(source, name) for name in annotators(source)]
    empty = pd.DataFrame({"latent": [], **{name: [] for name in NAMES}})
    named = pd.concat(answers or [empty], ignore_index=True).drop_duplicates("latent")
    table = selection.merge(named, on="latent", how="left").merge(measured, on="latent")
    texts = list(NAMES[:-1])
    table[texts] = table[texts].astype(object).fillna("").astype(str)
    return table


def annotators(source: SeedFiles) -> list[str]:
    """Return who explained latents, LLMs first."""
    names = first_answers(source.explanations)
    return sorted(names, key=lambda name: (name == LEXICAL, name))


def names_of(source: SeedFiles, annotator: str) -> pd.DataFrame:
    """Return the answers of one annotator: ``latent`` and ``NAMES``."""
    table = first_answers(source.explanations)[annotator][["explanation"]]
    for paths, columns in ((source.labels, ["category"]), (source.scores, ["auroc"])):
        answers = first_answers(paths).get(annotator)
        table = table.reindex(columns=[*table.columns, *columns])
        if answers is not None:
            table[columns] = answers[columns].reindex(table.index)
    return table.reset_index().assign(named_by=annotator)[["latent", *NAMES]]


def contexts_of(source: SeedFiles, latents: Sequence[int]) -> dict[int, tuple[Context, ...]]:
    """Return the contexts in which latents fire, the strongest first; some may have none."""
    found: dict[int, tuple[Context, ...]] = {}
    for path in (source.examples, source.carriers):
        if path is not None:
            found = _contexts(path, [n for n in latents if n not in found]) | found
    return found


def _contexts(path: Path, latents: Sequence[int]) -> dict[int, tuple[Context, ...]]:
    if not path.exists():
        raise UserError(f"{path} does not exist: run the step that makes it")
    columns = ["latent", "document", "split", "pieces", "activations", "max_activation"]
    filters = [("latent", "in", list(latents)), ("kind", "==", "positive")]  # of large tables
    table = pd.read_parquet(path, columns=columns, filters=filters) if latents else pd.DataFrame()
    contexts: dict[int, list[Context]] = {}
    for row in table.to_dict("records"):
        values: list[float] = np.asarray(row["activations"], dtype=float).tolist()
        shown = Context(
            int(row["document"]), str(row["split"]), tuple(row["pieces"]), tuple(values)
        )
        contexts.setdefault(int(row["latent"]), []).append(shown)
    return {
        latent: tuple(sorted(own, key=lambda context: -max(context.activations)))
        for latent, own in contexts.items()
    }
