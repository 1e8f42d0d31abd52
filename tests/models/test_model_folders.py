"""Folders as users bring them: each is read right, or refused with one sentence before any work."""

from __future__ import annotations

import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.models import broken_folders as harms
from tests.models.broken_folders import INDEX, WEIGHTS, Harm
from tests.models.random_models import ARCHITECTURES, LAYERS, VOCABULARY, write_folder
from workflow_scripts.common.cli import UserError
from workflow_scripts.models.architecture import check_architecture
from workflow_scripts.models.folders import ModelFolder, read_folder
from workflow_scripts.models.weights import read_header

SECOND = "model-00002-of-00002.safetensors"
NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model, made once."""
    return write_folder(tmp_path_factory.mktemp("whole") / "llama", "llama")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be harmed."""
    return shutil.copytree(made, tmp_path / "it's mine (v2)")


def check(folder: Path) -> ModelFolder:
    """Do what a run does with a local model when it is planned, then when it starts."""
    found = read_folder("config: models.tuned", folder)
    check_architecture("config: models.tuned", folder, found, trust=False)
    return found


def named(name: str, dtype: torch.dtype = torch.int32) -> Harm:
    """Return the harm of one more tensor."""
    return harms.weigh(lambda tensors: tensors | {name: torch.zeros(2, 4, dtype=dtype)})


def lengthen(folder: Path) -> None:
    """Let the header's length point beyond the file."""
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 62) + content[8:])


