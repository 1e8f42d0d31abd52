"""What a comparison is made of: its two sides, and the comparisons read beside it."""

from __future__ import annotations

from dataclasses import dataclass

from workflow_scripts.comparison.direct import is_direct


@dataclass(frozen=True)
class Side:
    """One side of a comparison: latents of ``fit`` that are unique to ``model``."""

    fit: str
    model: str


@dataclass(frozen=True)
class Comparison:
    """Two sides, with the comparisons that are read beside it."""

    baseline: Side
    candidate: Side
    anchored: str | None = None
    placebo: str | None = None
    against: str | None = None

    @property
    def direct(self) -> bool:
        """Say whether two models are set against each other in one crosscoder."""
        return is_direct(self)

    @property
    def others(self) -> tuple[str | None, str | None]:
        """Return against which model the latents of each side are unique; None: all of the fit."""
        if self.direct:
            return self.candidate.model, self.baseline.model
        return self.against, self.against
