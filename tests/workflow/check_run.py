"""Is a finished run right? ``python -m tests.workflow.check_run results/quickstart``.

Reads artifacts only, prints a line per check and what latents show beside the verdicts, and exits
non-zero when a check fails.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.common.tables import read_csv

LEAST_FVE = 0.95
L0_TOLERANCE = 0.05
LEAST_UNIQUE = 60
LABELLERS = ("true", "topics")
"""Who must find all planted changes, and call nothing else."""
FIGURES = ("nu_plane", "delta_norm", "category_changes", "training_curves")
LEAST_INK = 0.002
"""Share of pixels that must differ from a figure's background."""


@dataclass(frozen=True)
class Result:
    """One check: whether it passed, and what it saw."""

    passed: bool
    told: str


@dataclass(frozen=True)
class Run:
    """The artifacts of a run that several checks read."""

    results: Path
    categories: pd.DataFrame
    changes: pd.DataFrame
    planted: pd.DataFrame
    answer: dict[str, Any]
    comparisons: dict[str, Any]

    @classmethod
    def read(cls, results: Path) -> Run:
        """Read a run; a missing artifact raises FileNotFoundError."""
        record = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
        comparison = results / "comparison"
        answer = json.loads((comparison / "answer.json").read_text(encoding="utf-8"))
        planted = pd.read_csv(results / "models" / "planted.csv")
        pair = planted[["baseline", "candidate"]] == [answer["baseline"], answer["candidate"]]
        return cls(
            results,
            read_csv(comparison / "categories.csv"),
            read_csv(comparison / "changes.csv"),
            planted[pair.all(axis=1)],
            answer,
            record["settings"]["comparisons"],
        )

    def rows(self, comparison: str, labeller: str) -> pd.DataFrame:
        """Return the tested categories of one comparison by one labeller."""
        table = self.categories
        chosen = (table["comparison"] == comparison) & (table["labeller"] == labeller)
        return table[chosen & (table["level"] == "category") & table["tested"].astype(bool)]

    @property
    def anchored(self) -> list[str]:
        """Comparisons whose sides lie in two crosscoders."""
        pairs = self.comparisons.items()
        return [n for n, c in pairs if c["baseline"]["fit"] != c["candidate"]["fit"]]


def check_crosscoders(run: Run) -> Iterator[Result]:
    """Held-out FVE of every model, and L0 in threshold mode against k."""
    paths = sorted(run.results.glob("crosscoder/*/seed*/evaluation.json"))
    if not paths:
        yield Result(False, "there is no crosscoder")
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        name = f"{path.parent.parent.name} {path.parent.name}"
        fve = ", ".join(f"{model} {value:.4f}" for model, value in found["fve"].items())
        good = bool(found["fve"]) and min(found["fve"].values()) >= LEAST_FVE
        yield Result(good, f"{name}: held-out FVE {fve} (at least {LEAST_FVE})")
        ratio = found["l0_threshold"] / found["k"]
        near = abs(ratio - 1) <= L0_TOLERANCE
        yield Result(near, f"{name}: L0 {found['l0_threshold']:.2f} at k = {found['k']} (±5 %)")


def check_unique(run: Run) -> Iterator[Result]:
    """Enough unique latents on both sides of the anchored comparison."""
    if not run.anchored:
        yield Result(False, "there is no anchored comparison")
    for name in run.anchored:
        for label in ("baseline", "candidate"):
            side = run.comparisons[name][label]
            for path in sorted(run.results.glob(f"latents/{side['fit']}/seed*/selection.parquet")):
                claims = pd.read_parquet(path).filter(regex=f"^unique_{side['model']}_vs_")
                count = int((claims.all(axis=1) & bool(claims.shape[1])).sum())
                told = f"{name}: {count} latents unique to {side['model']} ({path.parent.name})"
                yield Result(count >= LEAST_UNIQUE, f"{told} (at least {LEAST_UNIQUE})")


def check_planted(run: Run) -> Iterator[Result]:
    """Known categories, and topics found in the text, tell all planted changes and nothing else."""
    counts = run.planted["planted"].value_counts()
    enough = counts.get("gained", 0) >= 2 and counts.get("lost", 0) >= 2
    yield Result(enough, f"planted: {counts.to_dict()} (at least two gained, two lost)")
    primary = run.answer["comparison"]
    answers = [a for a in run.answer["all"] if a["comparison"] == primary]
    for labeller in LABELLERS:
        own = [answer for answer in answers if answer["labeller"] == labeller]
        if not own:
            yield Result(False, f"{primary} has no answer with the labels {labeller}")
        for answer in own:
            yield from _check_answer(answer, f"{primary} seed {answer['seed']}, {labeller}")


