"""Measure a crosscoder on held-out documents: FVE per model, L0 in both modes, dead share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from workflow_scripts import cli, files
from workflow_scripts.activations.controls import add_store_flags, open_store
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.sparsity import sparsity_rule


@dataclass
class ExplainedVariance:
    """Global float64 sums for the fraction of variance explained of M models.

    FVE^m = 1 − Σ‖x^m − x̂^m‖² / Σ‖x^m − mean‖². It is the same in raw and in normalised space,
    because each model is scaled by one number.
    """

    models: int
    residual: Tensor = field(init=False)
    square: Tensor = field(init=False)
    total: Tensor | None = None
    rows: int = 0

    def __post_init__(self) -> None:
        self.residual = torch.zeros(self.models, dtype=torch.float64)
        self.square = torch.zeros(self.models, dtype=torch.float64)

    def add(self, x: Tensor, reconstruction: Tensor) -> None:
        """Add a batch of activations and reconstructions [B, M, D]."""
        self.residual += (x - reconstruction).double().square().sum(dim=(0, 2))
        self.square += x.double().square().sum(dim=(0, 2))
        batch_sum = x.double().sum(0)
        self.total = batch_sum if self.total is None else self.total + batch_sum
        self.rows += x.shape[0]

    def result(self) -> list[float]:
        """Return the FVE of each model."""
        assert self.total is not None
        spread = self.square - self.total.square().sum(1) / self.rows
        return [float(v) for v in 1 - self.residual / spread]


def evaluate_crosscoder(
    store: ActivationStore, crosscoder: Crosscoder, split: str, batch: int
) -> dict[str, object]:
    """Return the evaluation of ``crosscoder`` on ``split``, in threshold and in training mode.

    Raises
    ------
    UserError
        If the split holds no usable token.
    """
    k = crosscoder.k
    models = len(crosscoder.models)
    threshold_fve, training_fve = ExplainedVariance(models), ExplainedVariance(models)
    fired = torch.zeros(crosscoder.latents, dtype=torch.int64)
    l0_counts: list[Tensor] = []
    training_active = 0
    training = crosscoder.settings.get("training", {})
    variant = training.get("variant", "batch_topk") if isinstance(training, dict) else "batch_topk"
    rule = sparsity_rule(str(variant), 0.0, crosscoder.costs)
    norms, scales = crosscoder.decoder_norms().sum(1), crosscoder.score_scales()
    for _, array in store.contiguous(split, batch):
        x = torch.from_numpy(array)
        pre = crosscoder.pre_activations(x).relu_()
        scores = pre * norms
        f = pre * (pre * scales > crosscoder.threshold)
        threshold_fve.add(x, crosscoder.decode(f))
        fired += (f > 0).sum(0)
        l0_counts.append((f > 0).sum(1))
        active = rule.select(scores, k)
        f = torch.zeros_like(pre)
        f[active.rows, active.columns] = pre[active.rows, active.columns]
        training_fve.add(x, crosscoder.decode(f))
        training_active += active.rows.numel()
    if not l0_counts:
        raise cli.UserError(f"the {split} split holds no usable token: raise text.tokens")
    l0 = torch.cat(l0_counts).double()
    quantiles = torch.quantile(l0[:1_000_000], torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    return {
        "split": split,
        "rows": threshold_fve.rows,
        "k": k,
        "fve": dict(zip(crosscoder.models, threshold_fve.result(), strict=True)),
        "fve_training": dict(zip(crosscoder.models, training_fve.result(), strict=True)),
        "l0_threshold": float(l0.mean()),
        "l0_quantiles": dict(zip(["5%", "50%", "95%"], quantiles.tolist(), strict=True)),
        "l0_training": training_active / threshold_fve.rows,
        "dead_share": float((fired == 0).double().mean()),
        "dropped": store.dropped(split),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_store_flags(parser)
    parser.add_argument("--crosscoder", type=Path, required=True)
    parser.add_argument("--split", default="score")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def run() -> None:
        cli.set_threads(arguments.threads)
        store = open_store(arguments)
        crosscoder = Crosscoder.load(arguments.crosscoder)
        with torch.no_grad():
            result = evaluate_crosscoder(store, crosscoder, arguments.split, arguments.batch)
        files.write_json(arguments.output, result)

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