UNREADABLE: dict[str, tuple[Harm, str]] = {
    "pointer": (harms.pointer(WEIGHTS), f"{WEIGHTS} is a Git LFS pointer"),
    "pointer for config": (harms.pointer("config.json"), "config.json is a Git LFS pointer"),
    "pointer for tokenizer": (harms.pointer("tokenizer.json"), "tokenizer.json is a Git LFS"),
    "pointer for a part": (harms.sharded(harms.pointer(SECOND)), f"{SECOND} is a Git LFS pointer"),
    "weights cut": (harms.cut(WEIGHTS, 0.7), f"{WEIGHTS} is truncated or no safetensors file"),
    "header cut": (harms.cut(WEIGHTS, 0.02), "is truncated or no safetensors file"),
    "weights longer": (
        lambda folder: (folder / WEIGHTS).open("ab").write(b"more"),
        "is truncated or no safetensors file",
    ),
    "empty": (harms.fill(WEIGHTS, b""), "is truncated or no safetensors file"),
    "a page": (harms.fill(WEIGHTS, b"<!doctype html>" * 99), "is truncated or no safetensors file"),
    "length": (lengthen, "is truncated or no safetensors file"),
    "header nested": (
        harms.fill(WEIGHTS, struct.pack("<Q", len(NESTED)) + NESTED),
        "is truncated or no safetensors file",
    ),
    "no tensor": (harms.fill(WEIGHTS, struct.pack("<Q", 2) + b"{}"), "holds no tensor"),
    "part cut": (harms.sharded(harms.cut(SECOND, 0.7)), f"{SECOND} is truncated"),
    "part missing": (harms.sharded(harms.remove(SECOND)), f"lacks {SECOND}: fetch it again"),
    "index": (harms.sharded(harms.fill(INDEX, b"{")), f"{INDEX} is not valid JSON"),
    "index without map": (harms.sharded(harms.fill(INDEX, b"{}")), "which file holds which tensor"),
    "index elsewhere": (
        harms.sharded(harms.fill(INDEX, b'{"weight_map": {"a": "../a.safetensors"}}')),
        "which file holds which tensor",
    ),
    "pickle": (harms.rename(WEIGHTS, "pytorch_model.bin"), "only pickled weights, which may run"),
    "gguf": (harms.rename(WEIGHTS, "model.gguf"), "in place of path"),
    "another name": (harms.rename(WEIGHTS, "a.safetensors"), "but a.safetensors: rename it"),
    "no weights": (harms.remove(WEIGHTS), "the one format of weights that is read: fetch or save"),
    "compiled": (harms.prefix("_orig_mod."), "as a wrapper names them (_orig_mod."),
    "compiled inside": (
        harms.weigh(
            lambda t: {n.replace("layers.1.", "layers.1._orig_mod."): x for n, x in t.items()}
        ),
        "as a wrapper names them (model.layers.1._orig_mod.",
    ),
    "parallel": (harms.prefix("module."), "as a wrapper names them (module."),
    "bitsandbytes": (harms.quantised("bitsandbytes", load_in_4bit=True), "is quantised"),
    "gptq": (harms.quantised("gptq", bits=4), "quantised (quantization_config: 'gptq')"),
    "awq": (harms.quantised("awq"), "give the model in full precision"),
    "fp8": (harms.quantised("fp8"), "give the model in full precision"),
    "mxfp4": (harms.quantised("mxfp4"), "give the model in full precision"),
    "packed": (harms.pack, "are quantised (model.layers.0.mlp.down_proj.qweight is I32)"),
    "eight bits": (
        harms.eight_bit,
        "are quantised (model.layers.0.mlp.down_proj.weight is F8_E4M3)",
    ),
    "scales": (
        named("model.layers.0.mlp.up_proj.weight_scale_inv", torch.float32),
        "are quantised",
    ),
    "blocks": (named("model.layers.0.mlp.experts.down_proj_blocks", torch.uint8), "are quantised"),
    "list": (harms.fill("config.json", b"[]"), "config.json is no JSON object"),
    "no JSON": (harms.fill("config.json", b"{"), "config.json is not valid JSON"),
    "no UTF-8": (harms.fill("config.json", b'{"a": "\xff"}'), "config.json is not valid JSON"),
    "nested": (harms.fill("config.json", NESTED), "config.json is not valid JSON"),
    "digits": (harms.fill("config.json", b'{"a": ' + b"9" * 5000 + b"}"), "is not valid JSON"),
    "too deep": (harms.configure(num_hidden_layers=10**9), "says num_hidden_layers is 1000000000"),
    "deeper": (
        harms.configure(num_hidden_layers=9999),
        "9999 layers, but the weights hold only 30",
    ),
    "generation": (
        harms.fill("generation_config.json", b"[]"),
        "generation_config.json is no JSON",
    ),
    "no tokenizer": (harms.remove("tokenizer*"), "has no tokenizer.json: put that of the model"),
    "tokenizer settings": (harms.fill("tokenizer_config.json", b"{"), "is not valid JSON"),
    "adapter": (harms.adapter, "is a LoRA adapter, not a model: write adapter: "),
    "adapter beside": (
        harms.fill("adapter_config.json", b"{}"),
        "holds a LoRA adapter beside the model",
    ),
    "no config": (harms.remove("config.json"), "is no folder of a Hugging Face model"),
}
UNFIT: dict[str, tuple[Harm, str]] = {
    "no head": (harms.without("lm_head"), "lack lm_head.weight, which config.json asks for: save"),
    "body alone": (
        harms.weigh(lambda t: {n.removeprefix("model."): x for n, x in t.items() if n[0] == "m"}),
        "lack lm_head.weight",
    ),
    "no layer": (harms.without("layers.1."), "input_layernorm.weight and 8 more, which config"),
    "other names": (harms.prefix("base."), "which it does not know): fetch or save them again"),
    "row more": (
        harms.row_more("model.embed_tokens.weight"),
        "model.embed_tokens.weight in {folder} has the shape [41, 16], but config.json asks for "
        "[40, 16]: correct vocab_size",
    ),
    "row more in the head": (harms.row_more("lm_head.weight"), "correct vocab_size in config.json"),
    "wider": (harms.configure(hidden_size=32), "correct the sizes in config.json"),
    "shallower": (
        harms.configure(num_hidden_layers=2),
        "hold model.layers.2.input_layernorm.weight",
    ),
    "biases": (
        harms.weigh(lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)}),
        "hold model.layers.0.self_attn.q_proj.bias, which the model of config.json lacks (a llama",
    ),
    "deeper": (harms.configure(num_hidden_layers=4), "lack model.layers.3.input_layernorm.weight"),
    "another type": (harms.configure(model_type="qwen2"), "lack model.layers.0.self_attn.k_proj.b"),
    "unknown type": (harms.configure(model_type="nobody"), "set trust_remote_code if its code can"),
    "no layers": (harms.configure(num_hidden_layers=0), "num_hidden_layers is 0"),
    "words": (harms.configure(num_hidden_layers="three"), "num_hidden_layers"),
    "no heads": (harms.configure(num_attention_heads=0), "config.json cannot be read"),
    "parts of text": (harms.configure(text_config=[1]), "config.json cannot be read"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_headers_and_json_show_is_refused_in_a_dry_run(folder: Path, case: str) -> None:
    harm, told = UNREADABLE[case]
    harm(folder)
    with pytest.raises(UserError) as caught:
        read_folder("config: models.tuned", folder)
    sentence = str(caught.value)
    assert sentence.startswith("config: models.tuned: ")
    assert told in sentence
    assert str(folder) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("case", UNFIT)
def test_weights_of_another_architecture_are_refused_at_the_start(folder: Path, case: str) -> None:
    harm, told = UNFIT[case]
    harm(folder)
    read_folder("config: models.tuned", folder)
    with pytest.raises(UserError) as caught:
        check(folder)
    sentence = str(caught.value)
    assert sentence.startswith("config: models.tuned: ")
    assert told.format(folder=folder) in sentence
    assert "\n" not in sentence


def test_an_adapter_given_as_model_names_its_base(folder: Path) -> None:
    harms.adapter(folder)
    told = "beside path or hub of its base model, which it calls 'org/base'"
    with pytest.raises(UserError, match=told):
        read_folder("config: models.tuned", folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist: check the path"):
        read_folder("config: models.tuned", tmp_path / "nowhere")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_transformers_saves_fits(architecture: str, tmp_path: Path) -> None:
    found = check(write_folder(tmp_path / "model", architecture))
    assert (found.layers, found.positions) == (LAYERS, 64)


GOOD: dict[str, Harm] = {
    "parts": harms.shard,
    "tied head": lambda folder: (
        harms.configure(tie_word_embeddings=True)(folder),
        harms.without("lm_head")(folder),
    ),
    "a head beside a tied one": harms.configure(tie_word_embeddings=True),
    "something beside the blocks": named("value_head.weights", torch.float32),
    "buffers of old": named("model.layers.0.self_attn.rotary_emb.inv_freq", torch.float32),
    "a single number of old": harms.weigh(
        lambda tensors: tensors | {"model.layers.0.self_attn.masked_bias": torch.tensor(-1e4)}
    ),
    "causal masks of old": harms.weigh(
        lambda tensors: tensors | {"model.layers.0.self_attn.causal": torch.ones(1, 1, 64, 64)}
    ),
    "no generation": harms.remove("generation_config.json"),
}


@pytest.mark.parametrize("case", GOOD)
def test_whole_models_of_other_forms_fit(folder: Path, case: str) -> None:
    GOOD[case](folder)
    check(folder)


def test_a_part_of_the_file_that_is_not_read_is_mentioned(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    GOOD["something beside the blocks"](folder)
    check(folder)
    assert "warning: config: models.tuned: value_head.weights in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({}, 64),
        ({"rope_scaling": ROPE}, 256),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 128),
        ({"rope_scaling": {"factor": "much"}}, 64),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_positions(settings: dict[str, object], positions: int | None) -> None:
    config = {"max_position_embeddings": 64, "num_hidden_layers": 3, **settings}
    assert ModelFolder(config, {}).positions == positions


def test_a_header_gives_types_and_shapes(folder: Path) -> None:
    found = read_header("mine", folder / WEIGHTS)["model.embed_tokens.weight"]
    assert (found.dtype, found.shape) == ("F32", (VOCABULARY, 16))


def test_a_sentencepiece_model_alone_is_refused(folder: Path) -> None:
    harms.remove("tokenizer*")(folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    with pytest.raises(UserError, match=r"has no tokenizer\.json but tokenizer\.model, which"):
        read_folder("config: models.tuned", folder)


def test_a_tokenizer_of_vocabulary_and_merges_is_read(folder: Path) -> None:
    harms.remove("tokenizer*")(folder)
    (folder / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    harms.configure(model_type="gpt2")(folder)
    read_folder("config: models.tuned", folder)
    assert AutoTokenizer.from_pretrained(folder)("ab")["input_ids"] == [2]


def test_the_start_takes_a_second_at_most_for_a_large_model(folder: Path) -> None:
    """No weight is read: a file of 4 GB whose blocks are not even there takes no longer."""
    header = read_header("mine", folder / WEIGHTS)
    sizes = dict.fromkeys(header, 100000000)
    at, entries = 0, io.StringIO()
    for name, size in sizes.items():
        entries.write(f', "{name}": {{"dtype": "F32", "shape": [{size // 4}], ')
        entries.write(f'"data_offsets": [{at}, {at + size}]}}')
        at += size
    text = ("{" + entries.getvalue()[2:] + "}").encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    found = read_folder("config: models.tuned", folder)
    assert sum(int(np.prod(entry.shape)) for entry in found.tensors.values()) == at // 4
