"""Crosscoders of a run for others: files, model card, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import diffscope
from tests.workflow.running import Run
from workflow_scripts.common import files
from workflow_scripts.crosscoder.model import Crosscoder
from workflow_scripts.tools import export, export_latents

pytestmark = pytest.mark.workflow
FILES = {
    "diffscope": {"crosscoder.safetensors", "crosscoder.json"},
    "dictionary_learning": {"model.safetensors", "config.json"},
    "saelens": {
        f"{m}/{f}" for m in ("it", "simpo") for f in ("cfg.json", "sae_weights.safetensors")
    },
}


def exported(run: Run, folder: Path, *flags: str) -> Path:
    source = run.folder / "results/smoke"
    assert export.main([str(source), "it_simpo", "--to", str(folder), *flags]) == 0
    return folder


@pytest.mark.parametrize("layout", FILES)
def test_a_folder_holds_weights_and_a_card(smoke_run: Run, tmp_path: Path, layout: str) -> None:
    folder = exported(smoke_run, tmp_path / "out", "--layout", layout)
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == FILES[layout] | {"README.md"}
    card = ModelCard.load(folder / "README.md")
    body, told = card.text, card.data
    assert (told.license, told.license_name) == ("other", "to-be-filled-in")
    assert told.library_name == layout
    assert "crosscoder" in told.tags
    opened = diffscope.open_run(smoke_run.folder / "results/smoke")
    fit = opened.fit("it_simpo")
    assert opened.answer[0].split(";")[0] in body
    for label in opened.changes()["label"]:
        assert f"| {label.replace('_', ' ')} |" in body
    assert f"| {fit.evaluation['fve']['it']:.4f} | {fit.evaluation['fve']['simpo']:.4f} |" in body
    assert "- model it: organism (Gemma2ForCausalLM)" in body
    assert "- training: variant batch\\_topk" in body


def test_our_layout_is_the_same_to_the_last_byte(smoke_run: Run, tmp_path: Path) -> None:
    folder = exported(smoke_run, tmp_path / "out")
    source = smoke_run.folder / "results/smoke/crosscoder/it_simpo/seed0"
    for name in FILES["diffscope"]:
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    Crosscoder.load(exported(smoke_run, tmp_path / "folded", "--folded"))


def test_the_run_reads_its_export_as_the_same_crosscoder(smoke_run: Run, tmp_path: Path) -> None:
    folder = exported(smoke_run, tmp_path / "out", "--layout", "dictionary_learning", "--seed", "1")
    fit = diffscope.open_run(smoke_run.folder / "results/smoke").fit("it_simpo", 1)
    crosscoder, tensors = fit.crosscoder(), load_file(folder / "model.safetensors")
    assert tensors["activation_mean"].float().equal(crosscoder.mean)
    assert (1 / tensors["activation_global_scale"]).float().equal(crosscoder.scale)
    assert tensors["decoder.weight"].permute(1, 0, 2).equal(crosscoder.w_dec)


def test_saelens_reads_a_hook_and_a_model(smoke_run: Run, tmp_path: Path) -> None:
    folder = exported(smoke_run, tmp_path / "out", "--layout", "saelens")
    config = files.read_json(folder / "simpo/cfg.json")
    assert config["architecture"] == "jumprelu"
    assert config["metadata"]["hook_name"] == "blocks.0.hook_resid_post"
    assert config["metadata"]["model_name"] == "simpo"
    assert config["metadata"]["sae_lens_version"] == "6.0.0"  # else all metadata is dropped


def test_a_folder_that_exists_is_left_alone(
    smoke_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = smoke_run.folder / "results/smoke"
    assert export.main([str(source), "it_simpo", "--to", str(tmp_path)]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err


def test_latents_are_written_in_batches_with_contexts(smoke_run: Run, tmp_path: Path) -> None:
    source, folder = smoke_run.folder / "results/smoke", tmp_path / "latents"
    flags = ["--to", str(folder), "--batch", "15", "--contexts", "3"]
    assert export_latents.main([str(source), "it_simpo", *flags]) == 0
    parts = [files.read_json(path) for path in sorted(folder.glob("batch-*.json"))]
    assert len(parts) > 1
    fit = diffscope.open_run(source).fit("it_simpo")
    found = {int(feature["index"]): feature for part in parts for feature in part["features"]}
    assert {part["layer"] for part in parts} == {"0-smoke-it_simpo-seed0"}
    for number in list(found)[:3]:
        latent, told = fit.latent(number), found[number]
        assert [a["tokens"] for a in told["activations"]] == [
            list(context.pieces) for context in latent.contexts[:3]
        ]
        strongest = told["activations"][0]
        assert strongest["values"][strongest["maxValueTokenIndex"]] == strongest["maxValue"]
        assert told["maxActApprox"] == latent.measured["activation_max"]
    explained = [f["explanations"][0] for f in found.values() if f["explanations"]]
    assert explained
    assert {told["typeName"] for told in explained} == {"counted words"}
