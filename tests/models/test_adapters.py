"""Models with a LoRA adapter: what peft computes, and every adapter that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.random_models import VOCABULARY, write_folder
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.manifest import Manifest, load_tokenizer, model_folder
from workflow_scripts.dataset.vocabularies import check_agreement, known_ids
from workflow_scripts.models.adapters import CONFIG, WEIGHTS
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.resolve_model import main

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 30, 2]])
TURNS = ["<turn>", "</turn>"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "llama", "llama")


def write_adapter(folder: Path, base: Path, turns: bool = False) -> Path:
    """Write an adapter as a fine-tuner does; with ``turns``, tokens and embeddings of its own."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if turns:
        tokenizer.add_tokens(TURNS, special_tokens=True)
        model.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(folder)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        modules_to_save=["embed_tokens", "lm_head"] if turns else None,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(str(folder))
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora", base)


def resolve(output: Path, base: Path, adapter: object, *more: str) -> int:
    """Run the step as the command line does."""
    told = ["--name", "tuned", "--path", base, "--adapter", adapter, "--output", output, *more]
    return main([str(word) for word in told])


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    found: Tensor = model(input_ids=IDS).logits
    return found


def test_the_merged_model_computes_what_peft_does(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "store" / "model.json"
    assert resolve(manifest, base, adapter) == 0
    found = Manifest.read(manifest)
    assert (found.kind, found.adapter, found.vocabulary) == ("folder", "../lora", VOCABULARY)
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    merged = load_model(manifest, torch.float32, CPU)
    expected = logits(PeftModel.from_pretrained(plain, str(adapter)).eval())
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert (expected - before).abs().max() > 0.1
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert load_model(manifest, torch.bfloat16, CPU).dtype == torch.bfloat16


def test_tokens_that_the_adapter_adds(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", base, turns=True)
    manifests = {name: tmp_path / f"{name}.json" for name in ("base", "tuned")}
    assert main(["--name", "base", "--path", str(base), "--output", str(manifests["base"])]) == 0
    assert resolve(manifests["tuned"], base, adapter) == 0
    assert Manifest.read(manifests["tuned"]).vocabulary == VOCABULARY + 2
    tokenizers = {name: load_tokenizer(path) for name, path in manifests.items()}
    assert tokenizers["tuned"].convert_tokens_to_ids(TURNS) == [VOCABULARY, VOCABULARY + 1]
    check_agreement(tokenizers)
    sizes = {name: Manifest.read(path).vocabulary for name, path in manifests.items()}
    assert known_ids(tokenizers, sizes).sum() == VOCABULARY
    merged = load_model(manifests["tuned"], torch.float32, CPU)
    stored = load_file(adapter / WEIGHTS)
    embedding = merged.state_dict()["model.embed_tokens.weight"]
    torch.testing.assert_close(embedding, stored["base_model.model.model.embed_tokens.weight"])
    untrained = stored["base_model.model.model.embed_tokens.original_module.weight"]
    assert (embedding - untrained).abs().max() > 0.1
    assert model_folder(manifests["tuned"]) == base.resolve()


def no_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def another_type(folder: Path) -> None:
    described = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(described | {"peft_type": "PREFIX_TUNING"}))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "config": (no_config, "has no adapter_config.json: give a folder that peft saved"),
    "pickle": (pickle_only, "has only pickled weights (*.bin), which may run code"),
    "weights": (no_weights, "has no weights: save them as safetensors"),
    "type": (another_type, "is of the type PREFIX_TUNING, not LORA: merge it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_adapter_is_refused(
    case: str, base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, told = REFUSED[case]
    harm(adapter)
    assert resolve(tmp_path / "model.json", base, adapter) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: model tuned: the adapter {adapter} ")
    assert told in error
    assert not (tmp_path / "model.json").exists()


def change(adapter: Path, alter: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    weights = load_file(adapter / WEIGHTS)
    save_file(alter(weights), adapter / WEIGHTS, {"format": "pt"})


def truncate(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes()[:-40])


MISFITS: dict[str, Callable[[Path], None]] = {
    "another width": lambda adapter: change(
        adapter, lambda w: {k: torch.zeros(*v.shape[:-1], v.shape[-1] + 1) for k, v in w.items()}
    ),
    "a part is missing": lambda adapter: change(
        adapter, lambda w: {k: v for k, v in w.items() if "layers.0" not in k}
    ),
    "a part too much": lambda adapter: change(
        adapter, lambda w: w | {"base_model.model.model.layers.9.mlp.lora_A.weight": torch.ones(1)}
    ),
    "not finite": lambda adapter: change(
        adapter, lambda w: {k: torch.full_like(v, torch.nan) for k, v in w.items()}
    ),
    "truncated": truncate,
}


@pytest.mark.parametrize("case", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused(
    case: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    assert resolve(tmp_path / "model.json", base, adapter) == 0
    MISFITS[case](adapter)
    with pytest.raises(
        UserError, match=r"model tuned: the adapter .* does not fit its base"
    ) as told:
        load_model(tmp_path / "model.json", torch.float32, CPU)
    assert "\n" not in str(told.value)


def test_an_adapter_of_another_architecture_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "gpt2", "gpt2")
    assert resolve(tmp_path / "model.json", other, adapter) == 0
    with pytest.raises(UserError, match="does not fit its base model"):
        load_model(tmp_path / "model.json", torch.float32, CPU)


def test_an_adapter_on_the_hub_is_pinned(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch(hub: str, *, revision: str, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(adapter)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    manifest = tmp_path / "model.json"
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert resolve(manifest, base, "org/lora", "--adapter-revision", "main") == 2
    assert not asked
    assert resolve(manifest, base, "org/lora", "--adapter-revision", commit) == 0
    assert "adapter_*.safetensors" in asked[0]
    assert not any("bin" in pattern or pattern == "*" for pattern in asked[0])
    found = Manifest.read(manifest)
    assert (found.adapter_hub, found.adapter_revision) == ("org/lora", commit)


def test_more_gpus_than_there_are(base: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "model.json"
    assert main(["--name", "base", "--path", str(base), "--output", str(manifest)]) == 0
    assert "adapter" not in manifest.read_text()
    with pytest.raises(UserError, match=r"activations\.gpus is 2, but the step sees 0"):
        load_model(manifest, torch.float32, CPU, gpus=2)
