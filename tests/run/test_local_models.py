"""Models in folders: what is checked when a run is planned and started, warned of, and known by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models import broken_folders as harms
from tests.models.broken_folders import WEIGHTS
from tests.models.random_models import VOCABULARY, write_folder
from tests.run.test_settings import Raw, put
from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.common import hdf5
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.provenance import library_versions
from workflow_scripts.run import store_keys
from workflow_scripts.run.fingerprints import fingerprint
from workflow_scripts.run.flags import Flags
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.plan_run import dumps
from workflow_scripts.run.preflight import refuse_early

RAW: Raw = {
    "run": "mine",
    "models": {"base": "my models/base", "tuned": "my models/it's tuned"},
    "text": {
        "sources": {"notes": {"kind": "jsonl", "path": "my notes (v2).jsonl"}},
        "context_length": 64,
    },
    "layers": {"mid": [2]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a text in a folder with blanks, made once."""
    folder = tmp_path_factory.mktemp("my user's tree")
    write_folder(folder / "my models/base", "llama")
    write_folder(folder / "my models/it's tuned", "llama", 1)
    (folder / "my notes (v2).jsonl").write_text('{"text": "w3 w4"}\n')
    return folder


@pytest.fixture
def tree(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    folder = shutil.copytree(made, tmp_path / "my user's tree")
    monkeypatch.chdir(folder)
    fingerprint.cache_clear()  # of relative paths
    return folder


@pytest.fixture
def tuned(tree: Path) -> Path:
    return tree / "my models/it's tuned"


def start(capsys: pytest.CaptureFixture[str], raw: Raw = RAW) -> str:
    """Return what a run prints when it starts."""
    refuse_early(load(raw))
    return capsys.readouterr().err


@pytest.mark.usefixtures("tree")
def test_whole_models_start_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(capsys) == ""


def test_a_damaged_folder_is_refused_when_a_run_is_planned(tuned: Path) -> None:
    harms.pointer(WEIGHTS)(tuned)
    with pytest.raises(UserError, match=r"config: models\.tuned: .* is a Git LFS pointer"):
        load(RAW)


def test_weights_that_do_not_fit_are_refused_when_it_starts(tuned: Path) -> None:
    harms.without("lm_head")(tuned)
    config = load(RAW)
    with pytest.raises(UserError, match=r"config: models\.tuned: .* lack lm_head\.weight"):
        refuse_early(config)


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"model": {"type": "None"}}'])
def test_a_tokenizer_that_cannot_be_read(tuned: Path, content: str) -> None:
    (tuned / "tokenizer.json").write_text(content)
    told = r"config: models\.tuned: the tokenizer in .* cannot be read \(.*\): fetch or save"
    with pytest.raises(UserError, match=told):
        refuse_early(load(RAW))


def test_a_single_local_model_is_looked_at(tuned: Path) -> None:
    (tuned / "tokenizer.json").write_text("{")
    hub = {"hub": "owner/name", "revision": "0" * 40}
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be read"):
        refuse_early(load(put(RAW, "models.base", hub)))


@pytest.mark.usefixtures("tree")
def test_rows_longer_than_a_model_has_positions() -> None:
    told = "text.context_length is 65, but model base was made for 64 positions: lower it"
    with pytest.raises(UserError, match=told):
        load(put(RAW, "text.context_length", 65))


def test_layers_of_an_architecture_that_names_them_otherwise(tuned: Path) -> None:
    shutil.rmtree(tuned)
    write_folder(tuned, "gpt2")
    with pytest.raises(UserError, match="layer 4, but model base has 3 layers"):
        load(put(RAW, "layers.mid", [4]))
    with pytest.raises(UserError, match="layer 4, but model tuned has 3 layers"):
        load(put(put(RAW, "layers.mid", [4]), "models.base", {"hub": "a/b", "revision": "0" * 40}))


def test_an_adapter_of_a_model_of_another_width(tree: Path) -> None:
    write_folder(tree / "wide", "llama")
    harms.configure(hidden_size=32)(tree / "wide")
    harms.remove(WEIGHTS)(tree / "wide")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tree / "wide"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["up_proj", "down_proj"]))
    adapted.save_pretrained(str(tree / "lora"))
    raw = put(RAW, "models.tuned", {"path": "my models/base", "adapter": "lora"})
    told = r"the adapter lora does not fit its base model \(.* is made for 32, .* is \[\d+, \d+\]\)"
    with pytest.raises(UserError, match=told):
        load(raw)


