"""The logit lens reads a direction as the model itself would at its last layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.random_models import ARCHITECTURES, LAYERS, write_model
from workflow_scripts.interventions.block_outputs import replaced_output
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.unembedding import Unembedding, strongest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_models_own_norm_and_output_layer_are_used(tmp_path: Path, architecture: str) -> None:
    model = load_model(write_model(tmp_path, architecture), torch.float32, torch.device("cpu"))
    directions = torch.randn((3, 16), generator=torch.Generator().manual_seed(0))
    read = Unembedding(model).read(7 * directions)
    ids = torch.ones((1, 1), dtype=torch.int64)
    for direction, logits in zip(directions, read, strict=True):
        both = []
        for sign in (1, -1):
            with replaced_output(model, LAYERS, sign * 1e3 * direction[None, None]):
                both.append(model(input_ids=ids, use_cache=False).logits[0, 0])
        expected = (both[0] - both[1]) / 2
        # A soft-cap bends large logits, in their order.
        assert torch.corrcoef(torch.stack([logits, expected]))[0, 1] > 0.99
        assert logits.argmax() == expected.argmax()
        assert abs(float(logits.mean())) < 1e-4
    assert torch.allclose(Unembedding(model).read(-directions), -read, atol=1e-4)


def test_strongest_are_in_standard_deviations() -> None:
    logits = torch.tensor([[0.0, 3.0, -1.0, -2.0]])
    values, ids = strongest(logits, 9)
    assert ids.tolist() == [[1, 0, 2, 3]]
    assert values[0, 0] == pytest.approx(3 / float(logits.std()))
