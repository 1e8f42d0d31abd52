"""The check of the long run passes good tables and fails bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workflow import check_recovery

CHANGES = {"safety_refusal": "gained", "advice": "gained", "news": "lost", "multilingual": "lost"}
UNCHANGED = ("arithmetic", "narrative", "summarization")
DOSE = {"direct": 1000, "direct_b": 1000, "mid": 400, "low": 100}


def write(
    folder: Path,
    false_placebos: int = 0,
    false_calls: int = 0,
    missed: int = 0,
    wrong: int = 0,
    flat: int = 0,
) -> Path:
    """Write the table of a run whose first ``missed`` changes are not called."""
    rng = np.random.default_rng(0)
    recovery = []
    for name in (*DOSE, "placebo", "placebo_b"):
        for seed in range(5 if name in ("direct", "direct_b", "placebo", "placebo_b") else 1):
            for number, category in enumerate((*CHANGES, *UNCHANGED)):
                changed = name in DOSE and category in CHANGES
                word = CHANGES[category] if changed else "unchanged"
                tokens = DOSE.get(name, 0) * (number + 1) if changed else 0
                called = changed and number >= missed
                if name == "placebo" and seed < false_placebos and number == 0:
                    called = True
                if name == "direct" and seed < false_calls and number == len(CHANGES):
                    called = True
                sign = {"gained": 1, "lost": -1, "unchanged": 0}[word]
                right = "no" if number < wrong else "yes"
                effect = 0.5 if flat else np.log1p(tokens) / 20
                for statistic in ("behaviour", "verdict"):
                    recovery.append(
                        {
                            "comparison": name,
                            "seed": seed,
                            "labeller": "true",
                            "statistic": statistic,
                            "category": category,
                            "planted": word,
                            "baseline_tokens": tokens if word == "lost" else 0,
                            "candidate_tokens": tokens if word == "gained" else 0,
                            "effect": (sign or 1) * (effect + 0.001 * rng.standard_normal()),
                            "called": called,
                            "sign_right": right if changed and called else "n/a",
                        }
                    )
    (folder / "comparison").mkdir()
    pd.DataFrame(recovery).to_csv(folder / "comparison" / "recovery.csv", index=False)
    return folder


def test_a_good_table_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_recovery.main([str(write(tmp_path))]) == 0
    told = capsys.readouterr().out
    assert "called: 40 of 40" in told
    assert "placebo tables without a call: 10 of 10" in told
    power = pd.read_csv(tmp_path / "power.csv").set_index(["name", "statistic"])
    assert power.loc[("direct", "verdict"), "called"] == 20
    assert power.loc[("placebo", "verdict"), "planted"] == 0


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        ({"false_placebos": 2}, "placebo tables without a call: 8 of 10"),
        ({"false_calls": 1}, "false: 1 of 30"),
        ({"missed": 2}, "called: 20 of 40"),
        ({"wrong": 1}, "signs right: 30 of 40"),
        ({"flat": 1}, "dose against effect"),
    ],
)
def test_each_flaw_fails(tmp_path: Path, flaw: dict[str, int], told: str) -> None:
    failed = [text for passed, text in check_recovery.check(write(tmp_path, **flaw)) if not passed]
    assert len(failed) == 1
    assert told in failed[0]
