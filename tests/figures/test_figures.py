"""Every figure: not blank, tidy table beside, same bytes again, mistakes reported."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import Run
from workflow_scripts.common import files
from workflow_scripts.common.cli import UserError
from workflow_scripts.figures import category_rows, plot_category_shares, style
from workflow_scripts.figures.category_rows import ShownPair, ShownRows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

FIGURES = {
    "plot_two_axes": "--changes {changes} --answer {answer} --comparison direct",
    "plot_nu_plane": "--latents {l} --selection {s} --models it simpo",
    "plot_delta_norm": "--latents {l} --selection {s} --models it simpo --null {n}",
    "plot_firing_rates": "--latents {l} --selection {s} --models it simpo",
    "plot_training_curves": "--logs {t0} {t1} --models it simpo",
    "plot_category_changes": "--categories {c} --comparison anchored --fdr 0.1",
    "plot_direct_shares": "--categories {c} --comparison direct",
    "plot_category_shares": "--categories {c} --comparison anchored --labeller lexical",
    "plot_behaviour": "--gaps {g} --answer {answer} --comparison direct",
    "plot_recovery": "--recovery {r}",
    "plot_cause": "--cause {cause} --ablation {ablation}",
    "plot_layer_sweep": '--categories {sweep} --layers {{"direct":2,"deep":5}}',
    "plot_difference": "--difference {difference}",
    "plot_seed_stability": "--stability {stability} --models it simpo",
    "plot_weights": "--weights {weights}",
    "plot_witnesses": "--witnesses {witnesses} --answer {answer} --comparison direct",
}
FDR = {"plot_category_changes": ["--fdr", "0.1"]}


def flags_of(run: Run, name: str) -> list[str]:
    """Return the input flags of a figure."""
    latents = run.root / "latents/it_simpo/seed0"
    paths = {
        "changes": run.root / "comparison/changes.csv",
        "answer": run.root / "comparison/answer.json",
        "l": latents / "latents.parquet",
        "s": latents / "selection.parquet",
        "n": run.root / "latents/pt_it/seed0/latents.parquet",
        "t0": run.root / "crosscoder/it_simpo/seed0/training.csv",
        "t1": run.root / "crosscoder/it_simpo/seed1/training.csv",
        "c": run.root / "comparison/categories.csv",
        "r": run.root / "comparison/recovery.csv",
        "g": run.root / "comparison/gaps.csv",
        "cause": run.root / "cause.csv",
        "ablation": run.root / "ablation.csv",
        "sweep": run.root / "sweep.csv",
        "difference": run.root / "difference.csv",
        "stability": run.root / "stability.parquet",
        "weights": run.root / "weights.csv",
        "witnesses": run.root / "witnesses.csv",
    }
    return [flag.format(**paths) for flag in FIGURES[name].split()]


def plot(name: str, flags: list[str], folder: Path) -> int:
    """Run a figure's step."""
    module = importlib.import_module(f"workflow_scripts.figures.{name}")
    output = [f"--{kind}={folder / name}.{kind}" for kind in ("png", "pdf")]
    code: int = module.main([*flags, *output, f"--table={folder / name}.csv"])
    return code


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_and_drawn_again_alike(run: Run, tmp_path: Path, name: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert plot(name, flags_of(run, name), first) == 0
    assert plot(name, flags_of(run, name), second) == 0
    for kind in ("png", "pdf"):
        one, other = (folder / f"{name}.{kind}" for folder in (first, second))
        assert one.read_bytes() == other.read_bytes()
    picture = mpl.image.imread(first / f"{name}.png")[..., :3]
    inked = (np.abs(picture - 1).max(axis=2) > 0.1).mean()
    assert inked > 0.01
    assert len(pd.read_csv(first / f"{name}.csv")) > 5
    assert b"CreationDate" not in (first / f"{name}.pdf").read_bytes()


LABELLED = {name for name, flags in FIGURES.items() if "--categories" in flags} | {
    "plot_layer_sweep",
    "plot_recovery",
    "plot_cause",
}
"""Figures of categories, which somebody named."""


def labelled(run: Run, name: str, labeller: str, folder: Path) -> list[str]:
    """Return the input flags of a figure of categories with labels by ``labeller``."""
    if name == "plot_cause":  # its input holds the labels of one labeller
        ablation = pd.read_csv(run.root / "ablation.csv").assign(labeller=labeller)
        ablation.to_csv(folder / "ablation.csv", index=False)
        return ["--cause", str(run.root / "cause.csv"), "--ablation", str(folder / "ablation.csv")]
    flags = flags_of(run, name)
    if "--labeller" in flags:
        del flags[flags.index("--labeller") :]
    return [*flags, "--labeller", labeller]


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_a_figure_of_counted_words_says_so_behind_its_data(
    run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, tuple[list[Text], list[bool]]] = {}
    save = style.save

    def keep(figure: Figure, table: pd.DataFrame, output: style.Output) -> None:
        save(figure, table, output)
        marks = [text for text in figure.texts if text.get_text() == style.WATERMARK]
        drawn[labeller] = marks, [axes.patch.get_visible() for axes in figure.axes]

    monkeypatch.setattr(style, "save", keep)
    shape = {}
    for labeller in ("true", "lexical"):
        assert plot(name, labelled(run, name, labeller, tmp_path), tmp_path) == 0
        shape[labeller] = mpl.image.imread(tmp_path / f"{name}.png").shape
    (mark,), hidden = drawn["lexical"]
    assert mark.get_zorder() < 0
    assert not any(hidden)
    assert drawn["true"][0] == []
    assert all(drawn["true"][1])
    if name == "plot_cause":  # the same rows under either labeller
        assert shape["true"] == shape["lexical"]


def test_labels_of_several_kinds_are_not_mixed(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pd.read_csv(run.root / "sweep.csv", keep_default_na=False)
    lexical = table["labeller"] == "lexical"
    table = table[lexical | (table["comparison"] != "deep")]
    table.loc[table["comparison"] == "direct", "labeller"] = "my_llm"
    table.to_csv(tmp_path / "sweep.csv", index=False)
    sweep = ["--categories", str(tmp_path / "sweep.csv"), '--layers={"direct": 2, "deep": 5}']
    assert plot("plot_layer_sweep", sweep, tmp_path) == 2
    assert "would mix labels by lexical and by my_llm" in capsys.readouterr().err
    assert not (tmp_path / "plot_layer_sweep.png").exists()
    cause = labelled(run, "plot_cause", "lexical", tmp_path)
    mixed = pd.read_csv(tmp_path / "ablation.csv")
    mixed.loc[0, "labeller"] = "my_llm"
    mixed.to_csv(tmp_path / "ablation.csv", index=False)
    assert plot("plot_cause", cause, tmp_path) == 2
    assert "would mix labels by lexical and by my_llm" in capsys.readouterr().err
    rows = table[(table["comparison"] == "anchored") & (table["level"] == "category")]
    choice = ShownPair("lexical", "it", "simpo")
    monkeypatch.setattr(category_rows, "choose", lambda *_: (rows, choice))
    output = style.Output(png=tmp_path / "a.png", pdf=tmp_path / "a.pdf")
    with pytest.raises(UserError, match="would mix labels by lexical and by true"):
        plot_category_shares.plot_category_shares(tmp_path, "anchored", ShownRows(), output)
    assert not plt.get_fignums()


def test_every_figure_of_the_stage_is_tested() -> None:
    folder = Path(importlib.import_module("workflow_scripts.figures").__path__[0])
    assert {path.stem for path in folder.glob("plot_*.py")} == set(FIGURES)


def test_many_latents_are_shown_as_a_density(run: Run, tmp_path: Path) -> None:
    parts = run.root / "latents/it_simpo/seed0"
    for name in ("latents", "selection"):
        table = pd.concat([files.read_parquet(parts / f"{name}.parquet")] * 30)
        step = 220
        shift = table.groupby("latent").cumcount() * step
        table["latent"] += shift
        files.write_parquet(tmp_path / f"{name}.parquet", table)
    flags = ["--latents", str(tmp_path / "latents.parquet"), "--models", "it", "simpo"]
    flags += ["--selection", str(tmp_path / "selection.parquet")]
    assert plot("plot_nu_plane", flags, tmp_path) == 0


def test_no_unique_latent_at_all(run: Run, tmp_path: Path) -> None:
    """A run that finds nothing still has its figures."""
    table = pd.read_csv(run.root / "comparison/categories.csv", keep_default_na=False)
    zero = ["n_baseline", "n_candidate", "unique", "unique_share"]
    table[zero] = 0
    table.to_csv(tmp_path / "categories.csv", index=False)
    for name, comparison in (
        ("plot_category_changes", "anchored"),
        ("plot_direct_shares", "direct"),
    ):
        flags = ["--categories", str(tmp_path / "categories.csv"), "--comparison", comparison]
        flags += FDR.get(name, [])
        assert plot(name, flags, tmp_path) == 0


def test_how_scores_and_latents_go_together(run: Run, tmp_path: Path) -> None:
    assert plot("plot_behaviour", flags_of(run, "plot_behaviour"), tmp_path) == 0
    reading = pd.read_csv(tmp_path / "plot_behaviour.csv").set_index("label")["reading"]
    assert reading["safety_refusal"] == "gap with a change"
    assert reading["advice"] == "within noise"


def test_without_anything_to_show_a_figure_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recovery.csv").write_text("comparison,kind,labeller\n")
    assert plot("plot_recovery", ["--recovery", str(tmp_path / "recovery.csv")], tmp_path) == 0
    comparison = run.root / "comparison"
    gaps = ["--gaps", str(comparison / "gaps.csv"), "--comparison", "anchored"]
    gaps += ["--answer", str(comparison / "answer.json")]
    assert plot("plot_behaviour", gaps, tmp_path) == 0


def test_no_category_at_all(run: Run, tmp_path: Path) -> None:
    """A run whose latents are all unassigned still has its figures."""
    table = pd.read_csv(run.root / "comparison/categories.csv", keep_default_na=False)
    table["tested"] = False
    table.to_csv(tmp_path / "categories.csv", index=False)
    flags = ["--categories", str(tmp_path / "categories.csv"), "--comparison", "direct"]
    for name in ("plot_category_changes", "plot_category_shares", "plot_direct_shares"):
        assert plot(name, [*flags, *FDR.get(name, [])], tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        ("plot_direct_shares", "--categories {c} --comparison anchored", "no direct share"),
        (
            "plot_category_changes",
            "--categories {c} --comparison nope --fdr 0.1",
            "has no row of nope",
        ),
        (
            "plot_category_changes",
            "--categories nope.csv --comparison direct --fdr 0.1",
            "does not exist",
        ),
        ("plot_training_curves", "--logs nope.csv --models it", "does not exist"),
    ],
)
def test_mistakes_are_told(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    flags: str,
    told: str,
) -> None:
    folder = run.root / "comparison"
    filled = [flag.format(c=folder / "categories.csv") for flag in flags.split()]
    assert plot(name, filled, tmp_path) == 2
    assert told in capsys.readouterr().err
