"""Does the run `real` answer what was taught? ``python -m tests.workflow.check_real results/real``.

Sets each verdict, by the sources of the text and by topics found in it, beside what the models were
taught, and the placebo's beside nothing. Exits non-zero where a kind is called that should not be,
or in the wrong direction; a change that is too slight to be called is told, and is no error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from workflow_scripts.common.tables import read_csv

LEAST_PURITY = 0.7
"""Share of a topic's documents that must be of kinds with one truth; else it has none."""
CALLED = ("gained", "lost")
SHOWN = ["documents", "behaviour", "behaviour_low", "behaviour_high", "distance", "verdict"]


def truths(taught: dict[str, dict[str, int]], baseline: str, candidate: str) -> pd.Series[str]:
    """Return what each kind of text is between two models: gained, lost or unchanged."""

    def truth(counts: dict[str, int]) -> str:
        before, after = counts[baseline] > 0, counts[candidate] > 0
        return "unchanged" if before == after else "gained" if after else "lost"

    return pd.Series({kind: truth(counts) for kind, counts in taught.items()})


def topic_truths(labels: pd.DataFrame, by_kind: pd.Series[str]) -> pd.Series[str]:
    """Return the truth of each topic: that of most of its documents, or `mixed`.

    ``labels`` has the columns document, labeller and label.
    """
    wide = labels.pivot(index="document", columns="labeller", values="label").dropna()
    truth = wide["source"].map(by_kind).groupby(wide["topics"]).value_counts(normalize=True)
    best = truth.reset_index(name="share").drop_duplicates("topics").set_index("topics")
    return best["source"].where(best["share"] >= LEAST_PURITY, "mixed")


def judged(verdicts: pd.Series[str], truth: pd.Series[str]) -> pd.Series[str]:
    """Return whether each verdict is right: ok, missed, FALSE, or `-` without a truth."""

    def word(verdict: str, true: str) -> str:
        if true == "mixed":
            return "-"
        called = verdict if verdict in CALLED else "unchanged"
        return "ok" if called == true else "missed" if called == "unchanged" else "FALSE"

    pairs = zip(verdicts, truth, strict=True)
    return pd.Series([word(*pair) for pair in pairs], index=verdicts.index)


def check_real(results: Path) -> int:
    """Print verdict and truth of each label; return how many verdicts are false."""
    taught = json.loads((results / "inputs" / "taught.json").read_text(encoding="utf-8"))
    changes = read_csv(results / "comparison" / "changes.csv")
    labels = pd.read_parquet(results / "dataset" / "labels.parquet")
    false = 0
    for (comparison, labeller), table in changes.groupby(["comparison", "labeller"]):
        by_kind = truths(taught, *table.iloc[0][["baseline", "candidate"]])
        truth = by_kind if labeller == "source" else topic_truths(labels, by_kind)
        shown = table.set_index("label")[SHOWN]
        shown.insert(0, "truth", truth.reindex(shown.index).fillna("mixed"))
        shown["is"] = judged(shown["verdict"], shown["truth"])
        print(f"\n{comparison}, by {labeller}")
        print(shown.sort_values(["truth", "behaviour"]).to_string(float_format="{:.3f}".format))
        changed = shown[shown["truth"].isin(CALLED)]
        found, wrong = (changed["is"] == "ok").sum(), (shown["is"] == "FALSE").sum()
        print(f"{found} of {len(changed)} taught kinds called, {wrong} called falsely")
        false += int(wrong)
    return false


def main() -> None:
    """Check, and say so."""
    raise SystemExit(min(1, check_real(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
