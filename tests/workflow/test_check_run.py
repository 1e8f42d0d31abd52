"""The checker passes a good run and fails a permuted, a shuffled and an empty one."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from tests.comparison.run_folder import write_divergences, write_text_manifest
from tests.workflow import check_run
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.comparison import compare_categories, judge_changes, score_recovery

UNCHANGED = ("advice", "summarization", "multilingual", "structured_output", "creative_writing")
TRUTH = {
    "safety_refusal": "gained",
    "instruction_following": "gained",
    "hallucination_management": "lost",
    "self_reference": "lost",
    **dict.fromkeys(UNCHANGED, "unchanged"),
}
COMPARISONS = {
    "anchored": {
        "baseline": {"fit": "pt_it", "model": "it"},
        "candidate": {"fit": "pt_simpo", "model": "simpo"},
    },
    "direct": {
        "anchored": "anchored",
        "baseline": {"fit": "it_simpo", "model": "it"},
        "candidate": {"fit": "it_simpo", "model": "simpo"},
    },
}
PER_CATEGORY = 40
DOCUMENTS = 30  # of each category


def latent_tables(models: list[str], rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return latents and selection of a fit in which changed categories have unique latents."""
    own, other = models
    rows = []
    for category, planted in TRUTH.items():
        for number in range(PER_CATEGORY):
            if own == "pt":
                share = {"gained": 0.9, "lost": 0.1}[planted] if planted != "unchanged" else 0.4
                share = 1 - share if other == "it" and planted != "unchanged" else share
                owner = other if rng.random() < share else ""
                delta = 0.5
            else:
                unique = planted != "unchanged" and number % 2 == 0
                side = {"gained": 1, "lost": -1, "unchanged": 0}[planted]
                owner = (other if side > 0 else own) if unique else ""
                delta = 0.5 + 0.02 * side + rng.normal(0, 0.005)
            rows.append((category, owner, delta))
    latents = pd.DataFrame(
        {
            "latent": np.arange(len(rows)),
            "live": True,
            "true_category": [row[0] for row in rows],
            f"delta_norm_{own}_{other}": [row[2] for row in rows],
        }
    )
    owners = pd.Series([row[1] for row in rows])
    selection = pd.DataFrame({"latent": latents["latent"], "unique_to": owners})
    selection[f"unique_{own}_vs_{other}"] = owners == own
    selection[f"unique_{other}_vs_{own}"] = owners == other
    return latents, selection


def write_documents(results: Path, rng: np.random.Generator) -> None:
    """Write documents whose text the models predict and represent as planted; topics name it."""
    names = np.repeat(list(TRUTH), DOCUMENTS)
    side = pd.Series(TRUTH).map({"gained": 1.0, "lost": -1.0, "unchanged": 0.0})[names].to_numpy()
    numbers = np.arange(len(names))
    labels = [
        pd.DataFrame({"document": numbers, "labeller": labeller, "label": label})
        for labeller, label in (("topics", [f"words of {n}" for n in names]), ("true", names))
    ]
    (results / "dataset").mkdir()
    pd.concat(labels).to_parquet(results / "dataset" / "labels.parquet")
    (results / "comparison" / "documents").mkdir(parents=True)
    before = rng.normal(3, 1, (len(names), 20))
    after = before - side[:, None] + rng.normal(0, 0.05, before.shape)
    losses = [
        pd.DataFrame({"document": numbers, "model": model, "tokens": 20, "losses": list(values)})
        for model, values in (("it", before), ("simpo", after))
    ]
    pd.concat(losses).to_parquet(results / "comparison" / "losses.parquet")
    write_divergences(results / "comparison" / "divergences.parquet", numbers, side != 0)
    weights = pd.DataFrame({"document": numbers, "tokens": 20, "energy": 10.0, "total": 9.0})
    weights["difference"] = np.where(side != 0, 8.0, 1.0) * rng.gamma(50, 1 / 50, len(names))
    weights["signed"], weights["delta_norm"] = side, 0.5 + 0.1 * side
    weights["unique_baseline"] = weights["unique_candidate"] = 0.1
    weights.to_parquet(results / "comparison" / "documents" / "direct_seed0.parquet")


