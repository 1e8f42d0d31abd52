"""Agreement by hand-computed tables, and where it is undefined."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workflow_scripts.autointerp import measure_agreement
from workflow_scripts.autointerp.agreement import (
    codes,
    cohen_kappa,
    gwet_ac1,
    krippendorff_alpha,
)


def test_alpha_of_krippendorffs_own_example() -> None:
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C:
    # four observers, twelve units, missing values; nominal alpha 0.743.
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = list(zip(*rows, strict=True))
    table, names = codes(units)
    assert len(names) == 5
    alpha = krippendorff_alpha(table)
    assert alpha.estimate == pytest.approx(0.743, abs=5e-4)
    assert alpha.low < alpha.estimate < alpha.high


def test_alpha_of_two_observers_without_missing_values() -> None:
    # The same source, section B, two observers, ten units, nominal: 0.095 for binary data.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    table, _ = codes(list(zip(first, second, strict=True)))
    assert krippendorff_alpha(table).estimate == pytest.approx(0.095, abs=5e-4)


def test_one_category_leaves_agreement_undefined() -> None:
    table = np.zeros((10, 2), np.int64)
    assert np.isnan(krippendorff_alpha(table).estimate)
    assert np.isnan(cohen_kappa(table[:, 0], table[:, 1]))
    assert np.isnan(gwet_ac1(table[:, 0], table[:, 1], 1))


def test_units_with_one_label_do_not_count() -> None:
    table = np.array([[0, 0], [1, 1], [0, 1]])
    more = np.concatenate([table, [[2, -1], [-1, 0], [-1, -1]]])
    assert krippendorff_alpha(table).estimate == krippendorff_alpha(more).estimate
    assert cohen_kappa(table[:, 0], table[:, 1]) == cohen_kappa(more[:, 0], more[:, 1])
    assert np.isnan(krippendorff_alpha(np.full((3, 2), -1)).estimate)
    assert np.isnan(krippendorff_alpha(np.array([[0, -1]])).estimate)


def test_kappa_by_hand() -> None:
    # 35 of 50 agree; shares of yes 25/50 and 30/50; chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    first = np.array([1] * 25 + [0] * 25)
    second = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)


def test_ac1_by_hand() -> None:
    # 8 of 10 agree; mean shares 0.9 and 0.1; chance 0.18; (0.8 - 0.18) / 0.82.
    first = np.array([0] * 9 + [1])
    second = np.array([0] * 8 + [1, 0])
    assert gwet_ac1(first, second, 2) == pytest.approx((0.8 - 0.18) / 0.82)


def test_the_lexical_annotator_alone_has_no_agreement(tmp_path: Path) -> None:
    labels = pd.DataFrame(
        {
            "latent": [1, 2],
            "annotator": "lexical",
            "annotator_kind": "lexical",
            "llm_used": False,
            "replicate": 0,
            "status": "ok",
            "category_ungated": ["one", "two"],
        }
    )
    labels.to_parquet(tmp_path / "labels.parquet")
    files = ["--labels", str(tmp_path / "labels.parquet"), "--output", str(tmp_path / "a.json")]
    assert measure_agreement.main([*files, "--seed=0"]) == 0
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["all"]["alpha"]["value"] is None
    assert result["reliable"] is None
    assert "no LLM" in result["banner"]
