"""Does the verdict hold on models and text it was not made on? Part of ``make validate``.

``python -m tests.comparison.families.tabulate_families`` trains families of small models,
plants changes of seven kinds in each and prints, per family and kind, what was called. Thresholds
were chosen on the first five and frozen; the others were run after that. It exits with 1
when a goal is missed on the others: changes at full dose called in at least 90 % and with the
right direction in 95 % of calls, unchanged labels called in at most 2 %, 95 % of placebos quiet.
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tests.comparison.families.training import Family, Measured, Trainees
from workflow_scripts.comparison.judge_changes import rows_of
from workflow_scripts.comparison.label_text import LabelText, measures
from workflow_scripts.comparison.settings import Judgement
from workflow_scripts.comparison.verdicts import CHANGED
from workflow_scripts.dataset.settings import Topics
from workflow_scripts.dataset.topics import fit_topics

CHOSEN = {
    "gemma_generated": Family("gemma2", 64, 4, 1500, "generated", 12, 150, True, 2e-3, 0.4, 1.0),
    "llama_invented": Family("llama", 64, 3, 1024, "invented", 9, 300, True, 1e-3, 0.3, 1.0),
    "qwen_real": Family("qwen2", 96, 4, 2000, "real", 8, 220, False, 1e-3, 0.5, 0.25),
    "llama_forty": Family("llama", 64, 2, 1500, "invented", 40, 60, True, 2e-3, 0.5, 0.5),
    "gemma_lora": Family("gemma2", 96, 3, 2000, "real", 6, 400, True, 1e-2, 1.0, 0.3, 512, True),
}
FROZEN = {
    "qwen_four": Family("qwen2", 64, 5, 1200, "generated", 4, 250, True, 1.5e-3, 0.5, 1.0),
    "llama_real": Family("llama", 128, 3, 2500, "real", 12, 120, True, 1e-3, 0.7, 0.5),
    "llama_real_more": Family("llama", 128, 3, 2500, "real", 12, 480, True, 1e-3, 0.7, 0.25),
    "gemma_invented": Family("gemma2", 80, 4, 1500, "invented", 15, 110, False, 1.5e-3, 0.5, 0.5),
    "qwen_generated": Family("qwen2", 96, 3, 2500, "generated", 18, 110, False, 2e-3, 0.5, 0.3),
    "llama_lora": Family("llama", 96, 6, 1000, "invented", 7, 400, True, 5e-3, 0.6, 0.6, 256, True),
}
KINDS: Mapping[str, tuple[float, float]] = {
    "none": (0, 1),
    "one": (0, 1),
    "third": (1 / 3, 1),
    "third, a quarter of the dose": (1 / 3, 0.25),
    "third, a twelfth of the dose": (1 / 3, 0.08),
    "two thirds": (2 / 3, 1),
    "all": (1, 1),
}
"""Share of the categories that change, and dose."""
FULL = ("one", "third", "two thirds", "all")
WRONG = (0.1, 0.3)
"""Shares of wrong labels that are tried."""
NO_LABEL = ""
LEAST_CALLED, LEAST_RIGHT, MOST_FALSE, LEAST_QUIET = 0.9, 0.95, 0.02, 0.95


def label_texts(
    before: Measured, after: Measured, documents: Sequence[Sequence[int]], labels: NDArray[np.str_]
) -> dict[str, LabelText]:
    """Return what two models make of each label's text, as the workflow measures it."""
    sides = []
    for states in (before.states, after.states):
        centred = states - states.mean(0)
        sides.append(centred / np.sqrt(np.square(centred).sum(1).mean()))
    starts = np.cumsum([0, *(len(row) - 1 for row in documents)])[:-1]
    gap = before.losses - after.losses
    squares = (np.square(sides[1] - sides[0]), (np.square(sides[0]) + np.square(sides[1])) / 2)
    counts = np.diff([*starts, len(gap)])
    table = pd.DataFrame(
        {
            "gap": np.add.reduceat(gap, starts) / counts,
            "spread": np.add.reduceat(np.abs(gap), starts) / counts,
            "one": 1.0,
            "difference": np.add.reduceat(squares[0].sum(1), starts),
            "energy": np.add.reduceat(squares[1].sum(1), starts),
        }
    )
    ratios = {"gap": ("gap", "one"), "distance": ("difference", "energy")}
    texts = {}
    for name in sorted(set(labels.tolist()) - {NO_LABEL}):
        rows = table[labels == name]
        found = measures(rows, ratios, zlib.crc32(name.encode()), 0.95)
        spread = float(rows["spread"].mean())
        texts[name] = LabelText(found["gap"], spread, 0, {"distance": found["distance"]})
    return texts


@dataclass(frozen=True)
class Labelling:
    """A label per document, and the category that most documents of each label have."""

    labels: NDArray[np.str_]
    category_of: Mapping[str, str]


def labellings(trainees: Trainees) -> dict[str, Labelling]:
    """Return true labels, some wrong ones, and topics found in the text."""
    true, rng = trainees.labels, np.random.default_rng(0)
    found = {"true": true}
    for share in WRONG:
        others = rng.permutation(true)
        found[f"{share:.0%} wrong"] = np.where(rng.random(len(true)) < share, others, true)
    model = fit_topics(trainees.texts, Topics(), 0)
    if model is not None:
        numbers = model.predict(trainees.texts)
        found["topics"] = np.where(numbers < 0, NO_LABEL, numbers.astype(str))
    return {name: Labelling(labels, _majority(labels, true)) for name, labels in found.items()}


