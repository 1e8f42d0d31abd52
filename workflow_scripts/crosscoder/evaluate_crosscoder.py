"""Measure a crosscoder on held-out documents: FVE per model, L0 in both modes, dead share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workflow_scripts import cli, files
from workflow_scripts.activations.controls import add_store_flags, open_store
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.crosscoder.sparsity import sparsity_rule
from workflow_scripts.dataset.documents import read_sources


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


@dataclass
class SourceSums:
    """What is measured of each source's tokens, in threshold mode."""

    models: int
    sources: Mapping[int, str]  # of each document
    variance: dict[str, ExplainedVariance] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)

    def add(
        self, documents: NDArray[np.int32], x: Tensor, reconstruction: Tensor, l0: Tensor
    ) -> None:
        """Add tokens by the documents [B] they are of; L0 is [B]."""
        numbers, place = np.unique(documents, return_inverse=True)
        names = np.array([self.sources[number] for number in numbers])[place]
        for name in dict.fromkeys(names.tolist()):
            chosen = torch.from_numpy(names == name)
            sums = self.variance.setdefault(name, ExplainedVariance(self.models))
            sums.add(x[chosen], reconstruction[chosen])
            self.active[name] = self.active.get(name, 0) + int(l0[chosen].sum())

    def result(self, names: Sequence[str]) -> dict[str, object]:
        """Return rows, FVE and mean L0 of each source.

        FVE is around the source's own mean; a single token has none.
        """
        return {
            source: {
                "rows": sums.rows,
                "fve": {
                    name: fve if math.isfinite(fve) else None
                    for name, fve in zip(names, sums.result(), strict=True)
                },
                "l0": self.active[source] / sums.rows,
            }
            for source, sums in sorted(self.variance.items())
        }


def evaluate_crosscoder(
    store: ActivationStore,
    crosscoder: Crosscoder,
    split: str,
    batch: int,
    sources: Mapping[int, str],
) -> dict[str, object]:
    """Return the evaluation of ``crosscoder`` on ``split``, in threshold and in training mode.

    ``sources`` tells where each document comes from.

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
    by_source = SourceSums(models, sources)
    for rows, array in store.contiguous(split, batch):
        x = torch.from_numpy(array)
        pre = crosscoder.pre_activations(x).relu_()
        scores = pre * norms
        f = pre * (pre * scales > crosscoder.threshold)
        reconstruction = crosscoder.decode(f)
        threshold_fve.add(x, reconstruction)
        fired += (f > 0).sum(0)
        l0_counts.append((f > 0).sum(1))
        by_source.add(store.document[rows], x, reconstruction, l0_counts[-1])
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
        "sources": by_source.result(crosscoder.models),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_store_flags(parser)
    parser.add_argument("--crosscoder", type=Path, required=True)
    parser.add_argument("--documents", type=Path, nargs="+", required=True)
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
            sources = read_sources(arguments.documents)
            result = evaluate_crosscoder(
                store, crosscoder, arguments.split, arguments.batch, sources
            )
        files.write_json(arguments.output, result)

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
