"""The files of a crosscoder and of a fit, which steps get by a flag, and its named latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common import files
from workflow_scripts.common.labellers import ANSWERED, TRUE
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.taxonomy import NOT_JUDGED, UNASSIGNED

if TYPE_CHECKING:
    import pandas as pd


class SeedFiles(Settings):
    """Artifacts of one crosscoder; those that a run does not make, or a step not read, are None."""

    latents: Path
    """scores of the latents"""
    selection: Path
    """which latents are unique"""
    clauses: Path | None = None
    """how many latents each clause of the rule leaves"""
    sampled: Path | None = None
    """latents that are shown to annotators, and how many each stands for"""
    examples: Path | None = None
    """contexts of these latents"""
    carriers: Path | None = None
    """contexts of the latents that carry what changed"""
    mirrors: Path | None = None
    """pairs of latents that fire for the same text"""
    promoted: Path | None = None
    """tokens that latents promote and suppress"""
    crosscoder: Path | None = None
    """how the crosscoder was fitted"""
    evaluation: Path | None = None
    """how well it reconstructs"""
    loss: Path | None = None
    """loss of the models with its reconstructions"""
    labels: tuple[Path, ...] = ()
    """annotators' categories"""
    explanations: tuple[Path, ...] = ()
    """annotators' explanations"""
    scores: tuple[Path, ...] = ()
    """scores of the explanations"""
    annotators: Path | None = None
    """coverage, statuses and scores by annotator"""
    agreement: Path | None = None
    """agreement between annotators"""
    truth: Path | None = None
    """annotators' categories against the true ones, where the text's are known"""


class FitFiles(Settings):
    """A fit: its models in order, its layer, and the files of each seed."""

    models: tuple[str, ...]
    layer: int | None = None
    seeds: dict[int, SeedFiles]

    @property
    def first(self) -> SeedFiles:
        """The files of the first seed."""
        return next(iter(self.seeds.values()))


@dataclass(frozen=True)
class LabelledLatents:
    """One crosscoder's live latents that a labeller has named, in one frame.

    Columns ``latent``, ``category``, ``class``, ``weight`` (live latents for which the row
    stands), ``unique_to``, ``unique_<own>_vs_<other>`` and all of ``latents.parquet``.
    """

    models: tuple[str, ...]
    frame: pd.DataFrame


def read_labelled_latents(
    models: tuple[str, ...], seed: SeedFiles, class_of: Callable[[str], str]
) -> dict[str, LabelledLatents]:
    """Return the labelled latents of a crosscoder of ``models``, by labeller.

    Raises
    ------
    UserError
        If a table is missing.
    """
    table = files.read_parquet(seed.latents)
    selection = files.read_parquet(seed.selection)
    live = selection.merge(table, on="latent", how="inner", validate="one_to_one")
    labelled: dict[str, LabelledLatents] = {}
    if "true_category" in live.columns:
        known = live.assign(weight=1.0, category=live["true_category"].replace("", None))
        labelled[TRUE] = LabelledLatents(models, _classify(known, UNASSIGNED, class_of))
    if seed.labels and seed.sampled is not None:
        weights = files.read_parquet(seed.sampled)
        for annotator, labels in _read_labels(seed.labels):
            frame = live.merge(weights, on="latent").merge(labels, on="latent", how="left")
            labelled[annotator] = LabelledLatents(models, _classify(frame, NOT_JUDGED, class_of))
    return labelled


def _classify(frame: pd.DataFrame, missing: str, class_of: Callable[[str], str]) -> pd.DataFrame:
    """Return ``frame`` with ``category``, which is ``missing`` where there is none, and `class`."""
    category = frame["category"].fillna(missing).astype(str)
    return frame.assign(category=category, **{"class": category.map(class_of)})


def _read_labels(paths: Sequence[Path]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each annotator with one category per latent and the mean score of its answers.

    The category is the most frequent answer of the replicates, and ``unassigned`` at a tie; a
    failed replicate has no say, and latents without any answer are not there.
    """
    import pandas as pd

    table = pd.concat([files.read_parquet(path) for path in paths], ignore_index=True)
    answered = table["status"].isin(ANSWERED)
    for annotator in sorted(table["annotator"].unique()):
        rows = table[answered & (table["annotator"] == annotator)]
        labels = _most_frequent(rows)
        if "score" in rows:
            labels = labels.join(rows.groupby("latent")["score"].mean())
        yield str(annotator), labels.reset_index()


def _most_frequent(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each latent's most frequent ``category``; where two are, it is ``unassigned``."""
    counts = rows.groupby(["latent", "category"]).size().rename("count").reset_index("category")
    top = counts[counts["count"] == counts.groupby("latent")["count"].transform("max")]
    tied = top.index.duplicated(keep=False)
    top = top.assign(category=top["category"].where(~tied, UNASSIGNED))
    first: pd.DataFrame = top.loc[~top.index.duplicated(), ["category"]]
    return first
