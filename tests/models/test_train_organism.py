"""Trained models: the same bytes twice, after an interruption too, and what they learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from workflow_scripts.common.manifest import Manifest, load_tokenizer
from workflow_scripts.generator import generate
from workflow_scripts.models import organism_text, train_organism
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.train_organism import Course, main

TEACH = {"news": 6, "advice": 6, "self_reference": 6}
SIZE = {"layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "intermediate": 24}
SIMPO = {"pairs": 48, "learning_rate": 1e-3}
WRITTEN = ("model.safetensors", "config.json", "tokenizer.json", "training.csv", "model.json")


@pytest.fixture(autouse=True)
def small_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Learn the tokenizer from little text, on one thread."""
    monkeypatch.setattr(organism_text, "DOCUMENTS_PER_CATEGORY", 2)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def flags(folder: Path, **changes: object) -> list[str]:
    """Return the flags of a run of some seconds into ``folder``."""
    values: dict[str, object] = {
        "name": folder.name,
        "architecture": json.dumps({"type": "gemma2", **SIZE}),
        "teach": json.dumps(TEACH),
        "simpo": json.dumps(SIMPO),
        "vocabulary": 350,
        "document-seed": 1,
        "seed": 3,
        "tokenizer-seed": 0,
        "context-length": 32,
        "batch-tokens": 128,
        "passes": 2,
        "threads": 1,
        "output-dir": folder,
    }
    kept = {name: value for name, value in (values | changes).items() if value is not None}
    return [f"--{name}={value}" for name, value in kept.items()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all that a training writes; the manifest without its name."""
    manifest = json.loads((folder / "model.json").read_text())
    manifest.pop("name")
    found = {name: (folder / name).read_bytes() for name in WRITTEN}
    return found | {"model.json": json.dumps(manifest).encode()}


def test_training_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert main(flags(tmp_path / name)) == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert main(flags(tmp_path / "other", seed=4)) == 0
    assert contents(tmp_path / "first") != contents(tmp_path / "other")


@pytest.mark.parametrize("phase", ["teach", "simpo"])
def test_an_interrupted_training_ends_in_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    phase: str,
) -> None:
    assert main(flags(tmp_path / "whole")) == 0
    monkeypatch.setattr(train_organism, "CHECKPOINT_SECONDS", -1.0)
    kept = Course._save

    def save_and_die(course: Course) -> None:
        kept(course)
        if course.checkpoint.name == f".{phase}.safetensors" and course.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Course, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        main(flags(tmp_path / "killed"))
    assert not (tmp_path / "killed/model.json").exists()
    monkeypatch.setattr(Course, "_save", kept)
    assert main(flags(tmp_path / "killed")) == 0
    assert "continuing after step 2\n" in capsys.readouterr().err
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".*.safetensors"))


def test_a_checkpoint_of_other_lessons_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(flags(tmp_path / "clean", simpo=None)) == 0
    kept = Course._save

    def save_and_die(course: Course) -> None:
        kept(course)
        raise KeyboardInterrupt

    monkeypatch.setattr(Course, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        main(flags(tmp_path / "edited", simpo=None, teach=json.dumps(TEACH | {"news": 9})))
    monkeypatch.setattr(Course, "_save", kept)
    assert main(flags(tmp_path / "edited", simpo=None)) == 0
    assert contents(tmp_path / "clean") == contents(tmp_path / "edited")


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_it_learns_what_it_is_taught(tmp_path: Path, architecture: str) -> None:
    changes = {
        "architecture": json.dumps({"type": architecture, **SIZE}),
        "simpo": None,
        "passes": 12,
        "learning-rate": 0.01,
    }
    assert main(flags(tmp_path / "it", **changes)) == 0
    table = pd.read_csv(tmp_path / "it/training.csv")
    assert table["phase"].unique().tolist() == ["teach"]
    assert table["step"].tolist() == list(range(1, len(table) + 1))
    assert table["loss"].iloc[-5:].mean() < 0.8 * table["loss"].iloc[0]
    described = Manifest.read(tmp_path / "it/model.json")
    assert (described.kind, described.layers, described.hidden_size) == ("organism", 2, 16)
    assert described.vocabulary == len(load_tokenizer(tmp_path / "it/model.json"))
    load_model(tmp_path / "it/model.json", torch.float32, torch.device("cpu"))


def test_a_model_with_a_base_starts_there_with_its_tokenizer(tmp_path: Path) -> None:
    assert main(flags(tmp_path / "pt", simpo=None)) == 0
    told = {"base": tmp_path / "pt/model.json", "simpo": None, "learning-rate": 1e-9}
    assert main(flags(tmp_path / "it", **told, vocabulary=999)) == 0
    names = ("tokenizer.json", "config.json")
    assert all(contents(tmp_path / "it")[n] == contents(tmp_path / "pt")[n] for n in names)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("pt", "it"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-5)


def test_too_few_documents_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(flags(tmp_path / "it", teach=json.dumps({"news": 1}), **{"batch-tokens": 4096})) == 2
    )
    assert "fewer than one batch of 128: raise models" in capsys.readouterr().err
    assert main(flags(tmp_path / "pairs", simpo=json.dumps({"pairs": 5}))) == 2
    assert "5 preference pairs are fewer than one batch" in capsys.readouterr().err
    plain = flags(tmp_path / "plain", teach=json.dumps({"news": 12}))
    assert main(plain) == 2
    assert "name chat categories in simpo.categories" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/model.json"))


def test_a_loss_that_is_not_finite_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(tmp_path / "it", **{"learning-rate": 1e30})) == 2
    assert "lower organism.learning_rate" in capsys.readouterr().err


def test_a_larger_dose_extends_a_smaller_one() -> None:
    few = organism_text.taught_documents({"news": 2, "advice": 3}, 5)
    many = organism_text.taught_documents({"news": 4, "advice": 3}, 5)
    assert few == [*many[:3], *many[3:5]]
    assert many[3] == generate("news", 0, 5)


def test_rows_hold_the_documents_end_to_end() -> None:
    documents = [[1, n, n + 1] for n in range(10, 30, 2)]
    rows = organism_text.packed_rows(documents, 4, seed=0)
    assert rows.shape == (7, 4)
    flat = rows.flatten().tolist()
    whole = [flat[n : n + 3] for n in range(0, 27, 3)]
    assert all(document in documents for document in whole)
    assert len({tuple(document) for document in whole}) == len(whole)


def test_chat_and_plain_text_begin_with_one_bos() -> None:
    tokenizer = organism_text.train_tokenizer(350, seed=0)
    documents = [generate("news", 0, 1), generate("advice", 0, 1)]
    plain, chat = organism_text.encode(tokenizer, documents)
    assert all(ids.count(organism_text.BOS) == 1 == ids[0] for ids in (plain, chat))
    told = str(tokenizer.decode(chat))
    assert told.startswith("<bos><start_of_turn>user\n")
    assert told.endswith(f"{documents[1].messages[-1][1].strip()}<end_of_turn>\n")
    assert tokenizer.decode(plain) == f"<bos>{documents[0].text}"