def compare(results: Path) -> None:
    """Run the comparison's steps on the artifacts of ``results``."""
    fits = {}
    for fit in ("pt_it", "pt_simpo", "it_simpo"):
        folder = results / "latents" / fit / "seed0"
        names = ("latents", "selection", "sampled")
        files = {name: str(folder / f"{name}.parquet") for name in names}
        labels = [str(folder / "labels.parquet")]
        fits[fit] = {"models": fit.split("_"), "seeds": {"0": {**files, "labels": labels}}}
    write_text_manifest(results / "dataset" / "manifest.json")
    comparison = results / "comparison"
    taxonomy = ROOT / "config" / "taxonomy.yaml"
    code = compare_categories.main(
        [
            f"--fits={json.dumps(fits)}",
            f"--comparisons={json.dumps(COMPARISONS)}",
            f"--taxonomy={taxonomy}",
            f"--output={comparison / 'categories.csv'}",
        ]
    )
    assert code == 0
    pair = {"baseline": "it", "candidate": "simpo"}
    documents = {"0": str(comparison / "documents" / "direct_seed0.parquet")}
    pairs = {"anchored": {**pair, "documents": {}}, "direct": {**pair, "documents": documents}}
    code = judge_changes.main(
        [
            f"--pairs={json.dumps(pairs)}",
            f"--labels={results / 'dataset' / 'labels.parquet'}",
            f"--losses={comparison / 'losses.parquet'}",
            f"--divergences={comparison / 'divergences.parquet'}",
            "--seed=0",
            f"--output={comparison / 'changes.csv'}",
        ]
    )
    assert code == 0
    code = score_recovery.main(
        [
            f"--categories={comparison / 'categories.csv'}",
            f"--changes={comparison / 'changes.csv'}",
            f"--labels={results / 'dataset' / 'labels.parquet'}",
            f"--planted={results / 'models' / 'planted.csv'}",
            f"--text={results / 'dataset' / 'manifest.json'}",
            "--usual=true",
            f"--recovery={comparison / 'recovery.csv'}",
            f"--answer={comparison / 'answer.json'}",
        ]
    )
    assert code == 0


