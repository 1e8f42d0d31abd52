"""What the steps that compare categories read: every comparison at every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from workflow_scripts.common.artifacts import FitFiles, LabelledLatents, read_labelled_latents
from workflow_scripts.common.settings import Settings
from workflow_scripts.common.taxonomy import Taxonomy, load_taxonomy
from workflow_scripts.comparison.settings import Comparison


@dataclass(frozen=True)
class ComparedPair:
    """One comparison at one seed: the labelled latents of both sides, by labeller."""

    name: str
    comparison: Comparison
    seed: int
    place: int
    """Of the seed among the fit's: companions are those in the same place."""
    baseline: Mapping[str, LabelledLatents]
    candidate: Mapping[str, LabelledLatents]

    @property
    def labellers(self) -> list[str]:
        """Labellers that named the latents of both sides."""
        return [name for name in self.baseline if name in self.candidate]


class ComparisonInputs(Settings):
    """What is compared."""

    fits: dict[str, FitFiles]
    """models and artifacts of each fit"""
    comparisons: dict[str, Comparison]
    """sides and companions of each comparison"""
    taxonomy: Path
    """classes and categories (YAML)"""

    @cached_property
    def _taxonomy(self) -> Taxonomy:
        return load_taxonomy(self.taxonomy)

    def class_of(self, name: str) -> str:
        """Return the class of a category."""
        return self._taxonomy.class_of(name)

    def read_pairs(self) -> list[ComparedPair]:
        """Return every comparison at every seed.

        Raises
        ------
        UserError
            If a file is missing or not valid.
        """
        return read_pairs(self.fits, self.comparisons, self.class_of)


def read_pairs(
    fits: Mapping[str, FitFiles],
    comparisons: Mapping[str, Comparison],
    class_of: Callable[[str], str],
) -> list[ComparedPair]:
    """Return every comparison at every seed: the first seeds of both fits together, and so on."""

    @cache
    def labelled(fit: str, seed: int) -> dict[str, LabelledLatents]:
        return read_labelled_latents(fits[fit].models, fits[fit].seeds[seed], class_of)

    pairs = []
    for name, comparison in comparisons.items():
        before, after = comparison.baseline.fit, comparison.candidate.fit
        seeds = zip(fits[before].seeds, fits[after].seeds, strict=False)
        for place, (first, second) in enumerate(seeds):
            sides = (labelled(before, first), labelled(after, second))
            pairs.append(ComparedPair(name, comparison, first, place, *sides))
    return pairs
