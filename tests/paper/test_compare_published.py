"""Published against measured: every verdict, no row left out, mistakes reported."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.comparison.run_folder import Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.comparison import compare_categories
from workflow_scripts.paper import compare_published
from workflow_scripts.paper.published import PercentChange, read_study
from workflow_scripts.run.load import load

PUBLISHED = sorted((ROOT / "config/published").glob("*.yaml"))
HARDWARE = {"cpu": "CPU Y", "cores": 2, "gpus": ["NVIDIA X"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("paper"))
    assert compare_categories.main(made.compare_flags(made.root / "categories.csv")) == 0
    for name in made.fits:
        for seed in made.seeds:
            files.write_json(
                made.root / f"crosscoder/{name}/seed{seed}/crosscoder.json",
                {"layer": 3, "latents": 220, "k": 8, "provenance": {"hardware": HARDWARE}},
            )
    return made


def fits_json(run: Run) -> str:
    """Return the flag ``--fits``."""
    fits = {}
    for name, models in run.fits.items():
        found = run.seed_files(name, 0)
        paths = {key: found[key] for key in ("latents", "selection")}
        for kind in ("evaluation", "crosscoder"):
            paths[kind] = str(run.root / f"crosscoder/{name}/seed0/{kind}.json")
        fits[name] = {"models": list(models), "seeds": {"0": paths}}
    return json.dumps(fits)


def compared(
    published: Path, folder: Path, categories: Path, fits: str = "{}"
) -> tuple[int, pd.DataFrame, str]:
    """Run the step; return its code, table and text."""
    table, text = folder / "published.csv", folder / "published.md"
    code = compare_published.main(
        [
            *("--published", str(published), "--run", "made_up", "--fits", fits),
            *("--categories", str(categories), "--table", str(table)),
            *("--markdown", str(text), "--facts", str(folder / "published.json")),
        ]
    )
    frame = pd.read_csv(table) if code == 0 else pd.DataFrame()
    return code, frame, text.read_text() if code == 0 else ""


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A table of categories without rows."""
    columns = "comparison,labeller,level,name,percent_change,low,high\n"
    (tmp_path / "nothing.csv").write_text(columns)
    return tmp_path / "nothing.csv"


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_row_is_not_run_where_nothing_was_measured(
    path: Path, tmp_path: Path, nothing: Path
) -> None:
    code, frame, text = compared(path, tmp_path, nothing)
    assert code == 0
    assert list(frame["id"]) == [row.id for row in read_study(path).rows]
    assert set(frame["verdict"]) == {"NOT RUN"}
    assert text.count("| NOT RUN |") == len(frame)
    assert f"0 OK, 0 close, 0 differs, {len(frame)} NOT RUN." in text
    assert frame["missing"].notna().all()


def test_header_tells_hardware_and_seeds(run: Run, tmp_path: Path, nothing: Path) -> None:
    _, _, text = compared(PUBLISHED[0], tmp_path, nothing, fits_json(run))
    told = "layer 3, 220 latents, k = 8, seed 0, fitted on NVIDIA X, CPU Y (2 cores)"
    assert f"- crosscoder pt_it of pt and it: {told}" in text
    assert json.loads((tmp_path / "published.json").read_text())[0] == "run made_up"


def test_published_names_are_in_the_taxonomy() -> None:
    taxonomy = yaml.safe_load((ROOT / "config" / "taxonomy.yaml").read_text(encoding="utf-8"))
    names = {
        "category": {entry["id"] for entry in taxonomy["categories"]},
        "class": set(taxonomy["classes"]),
    }
    rows = [row.measured for path in PUBLISHED for row in read_study(path).rows]
    changes = [what for what in rows if isinstance(what, PercentChange)]
    assert changes
    assert all(what.name in names[what.level] for what in changes)


