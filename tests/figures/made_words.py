"""Tables of what two models predict and say differently, with given texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice, product

import numpy as np
import pandas as pd

from tests.comparison.run_folder import Run
from workflow_scripts.common import files
from workflow_scripts.common.tables import write_csv
from workflow_scripts.comparison import compare_answers, compare_predictions, generate_answers
from workflow_scripts.comparison.compare_predictions import TOKEN_COLUMNS

SIDES = ("baseline", "candidate")
TEXTS = ("Paris", " is", " a city")


def write_words(run: Run, texts: Sequence[str] = TEXTS) -> list[str]:
    """Write the tables for the labels of a run; return the report's flags."""
    known = files.read_parquet(run.root / "dataset/labels.parquet")
    labels = known.drop_duplicates(["labeller", "label"])
    keys, folder = labels[["labeller", "label"]], run.root / "comparison/said"
    size = np.linspace(0.1, 1, len(keys))
    numbers = keys.assign(documents=3)
    for name in compare_predictions.MEASURES:
        for end, factor in (("", 1), ("_low", 0.8), ("_high", 1.2)):
            numbers[f"{name}{end}"] = factor * size
    write_csv(folder / "predictions.csv", numbers, compare_predictions.LABEL_COLUMNS)
    words = list(islice(cycle(texts), 4))
    read = (compare_predictions.PREDICTION, compare_predictions.ACTIVATION)
    sides = list(product(read, ("promoted", "suppressed")))
    tokens = [
        {**key, "read": kind, "side": side, "tokens": words, "values": [1.0] * 4}
        for key in keys.to_dict("records")
        for kind, side in sides
    ]
    files.write_parquet(
        folder / "tokens.parquet", pd.DataFrame(tokens, columns=list(TOKEN_COLUMNS))
    )
    documents = sorted(labels["document"].unique())
    rows = pd.DataFrame({"document": documents, "divergence": 0.5})
    rows["pieces"], rows["divergences"] = [words] * len(rows), [[0.0, 0.4, 3.0, 1.0]] * len(rows)
    files.write_parquet(folder / "rows.parquet", rows)
    said = pd.DataFrame({"document": documents, "prompt": words[0], "given": words[1]})
    said = said.assign(baseline=words[2], candidate=words[3], distance=0.5)
    said = said.assign(**{f"{name}_{side}": 1 for name in ("tokens", "ended") for side in SIDES})
    files.write_parquet(folder / "answers.parquet", said[list(generate_answers.COLUMNS)])
    ends = {"difference": size, "low": 0.5 * size, "high": 1.5 * size}
    distances = keys.assign(documents=3, measure="distance", **ends)
    lengths = keys.assign(documents=3, measure="tokens", baseline=4, candidate=5, **ends)
    write_csv(folder / "rates.csv", pd.concat([distances, lengths]), compare_answers.COLUMNS)
    named = {"predictions": "predictions.csv", "predicted-tokens": "tokens.parquet"}
    named |= {"predicted-rows": "rows.parquet", "answers": "answers.parquet"}
    named |= {"answer-rates": "rates.csv"}
    return [f"--{flag}={folder / name}" for flag, name in named.items()]
