"""Where artifacts lie, and which of them a later step reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.test_settings import Raw, put, smoke
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths, files_of
from workflow_scripts.run.report_plan import figures, published_fits, recorded_files, report_fits


def paths(place: str = "seed", value: object = 0) -> Paths:
    """Return the paths of the smoke run with one setting replaced."""
    return Paths(load(put(smoke(), place, value)))


def test_a_fit_reads_every_shard_of_its_models_and_their_normalizers() -> None:
    inputs = paths().fit_inputs("pt_it")
    assert [Path(file).parts[3:] for file in inputs["activations"]] == [
        (model, "mid", f"shard00{n}.h5") for model in ("pt", "it") for n in (0, 1)
    ]
    normalizer = "results/smoke/activations/{}/layer1/normalizer.h5"
    assert inputs["normalizers"] == [normalizer.format(model) for model in ("pt", "it")]


def test_a_larger_budget_adds_shards_behind_the_full_ones() -> None:
    small, large = paths(), paths("text.tokens", 90_000)
    for name in ("documents", "document_manifests", "tokens", "token_manifests"):
        assert getattr(large, name)[:2] == getattr(small, name)
        assert len(getattr(large, name)) == 3


def test_a_direct_comparison_is_looked_into_by_its_first_crosscoder() -> None:
    found = paths("fits.it_simpo.seeds", [5, 0])
    assert found.first_crosscoder("direct") == "results/smoke/crosscoder/it_simpo/seed5"
    table = found.first_latents("direct", "latents")
    assert table == "results/smoke/latents/it_simpo/seed5/latents.parquet"
    assert list(found.first_labelled("direct")["it_simpo"].seeds) == [5]


@pytest.mark.parametrize(("annotator", "named"), [("lexical", True), ("none", False)])
def test_without_annotator_nothing_of_its_is_read(annotator: str, named: bool) -> None:
    found = paths("autointerp.annotator", annotator)
    files = files_of(found.labelled_fits())
    assert any("/autointerp/" in file for file in files) is named
    assert any(file.endswith("sampled.parquet") for file in files) is named
    assert sorted(files) == sorted(
        [*found.comparison_inputs()["latents"], *found.comparison_inputs()["labels"]]
    )
    assert any("agreement.json" in file for file in recorded_files(found)) is named


def test_links_lead_from_the_run_to_the_store() -> None:
    links = paths().links()
    assert links["results/smoke/models/it/model.json"] == paths().manifest("it")
    assert "results/smoke/activations/it/layer1/shard001.h5" in links
    assert all(target.startswith("results/store/") for target in links.values())


CONTROL: Raw = {"models": ["it", "simpo"], "layer": 1, "control": "noise"}


def test_the_report_shows_what_was_made() -> None:
    fits = report_fits(paths())
    assert fits["pt_it"].layer == 1
    assert fits["pt_it"].first.loss is not None
    assert fits["it_simpo"].first.loss is None
    assert fits["it_simpo"].seeds[1].mirrors is not None
    assert fits["pt_it"].first.mirrors is None
    assert set(published_fits(paths())["pt_it"].first.model_dump(exclude_defaults=True)) == {
        "latents", "selection", "evaluation", "crosscoder",
    }  # fmt: skip


def test_figures_have_names_of_their_own_and_captions() -> None:
    shown = figures(paths().config)
    names = [figure.name for figure in shown]
    assert len(set(names)) == len(names)
    assert all(figure.caption.endswith(".") for figure in shown)
    assert {"direct_shares_direct", "cause_direct", "seed_stability_it_simpo"} <= set(names)
    assert "direct_shares_anchored" not in names
    assert "nu_plane_it_simpo_seed1" not in names


def test_a_comparison_that_is_alone_leads_the_report() -> None:
    raw = put(smoke(), "comparisons.direct", None)
    sections = {figure.name: figure.section for figure in figures(load(raw))}
    assert sections["category_changes_anchored"] == "answer"
    sections = {figure.name: figure.section for figure in figures(load(smoke()))}
    assert sections["category_changes_anchored"] == "carries"
    assert [name for name in sections if sections[name] == "answer"] == ["two_axes_direct"]


def test_a_control_has_a_null_beside_it_and_no_cause() -> None:
    raw = put(smoke(), "fits.noise", CONTROL)
    assert Paths(load(raw)).null_latents("it_simpo") == [
        "results/smoke/latents/noise/seed0/latents.parquet"
    ]
    raw = put(smoke(), "fits.it_simpo.control", "noise")
    assert "cause_direct" not in [figure.name for figure in figures(load(raw))]
