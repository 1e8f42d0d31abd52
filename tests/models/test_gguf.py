"""GGUF files as models: what their headers say, what is refused, what quantisation changed."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.models.gguf_files import TEMPLATE, TOKENS, tiny_llama, write_gguf
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.manifest import Manifest, load_tokenizer
from workflow_scripts.models import convert_gguf, resolve_model
from workflow_scripts.models.gguf_header import BLOCKS, read_gguf
from workflow_scripts.models.loading import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in float32."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_llama())


def resolved(path: Path, folder: Path) -> Path:
    """Return the manifest of the model of a GGUF file, as the two steps make it."""
    words = ["--gguf", str(path), "--output-dir", str(folder / "from-gguf")]
    assert convert_gguf.main(words) == 0
    manifest = folder / "model.json"
    words = ["--name", "mine", "--path", str(folder / "from-gguf"), "--output", str(manifest)]
    assert resolve_model.main(words) == 0
    return manifest


def test_the_header_says_what_a_plan_needs(file: Path) -> None:
    found = read_gguf("here", file)
    assert (found.architecture, found.layers, found.width, found.positions) == ("llama", 2, 64, 64)
    assert found.parameters == sum(p.numel() for p in tiny_llama().parameters())
    assert found.metadata["tokenizer.ggml.tokens"] == len(TOKENS)
    assert found.dtype == "float32"


def test_sizes_of_blocks_are_the_formats() -> None:
    known = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert known.items() >= BLOCKS.items()


@pytest.mark.parametrize(("kind", "dtype"), [(Kind.F16, "float16"), (Kind.BF16, "bfloat16")])
def test_half_precision_is_kept(tmp_path: Path, kind: Kind, dtype: str) -> None:
    path = write_gguf(tmp_path / "half.gguf", tiny_llama(), kind)
    assert read_gguf("here", path).dtype == dtype
    resolved(path, tmp_path)
    config = json.loads((tmp_path / "from-gguf/config.json").read_text())
    assert config["dtype"] == dtype


def test_a_file_gives_the_model_with_its_tokenizer_and_template(file: Path, tmp_path: Path) -> None:
    manifest = resolved(file, tmp_path)
    described = Manifest.read(manifest)
    assert (described.kind, described.gguf) == ("gguf", "tiny.gguf")
    assert len(described.gguf_sha256 or "") == 64
    assert (described.layers, described.vocabulary) == (2, len(TOKENS))
    written = tiny_llama().state_dict()
    for name, weight in load_model(manifest, torch.float32, CPU).state_dict().items():
        torch.testing.assert_close(weight, written[name], rtol=0, atol=0)
    tokenizer = load_tokenizer(manifest)
    assert (
        tokenizer.decode(tokenizer("the cat", add_special_tokens=False)["input_ids"]) == "the cat"
    )
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.bos_token == TOKENS[0]


def outputs(manifest: Path) -> tuple[Tensor, Tensor]:
    """Return the losses [rows] and the residual stream [N, D] on some rows of tokens."""
    model = load_model(manifest, torch.float32, CPU)
    ids = torch.randint(len(TOKENS), (16, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    losses = cross_entropy(out.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return losses.mean(1), out.hidden_states[1].flatten(0, 1)


@pytest.mark.parametrize(
    ("kind", "gap", "distance"), [(Kind.Q8_0, 0.02, 1e-3), (Kind.Q4_0, 0.1, 0.05)]
)
def test_quantisation_changes_next_to_nothing(
    file: Path, tmp_path: Path, kind: Kind, gap: float, distance: float
) -> None:
    packed = write_gguf(tmp_path / "packed.gguf", tiny_llama(), kind)
    before = outputs(resolved(file, tmp_path / "whole"))
    after = outputs(resolved(packed, tmp_path / "packed"))
    assert 0 < abs((before[0] - after[0]).mean()) < gap
    moved = (before[1] - after[1]).square().sum() / before[1].square().sum()
    assert 0 < moved < distance


def edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return a harm that changes a file's bytes."""
    return lambda path: (path.write_bytes(change(path.read_bytes())), None)[1]


def entry(path: Path, name: str, value: object) -> None:
    """Write a tiny file of one tensor with a further entry."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    if isinstance(value, int):
        writer.add_uint32(name, value)
    else:
        writer.add_string(name, str(value))
    writer.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "absent": (Path.unlink, "cannot be read (No such file"),
    "empty": (edit(lambda _: b""), "is truncated or no GGUF file: fetch or convert it again"),
    "foreign": (edit(lambda b: b"PK" + b[2:]), "is truncated or no GGUF file"),
    "old": (edit(lambda b: b[:4] + struct.pack("<I", 1) + b[8:]), "is truncated or no GGUF file"),
    "half a header": (edit(lambda b: b[:2000]), "is truncated or no GGUF file"),
    "half the weights": (edit(lambda b: b[:-40]), "is truncated: fetch or convert it again"),
    "pointer": (edit(lambda _: b"version https://git-lfs..."), "is a Git LFS pointer"),
    "part": (lambda path: entry(path, "split.count", 3), "is one of 3 parts: join them"),
    "adapter": (lambda path: entry(path, "general.type", "adapter"), "holds no language model"),
    "tokenizer": (lambda path: entry(path, "some", 1), "holds no tokenizer: convert it with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_model_is_refused(file: Path, tmp_path: Path, case: str) -> None:
    harm, told = REFUSED[case]
    path = tmp_path / "mine.gguf"
    path.write_bytes(file.read_bytes())
    harm(path)
    with pytest.raises(UserError) as caught:
        read_gguf("config: models.m", path)
    assert str(caught.value).startswith(f"config: models.m: {path} ")
    assert told in str(caught.value)


def test_an_architecture_that_transformers_does_not_read_is_one_sentence(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "odd.gguf", tiny_llama(), architecture="rwkv6")
    with pytest.raises(UserError, match=r"of the architecture rwkv6 \(.*\): give the model as a"):
        convert_gguf.check_gguf("config: models.m", path)


def test_scaled_positions_that_are_not_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factors = {convert_gguf.ROTARY: np.ones(8, np.float32)}
    path = write_gguf(tmp_path / "scaled.gguf", tiny_llama(), more=factors)
    convert_gguf.check_gguf("config: models.m", path)
    told = capsys.readouterr().err
    assert "warning: config: models.m: transformers does not read rope_freqs.weight" in told


def test_damaged_headers_are_read_or_refused_in_one_sentence(file: Path, tmp_path: Path) -> None:
    content, path, sentences = file.read_bytes(), tmp_path / "mine.gguf", []
    for seed in range(150):
        rng = random.Random(seed)
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(rng.choice((200, 8000)))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_gguf("here", path)
        except UserError as error:
            sentences.append(str(error))
    assert len(sentences) > 20
    assert not any("\n" in sentence for sentence in sentences)
