"""The families on which the verdict is validated can be trained as planned."""

from __future__ import annotations

import pytest

from tests.comparison.families.tabulate_families import CHOSEN, FROZEN


@pytest.mark.parametrize("name", [*CHOSEN, *FROZEN])
def test_there_is_text_that_a_base_does_not_know(name: str) -> None:
    """A fine-tune that is compared with its base changes by what is new to the base alone."""
    family = (CHOSEN | FROZEN)[name]
    assert family.siblings or round(family.known * family.categories) < family.categories
