"""What makes a comparison a direct one."""

from __future__ import annotations

from typing import Protocol


class Side(Protocol):
    """One side of a comparison."""

    @property
    def fit(self) -> str:
        """Fit that holds the latents."""

    @property
    def model(self) -> str:
        """Model to which they are unique."""


class Sides(Protocol):
    """A comparison, as settings or as a step's own value."""

    @property
    def baseline(self) -> Side:
        """The side before."""

    @property
    def candidate(self) -> Side:
        """The side after."""

    @property
    def against(self) -> str | None:
        """Base against which both sides are unique."""


def is_direct(comparison: Sides) -> bool:
    """Return whether two models are set against each other in one crosscoder."""
    baseline, candidate = comparison.baseline, comparison.candidate
    one_fit = baseline.fit == candidate.fit
    return one_fit and baseline.model != candidate.model and comparison.against is None