def test_the_same_files_under_two_names(
    tree: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tuned)
    shutil.copytree(tree / "my models/base", tuned)
    assert "warning: models base and tuned are the same files: nothing can differ" in start(capsys)


def test_words_without_a_row(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def add(tokenizer: dict[str, dict[str, dict[str, int]]]) -> None:
        tokenizer["model"]["vocab"]["w40"] = VOCABULARY

    harms.edit("tokenizer.json", add)(tuned)
    assert "the tokenizer of tuned has 1 tokens without a row in the" in start(capsys)


@pytest.mark.usefixtures("tree")
def test_a_model_larger_than_the_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    raw = put(RAW, "activations", {"device": "cpu"})
    assert "warning: model base takes about" in start(capsys, raw)
    assert "takes about" not in start(capsys, put(RAW, "activations", {"device": "cuda"}))


@pytest.mark.usefixtures("tree")
def test_dumps_of_other_versions(capsys: pytest.CaptureFixture[str]) -> None:
    config = load(RAW)
    first = next(iter(dumps(config)))
    now = library_versions()
    for then, warned in ((now["transformers"], False), ("4.0.0", True)):
        with hdf5.atomic(first, FORMAT, VERSION, {"libraries": {**now, "transformers": then}}):
            pass
        told = start(capsys)
        assert (f"transformers 4.0.0 (here {now['transformers']})" in told) == warned
    refuse_early(config, [first])  # it is made anew
    assert "4.0.0" not in capsys.readouterr().err
    first.write_bytes(b"damaged")
    assert start(capsys) == ""


def keys(raw: Raw = RAW) -> tuple[str, str]:
    """Return the keys of the text, and of the tuned model's dump."""
    fingerprint.cache_clear()
    config = load(raw)
    return store_keys.tokens_key(config, 0), store_keys.dump_key(config, "tuned", "mid", 0)


def test_two_matrices_changed_in_place_are_seen(tuned: Path) -> None:
    before = keys()
    tensors = load_file(tuned / WEIGHTS)
    for part in ("q_proj", "o_proj"):
        tensors[f"model.layers.1.self_attn.{part}.weight"] *= -3
    save_file(tensors, tuned / WEIGHTS, {"format": "pt"})
    after = keys()
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "name",
    [
        "merges.txt",
        "vocab.json",
        "tokenizer.model",
        "qwen.tiktoken",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
    ],
)
def test_every_file_of_a_tokenizer_is_part_of_the_keys(tuned: Path, name: str) -> None:
    found = [keys()]
    (tuned / name).parent.mkdir(exist_ok=True)
    for text in ("{}", '{"a": 1}'):
        (tuned / name).write_text(text)
        found.append(keys())
    for both in zip(*found, strict=True):
        assert len(set(both)) == 3


def test_code_is_part_of_the_keys_where_it_is_trusted(tuned: Path) -> None:
    source = {"path": str(cast(Raw, RAW["models"])["tuned"]), "trust_remote_code": True}
    found = {}
    for trusted, raw in ((False, RAW), (True, put(RAW, "models.tuned", source))):
        before = keys(raw)
        (tuned / "modeling_mine.py").write_text(f"x = {trusted}")
        found[trusted] = before != keys(raw)
        (tuned / "modeling_mine.py").unlink()
    assert found == {False: False, True: True}


def test_whose_control_tokens_is_part_of_the_text(tuned: Path) -> None:
    harms.edit("tokenizer_config.json", lambda settings: settings.update(bos_token="<eos>"))(tuned)
    config = load(RAW)
    with pytest.raises(
        UserError, match=r"BOS is id 1 in base and 2 in tuned: set text\.control_tok"
    ):
        refuse_early(config)
    chosen = [put(RAW, "text.control_tokens", name) for name in ("base", "tuned")]
    for raw in chosen:
        refuse_early(load(raw))
    assert len({keys(raw)[0] for raw in (RAW, *chosen)}) == 3


def test_a_model_with_the_first_ones_tokenizer_lends_its_name(tree: Path, tuned: Path) -> None:
    """The step gets one model for each different tokenizer."""
    harms.edit("tokenizer_config.json", lambda settings: settings.update(bos_token="<eos>"))(tuned)
    shutil.copytree(tree / "my models/base", tree / "other")
    raw = put(put(RAW, "models.other", "other"), "text.control_tokens", "other")
    config = load(raw)
    assert store_keys.tokenizer_models(config) == ["base", "tuned"]
    assert "--control-tokens=base" in Flags(Paths(config)).rendering()
    assert not [flag for flag in Flags(Paths(load(RAW))).rendering() if "control" in flag]