def _majority(labels: NDArray[np.str_], true: NDArray[np.str_]) -> dict[str, str]:
    names = sorted(set(labels.tolist()) - {NO_LABEL})
    return {name: Counter(true[labels == name].tolist()).most_common(1)[0][0] for name in names}


def outcomes(name: str) -> list[dict[str, object]]:
    """Return, for each kind of change in a family and each labelling, a row per label."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    family = (CHOSEN | FROZEN)[name]
    trainees = Trainees(name, family)
    base, known = trainees.measure(trainees.base), labellings(trainees)
    for kind in KINDS:
        truth, teach = planned(trainees, kind)
        seed = zlib.crc32((name + kind).encode()) % 10**6
        sides = [base, *(trainees.measure(trainees.tune(t, seed + i)) for i, t in enumerate(teach))]
        judged = np.isin(trainees.labels, list(truth))
        for labeller, labelling in known.items():
            labels = np.where(judged, labelling.labels, NO_LABEL)
            texts = label_texts(sides[-2], sides[-1], trainees.documents, labels)
            keys = {"family": name, "kind": kind, "labels": labeller}
            for row in rows_of(texts, Judgement()):
                category = labelling.category_of[str(row["label"])]
                rows.append(keys | row | {"truth": truth.get(category, 0)})
    return rows


def planned(trainees: Trainees, kind: str) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Return each judged category's planted direction, and what each fine-tune is taught.

    A category that the base does not know and its fine-tune is taught has changed between the two,
    however little it was taught. So with a base and its fine-tune what changes is new to the base,
    and what does not is known to it; the other categories are left out.
    """
    share, dose = KINDS[kind]
    family, names = trainees.family, trainees.categories
    new = names if family.siblings else [n for n in names if n not in trainees.known]
    count = {"none": 0, "one": 1}.get(kind, max(1, round(share * len(new))))
    changed = trainees.random.sample(new, count)
    lost = changed[: count // 2] if family.siblings else []
    same = names if family.siblings else trainees.known if kind != "all" else []
    truth = dict.fromkeys(same, 0) | {n: -1 if n in lost else 1 for n in changed}
    rehearsed = max(1, int(family.documents * family.rehearsed))
    taught = max(1, int(family.documents * dose))
    signs = (-1, 1) if family.siblings else (1,)
    return truth, [
        {n: rehearsed for n, sign in truth.items() if not sign}
        | {n: taught for n, sign in truth.items() if sign == own}
        for own in signs
    ]


def table(rows: pd.DataFrame, by: Sequence[str] = ("family", "kind")) -> pd.DataFrame:
    """Return, by family and kind or others, how many labels were changed, called, rightly so."""
    called = rows["verdict"].isin(CHANGED)
    planted = rows["truth"] != 0
    right = called & planted & (np.sign(rows["behaviour"]) == rows["truth"])
    marked = rows.assign(
        changed=planted,
        called=called & planted,
        right=right,
        unchanged=~planted,
        false=called & ~planted,
    )
    columns = ["changed", "called", "right", "unchanged", "false"]
    return marked.groupby(list(by), sort=False)[columns].sum().reset_index()


def checks(counts: pd.DataFrame) -> Iterator[tuple[bool, str]]:
    """Yield whether each goal is met by some families, with the figure."""
    full = counts[counts["kind"].isin(FULL)]
    changed, called, right = (int(full[name].sum()) for name in ("changed", "called", "right"))
    false, unchanged = int(counts["false"].sum()), int(counts["unchanged"].sum())
    placebos = counts[counts["kind"] == "none"]
    quiet = int((placebos["false"] == 0).sum())
    yield called >= LEAST_CALLED * changed, f"called at full dose: {called} of {changed}"
    yield right >= LEAST_RIGHT * called, f"direction right: {right} of {called}"
    yield false <= MOST_FALSE * unchanged, f"unchanged called: {false} of {unchanged}"
    yield quiet >= LEAST_QUIET * len(placebos), f"placebos quiet: {quiet} of {len(placebos)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train, judge, print, and write ``families.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/families.csv"))
    parser.add_argument("--families", nargs="+", default=[*CHOSEN, *FROZEN])
    options = parser.parse_args(argv)
    with get_context("spawn").Pool() as pool:
        rows = pd.DataFrame([r for f in pool.imap(outcomes, options.families) for r in f])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(options.output, index=False)
    counts = table(rows[rows["labels"] == "true"])
    print(counts.to_string(index=False))
    full = rows[rows["kind"].isin(FULL)]
    half = np.where(full["family"].isin(list(CHOSEN)), "chosen", "frozen")
    print(table(full.assign(half=half), ["half", "labels"]).to_string(index=False))
    passed = True
    for title, names in (("chosen", CHOSEN), ("frozen", FROZEN)):
        part = counts[counts["family"].isin(list(names))]
        for met, said in checks(part) if len(part) else ():
            print("ok  " if met else "MISS", title, said)
            passed &= met or title == "chosen"
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