def draw(path: Path) -> None:
    """Write a picture with a dark band."""
    from matplotlib import image

    pixels = np.ones((40, 40, 3))
    pixels[10:20] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    image.imsave(path, pixels)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Artifacts of a run that is right."""
    mpl.use("Agg")
    rng = np.random.default_rng(0)
    for fit in ("pt_it", "pt_simpo", "it_simpo"):
        models = fit.split("_")
        folder = tmp_path / "latents" / fit / "seed0"
        folder.mkdir(parents=True)
        latents, selection = latent_tables(models, rng)
        latents.to_parquet(folder / "latents.parquet")
        selection.to_parquet(folder / "selection.parquet")
        pd.DataFrame({"latent": latents["latent"], "weight": 1.0}).to_parquet(
            folder / "sampled.parquet"
        )
        pd.DataFrame(
            {
                "latent": latents["latent"],
                "annotator": "lexical",
                "status": "ok",
                "category": latents["true_category"],
            }
        ).to_parquet(folder / "labels.parquet")
        fitted = tmp_path / "crosscoder" / fit / "seed0"
        fitted.mkdir(parents=True)
        evaluation = {"fve": dict.fromkeys(models, 0.99), "l0_threshold": 12.1, "k": 12}
        (fitted / "evaluation.json").write_text(json.dumps(evaluation))
    (tmp_path / "models").mkdir()
    planted = pd.DataFrame({"category": list(TRUTH), "planted": list(TRUTH.values())})
    planted["baseline"], planted["candidate"] = "it", "simpo"
    planted["class"], planted["baseline_tokens"], planted["candidate_tokens"] = "x", 1, 1
    planted.to_csv(tmp_path / "models" / "planted.csv", index=False)
    write_documents(tmp_path, rng)
    record = {"settings": {"comparisons": COMPARISONS}}
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name in check_run.FIGURES:
        draw(tmp_path / "figures" / f"{name}.png")
    compare(tmp_path)
    return tmp_path


def failures(results: Path) -> list[str]:
    """Return what the checker holds against a run."""
    return [found.told for found in check_run.check_run(results) if not found.passed]


def test_good_run_passes(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures(good) == []
    assert check_run.main([str(good)]) == 0
    printed = capsys.readouterr().out
    assert "true labels: direct, beside it counts of anchored (as published)" in printed
    assert "topics labels: direct" in printed
    assert "4 of 4 planted changes found" in printed


def test_permuted_planted_table_fails(good: Path) -> None:
    path = good / "models" / "planted.csv"
    table = pd.read_csv(path)
    table["planted"] = np.roll(table["planted"], 3)
    table.to_csv(path, index=False)
    compare(good)
    told = failures(good)
    for labeller in check_run.LABELLERS:
        assert any(f"{labeller}: 0 of 4 planted changes found" in line for line in told)
    assert check_run.main([str(good)]) == 1


def test_labels_of_latents_that_the_table_does_not_count_fail(good: Path) -> None:
    path = good / "latents" / "it_simpo" / "seed0" / "latents.parquet"
    table = pd.read_parquet(path)
    rng = np.random.default_rng(1)
    table["true_category"] = rng.permutation(table["true_category"].to_numpy())
    table.to_parquet(path)
    assert failures(good) == ["direct seed 0: counts agree with latents.parquet"]


@pytest.mark.parametrize("labeller", check_run.LABELLERS)
def test_shuffled_labels_of_documents_fail(good: Path, labeller: str) -> None:
    path = good / "dataset" / "labels.parquet"
    table = pd.read_parquet(path).reset_index(drop=True)
    own = table["labeller"] == labeller
    rng = np.random.default_rng(1)
    table.loc[own, "label"] = rng.permutation(table.loc[own, "label"].to_numpy())
    table.to_parquet(path)
    compare(good)
    told = failures(good)
    assert any(f"{labeller}: " in line and "planted changes found" in line for line in told)
    assert check_run.main([str(good)]) == 1


@pytest.mark.parametrize("labeller", check_run.LABELLERS)
def test_an_answer_that_is_missing_fails(good: Path, labeller: str) -> None:
    path = good / "dataset" / "labels.parquet"
    table = pd.read_parquet(path)
    table[table["labeller"] != labeller].to_parquet(path)
    compare(good)
    assert f"direct has no answer with the labels {labeller}" in failures(good)


def test_no_difference_fails(good: Path) -> None:
    """A model against itself: nothing is unique to either, and nothing is predicted otherwise."""
    for path in good.glob("latents/*/seed0/selection.parquet"):
        table = pd.read_parquet(path)
        table["unique_to"] = ""
        for name in [column for column in table.columns if "_vs_" in column]:
            table[name] = False
        table.to_parquet(path)
    path = good / "comparison" / "losses.parquet"
    losses = pd.read_parquet(path)
    one = losses[losses["model"] == "it"]
    pd.concat([one, one.assign(model="simpo")]).to_parquet(path)
    compare(good)
    told = failures(good)
    assert any("0 latents unique to" in line for line in told)
    assert any("0 of 4 planted changes found" in line for line in told)
    assert check_run.main([str(good)]) == 1


def test_a_false_call_fails(good: Path) -> None:
    path = good / "comparison" / "losses.parquet"
    losses = pd.read_parquet(path)
    place = list(TRUTH).index("advice")
    rows = (losses["model"] == "simpo") & (losses["document"] // DOCUMENTS == place)
    losses.loc[rows, "losses"] = losses.loc[rows, "losses"].map(lambda values: values + 1)
    losses.to_parquet(path)
    compare(good)
    assert failures(good) == [
        "direct seed 0, true: none of 5 unchanged labels called, but advice",
        "direct seed 0, topics: none of 5 unchanged labels called, but words of advice",
    ]


def test_blank_figure_bad_fit_and_outside_address_fail(good: Path) -> None:
    from matplotlib import image

    image.imsave(good / "figures" / "nu_plane.png", np.ones((40, 40, 3)))
    path = good / "crosscoder" / "pt_it" / "seed0" / "evaluation.json"
    path.write_text(json.dumps({"fve": {"pt": 0.99, "it": 0.9}, "l0_threshold": 14, "k": 12}))
    (good / "report" / "index.html").write_text('<img src="https://example.org/a.png">')
    told = "\n".join(failures(good))
    for part in ("nu_plane.png", "held-out FVE pt 0.9900, it 0.9000", "L0 14.00", "example.org"):
        assert part in told


def test_missing_artifact_fails(tmp_path: Path) -> None:
    assert check_run.main([str(tmp_path)]) == 1
