"""Manifests of folders and hub commits, and every folder that is refused."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file

from tests.models import broken_folders as harms
from tests.models.random_models import LAYERS, VOCABULARY, write_folder
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.device import choose_device
from workflow_scripts.common.manifest import Manifest, load_tokenizer, model_folder
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.resolve_model import main
from workflow_scripts.models.weights import WHOLE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tiny Llama."""
    return write_folder(tmp_path / "llama", "llama")


def resolve(output: Path, *source: object) -> int:
    """Run the step as the command line does."""
    told = ["--name", "mine", *source, "--output", output]
    return main([str(word) for word in told])


def test_a_folder_gives_a_manifest_that_opens_the_model(folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "deep/er/model.json"
    assert resolve(manifest, "--path", folder) == 0
    found = Manifest.read(manifest)
    sizes = (16, LAYERS, VOCABULARY)
    expected = Manifest("mine", "folder", "../../llama", "LlamaForCausalLM", *sizes, positions=64)
    assert found == expected
    assert model_folder(manifest) == folder.resolve()
    assert len(load_tokenizer(manifest)) == VOCABULARY
    model = load_model(manifest, torch.bfloat16, CPU)
    stored = load_file(folder / "model.safetensors")["model.norm.weight"]
    torch.testing.assert_close(model.state_dict()["model.norm.weight"], stored.bfloat16())
    assert not model.training


def test_the_manifest_moves_with_its_folder(folder: Path, tmp_path: Path) -> None:
    assert resolve(folder / "model.json", "--path", folder) == 0
    moved = folder.rename(tmp_path / "elsewhere")
    assert model_folder(moved / "model.json") == moved.resolve()


def test_a_hub_commit_is_fetched_without_pickles(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    fetched: list[set[str]] = []
    files = {"config.json", "model.safetensors", "consolidated.safetensors", "chat_template.jinja"}
    others = {"pytorch_model.bin", "original/model.safetensors", "modeling.py", "README.md"}

    def fetch(
        hub: str, *, revision: str, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        asked.append((hub, revision))
        names = filter_repo_objects(
            files | others, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        fetched.append(set(names))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    manifest = tmp_path / "model.json"
    source = ["--hub", "org/tiny", "--revision", COMMIT]
    assert resolve(manifest, *source) == 0
    found = Manifest.read(manifest)
    assert (found.kind, found.hub, found.revision) == ("hub", "org/tiny", COMMIT)
    assert asked == [("org/tiny", COMMIT)]
    assert fetched[0] == files - {"consolidated.safetensors"}
    assert resolve(manifest, *source, "--trust-remote-code") == 0
    assert fetched[1] == fetched[0] | {"modeling.py"}
    assert Manifest.read(manifest).trust_remote_code


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper(), COMMIT + "0"])
def test_a_revision_that_may_change_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    revision: str,
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked"))
    assert resolve(tmp_path / "model.json", "--hub", "org/tiny", "--revision", revision) == 2
    told = f"the revision {revision} of org/tiny may change: give a commit (40 hex digits)"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "model.json").exists()


def test_a_hub_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert resolve(tmp_path / "model.json", "--hub", "org/tiny", "--revision", COMMIT) == 2
    told = capsys.readouterr().err
    assert f"org/tiny at {COMMIT} cannot be fetched (no route): check the id" in told


REFUSED = {
    "empty": (harms.remove("*"), "is no folder of a Hugging Face model (it has no config.json)"),
    "no weights": (harms.remove("*.safetensors"), "holds no safetensors file, the one format"),
    "pickle": (
        harms.rename(WHOLE, "pytorch_model.bin"),
        "only pickled weights, which may run code",
    ),
    "part": (
        harms.sharded(harms.remove("*-2-of-*", "*00002-of*")),
        "lacks model-00002-of-00002.sa",
    ),
    "tokenizer": (harms.remove("tokenizer*"), "has no tokenizer.json: put that of the model"),
    "unknown": (harms.fill("config.json", b'{"model_type": "nobody"}'), "set trust_remote_code if"),
    "head": (harms.without("lm_head"), "lack lm_head.weight, which config.json asks for"),
}


def test_an_id_that_none_can_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--hub", "my models/base/x", "--revision", COMMIT]
    assert resolve(tmp_path / "model.json", *source) == 2
    told = capsys.readouterr().err
    assert f"error: my models/base/x at {COMMIT} cannot be fetched (" in told
    assert "HFValidationError: " in told  # the original, for the log


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_model_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    harm, told = REFUSED[case]
    harm(folder)
    assert resolve(tmp_path / "model.json", "--path", folder) == 2
    error = capsys.readouterr().err
    assert "\nerror: model mine: " in f"\n{error}"
    assert str(folder) in error
    assert told in error
    assert not (tmp_path / "model.json").exists()


def test_a_folder_that_is_absent_or_a_model_without_source_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve(tmp_path / "model.json", "--path", tmp_path / "nowhere") == 2
    assert "nowhere does not exist: check the path" in capsys.readouterr().err
    assert resolve(tmp_path / "model.json", "--hub", "org/tiny") == 2
    assert "give --path, or --hub and --revision" in capsys.readouterr().err


def test_weights_that_are_truncated_or_incomplete_are_refused(folder: Path) -> None:
    manifest = folder / "model.json"
    assert resolve(manifest, "--path", folder) == 0
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("model.norm.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model mine .* lack model\.norm\.weight: fetch or save"):
        load_model(manifest, torch.float32, CPU)
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"weights of model mine .* cannot be read"):
        load_model(manifest, torch.float32, CPU)


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    manifest = folder / "model.json"
    assert resolve(manifest, "--path", folder) == 0
    harms.rename(WHOLE, "pytorch_model.bin")(folder)
    with pytest.raises(UserError, match=r"give a folder with config\.json and \*\.safetensors"):
        load_model(manifest, torch.float32, CPU)


def test_a_manifest_that_is_missing_or_foreign_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    with pytest.raises(UserError, match=r"model\.json does not exist: run the step"):
        Manifest.read(path)
    path.write_text('{"name": "mine"}')
    with pytest.raises(
        UserError, match=r"model\.json is no model manifest .* delete it and run again"
    ):
        Manifest.read(path)


def test_an_unknown_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="choose auto, cpu or cuda"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="there is no CUDA GPU"):
        choose_device("cuda")
    assert choose_device("auto") == CPU
