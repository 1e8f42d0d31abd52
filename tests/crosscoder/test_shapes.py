"""Shapes in annotations are checked while tests run."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from workflow_scripts.crosscoder.model import Crosscoder, initial_weights, score_scales


def test_a_wrong_shape_is_refused() -> None:
    weights = initial_weights(6, 2, 4, 0, 1.0)
    crosscoder = Crosscoder(["a", "b"], weights, 0.0, torch.zeros(2, 4), torch.ones(2), 1, {})
    assert crosscoder.encode(torch.ones(3, 2, 4)).shape == (3, 6)
    with pytest.raises(TypeCheckError):
        crosscoder.decode(torch.ones(6))
    with pytest.raises(TypeCheckError):
        score_scales(weights.norms(), costs=torch.ones(5))
