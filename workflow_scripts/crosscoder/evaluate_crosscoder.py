"""Measure a crosscoder on held-out documents: FVE per model, L0 in both modes, dead share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.crosscoder.codes import Codes, codes_of, decode
from workflow_scripts.crosscoder.model import Crosscoder, score_scales
from workflow_scripts.crosscoder.sparsity import BatchTopK, sparsity_rule
from workflow_scripts.dataset.documents import read_sources

SPLIT = "score"
BATCH = 4096  # tokens at a time
LOSS = 0.05
"""How far an imported crosscoder may explain less than published before the layer is doubted."""


@dataclass
class ExplainedVariance:
    """Global float64 sums for the fraction of variance explained of M models.

    FVE^m = 1 − Σ‖x^m − x̂^m‖² / Σ‖x^m − mean‖². It is the same in raw and in normalised space,
    because each model is scaled by one number.
    """

    models: int
    residual: Float[Tensor, " M"] = field(init=False)
    square: Float[Tensor, " M"] = field(init=False)
    total: Float[Tensor, "M D"] | None = None
    rows: int = 0

    def __post_init__(self) -> None:
        self.residual = torch.zeros(self.models, dtype=torch.float64)
        self.square = torch.zeros(self.models, dtype=torch.float64)

    def add(self, x: Float[Tensor, "B M D"], reconstruction: Float[Tensor, "B M D"]) -> None:
        """Add a batch of activations and their reconstructions."""
        self.residual += squares(x - reconstruction)
        self.square += squares(x)
        batch_sum = x.sum(0, dtype=torch.float64).cpu()
        self.total = batch_sum if self.total is None else self.total + batch_sum
        self.rows += x.shape[0]

    def result(self) -> list[float]:
        """Return the FVE of each model."""
        assert self.total is not None
        spread = self.square - self.total.square().sum(1) / self.rows
        return [float(v) for v in 1 - self.residual / spread]


def squares(x: Float[Tensor, "B M D"]) -> Float[Tensor, " M"]:
    """Return Σ_i ‖x_i^m‖² in float64; single vectors are summed in float32."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=2).double()
    return norms.square().sum(0).cpu()


@dataclass
class SourceSums:
    """What is measured of each source's tokens, in threshold mode."""

    models: int
    sources: Mapping[int, str]  # of each document
    variance: dict[str, ExplainedVariance] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        documents: Int[np.ndarray, " B"],
        x: Float[Tensor, "B M D"],
        reconstruction: Float[Tensor, "B M D"],
        l0: Int[Tensor, " B"],
    ) -> None:
        """Add tokens, each with the number of its document and its L0."""
        numbers, places = np.unique(documents, return_inverse=True)
        names = np.array([self.sources[number] for number in numbers])[places]
        for name in dict.fromkeys(names.tolist()):
            chosen = torch.from_numpy(np.flatnonzero(names == name))
            sums = self.variance.setdefault(name, ExplainedVariance(self.models))
            place = chosen.to(x.device)
            sums.add(x[place], reconstruction[place])
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
    inputs: StoreInputs, crosscoder: Path, documents: list[Path], compute: Compute, output: Path
) -> None:
    """Measure a crosscoder on the score split, in threshold and in training mode.

    Parameters
    ----------
    crosscoder
        folder of the fit
    documents
        tables of the documents, which name the source of each
    output
        figures to write (JSON)
    """
    fitted = Crosscoder.load(crosscoder).to(compute.start())
    with torch.no_grad():
        result = evaluate(inputs.open(), fitted, SPLIT, read_sources(documents))
    result["fve_published"] = fitted.settings.get("published_fve")
    result["warning"] = doubt(result, fitted.settings.get("layer"))
    if result["warning"]:
        cli.log(f"warning: {result['warning']}")
    files.write_json(output, result)


def doubt(result: Mapping[str, Any], layer: object) -> str:
    """Return why an imported crosscoder may stand at the wrong layer, or an empty text."""
    published, measured = result["fve_published"], result["fve"].values()
    mean = sum(measured) / len(measured)
    if published is None or mean >= published - LOSS:
        return ""
    return (
        f"the imported crosscoder explains {mean:.1%} of the variance at layer {layer}, where "
        f"{published:.1%} is published: check the fit's layer (blocks count from 1 here, elsewhere "
        "often from 0), and models and their order"
    )


def evaluate(
    store: ActivationStore, crosscoder: Crosscoder, split: str, sources: Mapping[int, str]
) -> dict[str, Any]:
    """Return the evaluation of ``crosscoder`` on ``split``, in threshold and in training mode.

    ``sources`` names the source of each document.

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
    device = crosscoder.mean.device
    rule = sparsity_rule(crosscoder.variant, 0.0, crosscoder.costs)
    if isinstance(rule, BatchTopK):  # else all positive scores of the first batch are candidates
        rule.last_threshold = torch.tensor(crosscoder.threshold, device=device)
    scales = score_scales(crosscoder.decoder_norms())
    by_source = SourceSums(models, sources)
    for rows, array in store.contiguous(split, BATCH):
        x = torch.from_numpy(array).to(device)
        pre = crosscoder.pre_activations(x)
        codes = codes_of(crosscoder, pre)
        reconstruction = decode(crosscoder, codes)
        threshold_fve.add(x, reconstruction)
        fired += codes.per_latent().cpu()
        l0_counts.append(codes.per_token().cpu())
        by_source.add(store.document[rows], x, reconstruction, l0_counts[-1])
        active = rule.select(pre * scales, k)
        chosen = Codes(active, pre[active.rows, active.columns], codes.shape)
        training_fve.add(x, decode(crosscoder, chosen))
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


main = cli.command(evaluate_crosscoder)


if __name__ == "__main__":
    raise SystemExit(main())