@pytest.mark.parametrize("name", ["paper", "minder"])
def test_shipped_configs_have_what_their_studies_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = load(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")))
    assert config.paper is not None
    for row in (row for path in config.paper.published for row in read_study(Path(path)).rows):
        what = row.measured
        if isinstance(what, PercentChange):
            assert what.comparison in config.comparisons
        else:
            assert getattr(what, "model", None) in (None, *config.fits[what.fit].models)


def test_labels_of_an_llm_are_preferred() -> None:
    assert compare_published.usual_labeller(["true", "lexical", "judge"]) == "judge"
    assert compare_published.usual_labeller(["true", "lexical"]) == "lexical"
    assert compare_published.usual_labeller(["true"]) == "true"


def test_the_published_study_has_its_quantities() -> None:
    study = read_study(next(p for p in PUBLISHED if p.stem == "beyond_the_leaderboard"))
    abstract = {row.id: row.value for row in study.rows if row.source == "primary"}
    assert abstract == {
        "change_safety": 32.8,
        "change_multilingual": 43.8,
        "change_instruction_following": 151.7,
        "change_self_reference": -44.1,
        "change_hallucination": -68.5,
    }


def written(folder: Path, run: Run, offset: float) -> Path:
    """Write a study whose values are the run's own, all moved by ``offset``."""
    categories = pd.read_csv(run.root / "categories.csv", dtype={"labeller": str})
    rows = categories[(categories["comparison"] == "anchored") & (categories["level"] == "class")]
    row = rows[(rows["labeller"] == "lexical") & (rows["name"] == "creative")].iloc[0]
    selection = pd.read_parquet(run.root / "latents/pt_it/seed0/selection.parquet")
    latents = pd.read_parquet(run.root / "latents/pt_it/seed0/latents.parquet")
    live = latents.loc[latents["live"], "delta_norm_pt_it"]
    values = {
        "change": (
            float(row["percent_change"]),
            {
                "kind": "percent_change",
                "comparison": "anchored",
                "level": "class",
                "name": "creative",
            },
        ),
        "unique": (
            float((selection["unique_to"] == "it").sum()),
            {"kind": "unique_latents", "fit": "pt_it", "model": "it"},
        ),
        "bin": (
            float(live.between(0.4, 0.6).sum()),
            {"kind": "norm_bin", "fit": "pt_it", "low": 0.4, "high": 0.6},
        ),
        "fve": (0.975, {"kind": "fve", "fit": "pt_it"}),
        "fve_it": (0.97, {"kind": "fve", "fit": "pt_it", "model": "it"}),
    }
    content = {
        "study": "made_up",
        "title": "Made | up",
        "defaults": {
            "where": "nowhere",
            "unit": "percent",
            "source": "primary",
            "why": "made up",
            "tolerance": {"ok": 1, "close": 10},
        },
        "rows": [
            {"id": name, "quantity": name, "value": value + offset, "measured": measured}
            for name, (value, measured) in values.items()
        ],
    }
    path = folder / "made_up.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(("offset", "verdict"), [(0, "OK"), (5, "close"), (500, "differs")])
def test_each_verdict(run: Run, tmp_path: Path, offset: float, verdict: str) -> None:
    study = written(tmp_path, run, offset)
    code, frame, text = compared(study, tmp_path, run.root / "categories.csv", fits_json(run))
    assert code == 0
    assert set(frame["verdict"]) == {verdict}
    change = frame.set_index("id").loc["change"]
    assert change["labeller"] == "lexical"
    assert change["published_in_interval"] == ("no" if offset == 500 else "yes")
    assert "Made \\| up" in text


def test_a_change_from_zero_is_judged_by_its_interval(run: Run, tmp_path: Path) -> None:
    categories = pd.read_csv(run.root / "categories.csv", keep_default_na=False)
    categories["percent_change"] = "n/a"
    categories["low"], categories["high"] = 100, "inf"
    categories.to_csv(tmp_path / "categories.csv", index=False)
    path = next(p for p in PUBLISHED if p.stem == "beyond_the_leaderboard")
    _, frame, _ = compared(path, tmp_path, tmp_path / "categories.csv")
    rows = frame.set_index("id")
    assert rows.loc["change_instruction_following", "verdict"] == "close"
    assert rows.loc["change_safety", "verdict"] == "differs"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("kind: percent_chance", "change_safety.measured"),
        ("kind: [", "not valid YAML"),
        ("kind: unique_latents", "change_safety.measured"),
    ],
)
def test_a_wrong_file_is_told(
    tmp_path: Path, nothing: Path, capsys: pytest.CaptureFixture[str], change: str, told: str
) -> None:
    text = next(p for p in PUBLISHED if p.stem == "beyond_the_leaderboard").read_text()
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("kind: percent_change", change, 1))
    assert compared(path, tmp_path, nothing)[0] == 2
    assert told in capsys.readouterr().err


def test_an_id_twice_and_a_missing_file_are_told(
    tmp_path: Path, nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PUBLISHED[0].read_text()
    path = tmp_path / "twice.yaml"
    path.write_text(text.replace("id: change_multilingual", "id: change_safety"))
    assert compared(path, tmp_path, nothing)[0] == 2
    assert "'change_safety' occurs twice" in capsys.readouterr().err
    assert compared(tmp_path / "nope.yaml", tmp_path, nothing)[0] == 2
    assert "nope.yaml does not exist" in capsys.readouterr().err
