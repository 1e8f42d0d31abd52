"""Latents that write a token's own direction are said to promote it, in the right model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import torch

from tests.models.random_models import write_model
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.figures.report_data import promoted_columns
from workflow_scripts.latents import promote_tokens as step
from workflow_scripts.models.loading import load_model

NAMES, WIDTH, LATENTS = ("it", "simpo"), 16, 8
PLANTED, TOKEN = 5, 7


def written(manifest: Path) -> torch.Tensor:
    """Return the direction that a model's unembedding takes for a token."""
    model = load_model(manifest, torch.float32, torch.device("cpu"))
    direction: torch.Tensor = model.lm_head.weight[TOKEN] * model.model.norm.weight
    return direction.detach()


def test_the_planted_token_is_found(tmp_path: Path) -> None:
    models = {n: write_model(tmp_path / n, "llama", seed) for seed, n in enumerate(NAMES)}
    weights = initial_weights(LATENTS, 2, WIDTH, 0, 0.7)
    weights.directions[PLANTED, 1] = written(models["simpo"])
    crosscoder = Crosscoder(
        list(NAMES), weights, 0.1, torch.zeros((2, WIDTH)), torch.ones(2), 5, {}
    )
    crosscoder.save(tmp_path / "fit")
    live = [0, 2, PLANTED]
    pd.DataFrame({"latent": live}).to_parquet(tmp_path / "selection.parquet")
    outputs = [tmp_path / f"{n}.parquet" for n in range(2)]
    for output in outputs:
        flags = [
            f"--models={json.dumps(models, default=str)}",
            f"--crosscoder={tmp_path / 'fit'}",
            f"--selection={tmp_path / 'selection.parquet'}",
            f"--tokenizer={models['it']}",
            *("--promoted-tokens=3", "--seed=0", "--threads=1", "--device=cpu"),
        ]
        assert step.main([*flags, f"--output={output}"]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    table = pd.read_parquet(outputs[0])
    assert list(table) == list(step.COLUMNS)
    assert len(table) == len(live) * len(NAMES) * len(step.SIDES)
    assert (table["tokens"].map(len) == 3).all()
    own = table[(table["latent"] == PLANTED) & (table["model"] == "simpo")].set_index("side")
    promoted, suppressed = (
        [token.strip() for token in own["tokens"].to_dict()[side]] for side in step.SIDES
    )
    assert promoted[0] == f"w{TOKEN}"
    assert f"w{TOKEN}" not in suppressed
    assert own["p"].to_dict()["promoted"] < 0.05
    described = promoted_columns(outputs[0])
    assert set(described) == {f"{s} by {m}" for s in step.SIDES for m in NAMES}
    assert f"w{TOKEN}»" in described["promoted by simpo"][PLANTED]
    assert any("chance" in text for text in described["promoted by it"])


def test_columns_are_described() -> None:
    text = Path(step.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    section = next(part for part in text.split("\n# ") if "promoted.parquet" in part[:60])
    described = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M)))
    assert described == list(step.COLUMNS)