def _check_answer(answer: dict[str, Any], where: str) -> Iterator[Result]:
    total, found = answer["planted_total"], answer["planted_found"]
    told = f"{where}: {found} of {total} planted changes found, with the right direction"
    yield Result(bool(total) and found == total, told)
    false = answer["unchanged_called_names"]
    told = f"{where}: none of {answer['unchanged_total']} unchanged labels called"
    known = bool(answer["unchanged_total"])
    yield Result(known and not false, told + (f", but {', '.join(false)}" if false else ""))


def check_counts(run: Run) -> Iterator[Result]:
    """The table's counts of the primary comparison are those of the latents it is made from."""
    primary = run.answer["comparison"]
    sides = run.comparisons[primary]
    fit, models = sides["baseline"]["fit"], [sides[s]["model"] for s in ("baseline", "candidate")]
    for seed, table in run.rows(primary, "true").groupby("seed"):
        folder = run.results / "latents" / fit / f"seed{seed}"
        latents = pd.read_parquet(folder / "latents.parquet")
        selection = pd.read_parquet(folder / "selection.parquet")
        live = selection.merge(latents[["latent", "true_category"]], on="latent")
        own, other = models
        either = live[f"unique_{own}_vs_{other}"] | live[f"unique_{other}_vs_{own}"]
        counted = either.groupby(live["true_category"]).agg(["sum", "size"])
        stated = table.set_index("name")[["unique", "live"]]
        joined = stated.join(counted).fillna(0)
        same = (joined["unique"] == joined["sum"]) & (joined["live"] == joined["size"])
        told = f"{primary} seed {seed}: counts agree with latents.parquet"
        yield Result(bool(same.all()), told)


def check_figures(run: Run) -> Iterator[Result]:
    """Every figure shows something."""
    import matplotlib.image as mpimg

    paths = sorted((run.results / "figures").rglob("*.png"))
    for name in FIGURES:
        if not any(name in str(path) for path in paths):
            yield Result(False, f"there is no figure {name}")
    blank = []
    for path in paths:
        pixels = np.asarray(mpimg.imread(path))[..., :3]
        ink = (np.abs(pixels - pixels[0, 0]).max(axis=2) > 0.05).mean()
        if ink < LEAST_INK:
            blank.append(path.name)
    told = f"{len(paths)} figures, none blank"
    yield Result(bool(paths) and not blank, told + (f", but {', '.join(blank)}" if blank else ""))


def check_report(run: Run) -> Iterator[Result]:
    """The report needs nothing from outside."""
    path = run.results / "report" / "index.html"
    if not path.exists():
        yield Result(False, "there is no report")
        return
    text = path.read_text(encoding="utf-8")
    outside = re.findall(r"(?<!xmlns=\")(?<!xlink=\")https?://[^\s\"'<>)]+", text)
    told = "the report holds no external URL"
    yield Result(not outside, told + (f", but {outside[0]}" if outside else ""))


CHECKS: tuple[Callable[[Run], Iterator[Result]], ...] = (
    check_crosscoders,
    check_unique,
    check_planted,
    check_counts,
    check_figures,
    check_report,
)


def check_run(results: Path) -> list[Result]:
    """Return the results of all checks; an artifact that is missing fails its check."""
    try:
        run = Run.read(results)
    except FileNotFoundError as error:
        return [Result(False, f"{error.filename} is missing: run the workflow")]
    found: list[Result] = []
    for check in CHECKS:
        try:
            found.extend(check(run))
        except FileNotFoundError as error:
            found.append(Result(False, f"{error.filename} is missing"))
    return found


def print_tables(results: Path) -> None:
    """Print, per label, both effects and the verdict; for categories what latents show beside."""
    run = Run.read(results)
    truth = run.planted.set_index("category")["planted"]
    primary, published = run.answer["comparison"], (run.anchored or [""])[0]
    own = run.changes[run.changes["comparison"] == primary]
    effects = ["documents", "behaviour", "behaviour_q", "representation", "representation_q"]
    keys = ["seed", "label"]
    latents = _labelled(run.rows(primary, "true")).set_index(keys)["unique_share"]
    counts = _labelled(run.rows(published, "true")).set_index(keys)["percent_change"]
    for labeller in LABELLERS:
        table = own[own["labeller"] == labeller].set_index(keys)
        shown = table[["verdict", *effects]].join(latents).join(counts)
        planted = truth.reindex(shown.index.get_level_values("label")).fillna("-")
        shown.insert(0, "planted", planted.to_numpy())
        print(f"\n{labeller} labels: {primary}, beside it counts of {published} (as published)")
        print(shown.to_string(float_format=lambda v: f"{v:.3g}"))


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.rename(columns={"name": "label"})


def main(argv: Sequence[str] | None = None) -> int:
    """Check a run and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/<run>")
    results = parser.parse_args(argv).results
    found = check_run(results)
    for result in found:
        print("ok  " if result.passed else "FAIL", result.told)
    failed = sum(not result.passed for result in found)
    if (results / "comparison" / "answer.json").exists():
        print_tables(results)
    print(f"\n{len(found) - failed} of {len(found)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
