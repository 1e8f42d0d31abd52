"""What each sparsity rule recovers of a known dictionary, over seeds.

``python -m tests.crosscoder.tabulate_recovery`` (part of ``make validate``) prints the table.
"""

from __future__ import annotations

import numpy as np

from tests.benchmarks.report import Figure, record
from tests.crosscoder import synthetic
from workflow_scripts.crosscoder.settings import Variant

VARIANTS: dict[Variant, float] = {"batch_topk": 0.0, "topk": 0.0, "l1": 0.3}
SEEDS = (0, 1, 2)
FEATURES, WIDTH, LATENTS, K, STEPS = 256, 64, 384, 10, 4000


def main() -> None:
    """Fit every variant over seeds of truth and fit; record means and ranges."""
    figures = []
    print("| rule | mean cosine | matched above 0.9 | AUROC | precision | recall |")
    print("|---|---|---|---|---|---|")
    for variant, price in VARIANTS.items():
        found = []
        for seed in SEEDS:
            truth = synthetic.known_dictionary(FEATURES, WIDTH, seed)
            fit = synthetic.fitted(truth, variant, LATENTS, K, STEPS, seed, price)
            found.append(synthetic.recovery(fit, truth, truth.activations(50_000, 77)))
        cells = []
        for name in ("mean_cosine", "matched", "auroc", "precision", "recall"):
            values = np.array([getattr(one, name) for one in found])
            cells.append(f"{values.mean():.2f} ({values.min():.2f} … {values.max():.2f})")
            figures.append(Figure("recovery", f"{variant} {name}", float(values.mean()), "share"))
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)
    record(figures)


if __name__ == "__main__":
    main()
