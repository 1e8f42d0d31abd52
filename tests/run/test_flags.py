"""Settings as flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.run.test_settings import put, smoke
from workflow_scripts.run.flags import Flags, flags
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths


def run_flags(place: str = "seed", value: object = 0) -> Flags:
    """Return the flags of the smoke run with one setting replaced."""
    return Flags(Paths(load(put(smoke(), place, value))))


def value(found: list[str], name: str) -> str:
    """Return the value of a flag that is given once."""
    values = [flag.partition("=")[2] for flag in found if flag.startswith(f"--{name}=")]
    assert len(values) == 1
    return values[0]


def test_a_setting_without_value_gives_no_flag() -> None:
    settings = run_flags().config.comparison
    assert flags(settings, "labeller", "fdr") == ["--fdr=0.1"]
    assert len(flags(settings)) < len(type(settings).model_fields)


def test_training_says_nothing_of_where_a_fit_lies() -> None:
    names = {flag.partition("=")[0] for flag in run_flags().training("pt_it")}
    assert {"--k", "--tokens", "--dictionary-size"} <= names
    assert not names & {"--models", "--layer", "--seeds", "--loss-documents", "--processes"}


def test_a_checkpoint_is_of_one_training() -> None:
    before = run_flags().checkpoint("pt_it", "0")
    assert before.startswith("results/smoke/crosscoder/pt_it/seed0/checkpoint-")
    assert run_flags().checkpoint("pt_it", "0") == before
    assert run_flags("fits.pt_it.k", 4).checkpoint("pt_it", "0") != before
    assert run_flags("fits.pt_it.loss_documents", 4).checkpoint("pt_it", "0") == before
    assert run_flags("seed", 3).checkpoint("pt_it", "0") != before  # the text is another


def test_a_difference_is_fitted_as_its_crosscoder() -> None:
    found = run_flags("comparison.difference_tokens", 7000)
    assert found.difference("direct")[-3:] == ["--difference", "it", "simpo"]
    training = found.difference_training("direct")
    own = dict(flag.split("=") for flag in found.training("it_simpo"))
    expected = own | {"--shared-share": "0.0", "--tokens": "7000"}
    assert dict(flag.split("=") for flag in training) == expected
    assert found.difference_checkpoint("direct") != found.checkpoint("it_simpo", "0")


def test_controls_are_made_with_the_seed_of_the_run() -> None:
    found = run_flags("fits.pt_it.control", "noise").activations("pt_it")
    assert found[-2:] == ["--control=noise", "--control-seed=0"]
    assert len(json.loads(value(found, "activations"))["pt"]) == 2


def test_the_files_of_a_large_fit_are_passed_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_flags("text.tokens", 30_000 * 2_000)
    given = value(found.activations("pt_it"), "activations")
    assert given.startswith("@")
    dumps = json.loads(Path(given[1:]).read_text())
    assert dumps == {model: found.paths.dumps(model, 1) for model in ("pt", "it")}
    assert len(json.dumps(dumps)) > 131_072
    assert all(len(flag) < 131_072 for flag in found.activations("pt_it"))


def test_processes_are_started_by_torch() -> None:
    assert run_flags().launcher("pt_it") == ["python"]
    assert run_flags("fits.pt_it.processes", 4).launcher("pt_it")[-1] == "--nproc-per-node=4"


def test_comparisons_get_their_fits_in_the_order_of_the_seeds() -> None:
    found = run_flags("fits.it_simpo.seeds", [5, 0]).comparison()
    assert list(json.loads(value(found, "fits"))["it_simpo"]["seeds"]) == ["5", "0"]
    assert list(json.loads(value(found, "comparisons"))) == ["anchored", "direct"]


def test_models_of_a_fit_are_named() -> None:
    models = json.loads(value([run_flags().models_of_fit("it_simpo")], "models"))
    assert list(models) == ["it", "simpo"]
    assert all(manifest.startswith("results/store/") for manifest in models.values())


def test_an_organism_inherits_what_its_lessons_leave_open() -> None:
    lessons = run_flags("models.it.organism.passes", 3).lessons("it")
    assert value(lessons, "passes") == "3"
    assert value(run_flags().lessons("simpo"), "passes") == "1"
    assert json.loads(value(run_flags().lessons("simpo"), "simpo"))["pairs"] == 16
