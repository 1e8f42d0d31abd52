"""Names that would make two things of a run one are refused, and no others."""

from __future__ import annotations

import pytest

from tests.run.test_settings import Raw, put, smoke
from workflow_scripts.common.cli import UserError
from workflow_scripts.run.load import load

FIT: Raw = {"models": ["pt", "it"], "layer": 1}
COMPARISON = smoke()["comparisons"]["anchored"]  # type: ignore[index]
LESSONS: Raw = {"organism": {"teach": {"advice": 50}}}


def models(*names: str) -> Raw:
    """Return the smoke run with more models."""
    raw = smoke()
    for name in names:
        raw = put(raw, f"models.{name}", LESSONS)
    return raw


@pytest.mark.parametrize("fit", ["difference", "cause"])
@pytest.mark.parametrize("comparison", ["seed0", "seed12", "consensus"])
def test_a_fit_and_a_comparison_with_the_same_files(fit: str, comparison: str) -> None:
    alone = put(smoke(), f"fits.{fit}", FIT)
    load(alone)
    load(put(smoke(), f"comparisons.{comparison}", COMPARISON))
    with pytest.raises(UserError, match=rf"fits.{fit} and comparisons.{comparison} would write"):
        load(put(alone, f"comparisons.{comparison}", COMPARISON))
    load(put(alone, f"comparisons.{comparison}_", COMPARISON))


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("x", "y_z", "x_y", "z"), "x_y_z"),
        (("m", "m_se"), "pt_vs_m_se"),
        (("a_vs", "a", "vs_pt"), "a_vs_pt"),
    ],
)
def test_pairs_of_models_with_one_name(names: tuple[str, ...], pair: str) -> None:
    with pytest.raises(UserError, match=f"two pairs of .* are both called {pair}, in"):
        load(models(*names))
    load(models(*names[:1]))


def test_the_store_is_no_run() -> None:
    with pytest.raises(UserError, match="results/store is the store of all runs"):
        load(put(smoke(), "run", "store"))


def test_a_source_is_not_called_like_all_of_them() -> None:
    raw = put(smoke(), "text.sources.all", smoke()["text"]["sources"]["generated"])  # type: ignore[index]
    with pytest.raises(UserError, match=r"text\.sources\.all: tables name the sum"):
        load(raw)
