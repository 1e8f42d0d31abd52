"""Loss recovered: all of a perfect reconstruction, none of the mean, and what lies between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tests.activations.synthetic import token_shard
from tests.models.random_models import write_model
from workflow_scripts.activations.settings import Batches, Precision
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.tables import write_csv
from workflow_scripts.crosscoder.model import Crosscoder, Weights
from workflow_scripts.dataset.answer_tokens import pad
from workflow_scripts.dataset.documents import read_sources
from workflow_scripts.dataset.shards import write_shard
from workflow_scripts.interventions import recover_loss as step
from workflow_scripts.interventions.block_outputs import block_output, replaced_output
from workflow_scripts.interventions.latent_editor import LatentEditor
from workflow_scripts.models.likelihood import predict
from workflow_scripts.models.loading import load_model

LAYER, WIDTH = 1, 16
NAMES = ["it", "simpo"]
LENGTHS = [9, 14, 30, 21, 12, 17]


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_model(tmp_path / name, "gemma2", seed=seed) for seed, name in enumerate(NAMES)
    }


@pytest.fixture
def sample(tmp_path: Path) -> step.Sample:
    write_shard(tmp_path / "tokens.h5", token_shard(LENGTHS, 0, ["score"] * 6), {})
    sources = ["chat", "web", "web", "chat", "web", "web"]
    pd.DataFrame({"document": range(6), "source": sources, "text": "x"}).to_parquet(
        tmp_path / "documents.parquet"
    )
    told = read_sources([tmp_path / "documents.parquet"])
    return step.read_sample([tmp_path / "tokens.h5"], told, "score", 3)


def identity(gain: float = 1.0) -> Crosscoder:
    """Return a crosscoder with a latent for either sign of every coordinate: x̂ = gain · x."""
    eye = torch.eye(2 * WIDTH)
    both = torch.cat([eye, -eye])
    weights = Weights(both, torch.zeros(4 * WIDTH), gain * both, torch.zeros(2 * WIDTH), 2)
    mean = torch.full((2, WIDTH), 0.2)
    return Crosscoder(list(NAMES), weights, 0.0, mean, torch.tensor([1.5, 0.8]), 5, {})


def measured(
    manifests: dict[str, Path], sample: step.Sample, crosscoder: Crosscoder, folder: Path
) -> pd.DataFrame:
    editor = LatentEditor(crosscoder, torch.tensor([1e6, 1e6]), LAYER)
    with torch.no_grad():
        rows = step.losses(manifests, editor, sample, 0, Precision(), Batches(batch_tokens=64))
    write_csv(folder / "loss.csv", rows, step.COLUMNS)
    return pd.read_csv(folder / "loss.csv")


def defined(table: pd.DataFrame, ablation: str) -> pd.Series[float]:
    """Return the shares recovered: defined just where the ablation raises the loss."""
    shares = table[f"recovered_{ablation}"]
    pd.testing.assert_series_equal(
        shares.notna(), table[f"ce_{ablation}"] > table["ce_own"], check_names=False
    )
    return shares.dropna()


def test_sample_is_limited_by_source(sample: step.Sample) -> None:
    assert sorted(sample.sources) == ["chat", "chat", "web", "web", "web"]
    assert [len(document.ids) for document in sample.documents] == [9, 12, 14, 21, 30]
    assert all(document.answer.sum() == len(document.ids) - 1 for document in sample.documents)


def test_a_perfect_reconstruction_keeps_everything(
    manifests: dict[str, Path], sample: step.Sample, tmp_path: Path
) -> None:
    table = measured(manifests, sample, identity(), tmp_path)
    assert list(table.columns) == list(step.COLUMNS)
    assert list(zip(table["model"], table["source"], strict=True)) == [
        (model, source) for model in NAMES for source in ("all", "chat", "web")
    ]
    assert table["documents"].tolist() == 2 * [5, 2, 3]
    assert np.allclose(table["ce_reconstruction"], table["ce_own"], atol=1e-5)
    assert (table["kl_reconstruction"].abs() < 1e-6).all()
    for ablation in ("zero", "mean"):
        assert (table[f"kl_{ablation}"] > 1e-4).all()
        shares = defined(table, ablation)
        assert np.allclose(shares, 1, atol=0.02)
        for end in ("_low", "_high"):
            ends = table.loc[shares.index, f"recovered_{ablation}{end}"].dropna()
            assert np.allclose(ends, 1, atol=0.02)


def test_a_reconstruction_of_nothing_is_the_mean(
    manifests: dict[str, Path], sample: step.Sample, tmp_path: Path
) -> None:
    table = measured(manifests, sample, identity(0.0), tmp_path)
    assert np.allclose(table["ce_reconstruction"], table["ce_mean"], atol=1e-6)
    shares = defined(table, "mean")
    assert len(shares) >= 3
    assert np.allclose(shares, 0, atol=1e-3)


def test_figures_are_those_of_whole_logits(
    manifests: dict[str, Path], sample: step.Sample, tmp_path: Path
) -> None:
    """One document at a time, with plain log-softmax over the vocabulary."""
    crosscoder = identity(0.5)
    table = measured(manifests, sample, crosscoder, tmp_path)
    models = [load_model(manifests[n], torch.float32, torch.device("cpu")) for n in NAMES]
    losses: list[Tensor] = []
    divergences: list[Tensor] = []
    for document in sample.documents:
        ids, mask, predicted = pad([document])
        h = torch.stack([block_output(m, LAYER, ids, mask)[0] for m in models], dim=1)
        decoded = crosscoder.decode(crosscoder.encode(crosscoder.normalize(h)))
        told = decoded * crosscoder.scale[:, None] + crosscoder.mean
        told[0] = h[0]
        own = predict(models[1], ids, mask, predicted).log_probabilities(slice(None))
        with replaced_output(models[1], LAYER, told[None, :, 1]):
            changed = predict(models[1], ids, mask, predicted)
        other = changed.log_probabilities(slice(None))
        targets = ids[0, 1:, None]
        losses.append(-other.gather(1, targets)[:, 0])
        divergences.append((own.exp() * (own - other)).sum(1))
    row = table[(table["model"] == "simpo") & (table["source"] == "all")].iloc[0]
    assert row["ce_reconstruction"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    assert row["kl_reconstruction"] == pytest.approx(float(torch.cat(divergences).mean()), rel=1e-3)


def test_tokens_that_the_fit_drops_keep_their_own() -> None:
    crosscoder = identity(0.0)
    editor = LatentEditor(crosscoder, torch.tensor([1e6, 5.0]), LAYER)
    flat = torch.ones((4, 2, WIDTH))
    flat[2] = 9.0  # beyond the second model's bound
    real = torch.tensor([[True, True, True, True]])
    decoded = crosscoder.decode(crosscoder.encode(crosscoder.normalize(flat)))
    found = dict(step.replacements(editor, flat, decoded, real, 0))
    assert torch.equal(found["zero"][:, 0], torch.tensor([1.0, 0.0, 9.0, 0.0]))
    assert torch.allclose(found["mean"][:, 0], torch.tensor([1.0, 0.2, 9.0, 0.2]))
    assert torch.allclose(found["reconstruction"], found["mean"])


def test_an_ablation_that_does_not_hurt_recovers_nothing_defined() -> None:
    """The columns: own, reconstruction, zero, mean, and the three KLs."""
    tokens = np.array([2.0, 1.0])
    sums = np.array([[6.0, 6.2, 8.0, 5.8, 0.1, 2, 1], [3.0, 3.1, 4.0, 3.4, 0.1, 1, 1]])
    row = dict(zip(step.COLUMNS[4:], step.summarise(sums, tokens, 0), strict=True))
    assert row["recovered_zero"] == pytest.approx(1 - 0.3 / 3)
    assert row["recovered_zero_low"] <= row["recovered_zero"] <= row["recovered_zero_high"]
    assert row["recovered_mean"] == pytest.approx(1 - 0.3 / 0.2)  # some draws have no gap
    assert np.isnan([row["recovered_mean_low"], row["recovered_mean_high"]]).all()
    worse = step.summarise(sums[:1], tokens[:1], 0)
    assert np.isnan(worse[-3:]).all()


def test_no_documents_are_told(manifests: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raise text\.tokens"):
        measured(manifests, step.Sample([], []), identity(), tmp_path)
