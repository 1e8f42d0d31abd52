"""Damaged model folders, drawn by a seed: each is read, or refused with one sentence, and soon."""

from __future__ import annotations

import json
import random
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import broken_folders as harms
from tests.models.broken_folders import INDEX, WEIGHTS
from tests.models.random_models import write_folder
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.manifest import load_tokenizer, read_tokenizer
from workflow_scripts.dataset.vocabularies import check_agreement
from workflow_scripts.models.architecture import check_architecture
from workflow_scripts.models.folders import read_folder
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.resolve_model import describe

CPU = torch.device("cpu")
SEED = 20260
ROUNDS = 7
LONGEST = 5.0
"""Seconds for one folder, on a busy machine: none may hang."""
JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", INDEX)
VALUES: tuple[object, ...] = (
    None, True, -1, 0, 7, 10**6, 10**9, 10**18, -(10**18), 1.5, 1e308, "", "x", "\0", "../..",
    "é", [], [1], [[]], {}, {"a": {}}, [None] * 50,
)  # fmt: skip
Damage = Callable[[random.Random, bytes], bytes]


def cut(rng: random.Random, content: bytes) -> bytes:
    """Return the beginning of a file."""
    return content[: rng.randrange(len(content))]


def flip(rng: random.Random, content: bytes) -> bytes:
    """Return a file with some bits flipped."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero(rng: random.Random, content: bytes) -> bytes:
    """Return a file with a hole of NUL bytes, as a crash leaves."""
    first = rng.randrange(len(content))
    last = rng.randint(first, len(content))
    return content[:first] + bytes(last - first) + content[last:]


def nest(rng: random.Random, content: bytes) -> bytes:
    """Return JSON that is nested too deeply, at the top or at some key."""
    deep = b"[" * 50_000 + b"]" * 50_000
    key = b'{"%s": ' % rng.choice([b"model_type", b"model", b"weight_map", b"added_tokens", b"x"])
    return key + deep + b"}" if rng.random() < 0.7 else deep


def replace(rng: random.Random, content: bytes) -> bytes:
    """Return JSON with another value at some place: of the wrong type, huge, or none."""
    value = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        parent, key = rng.choice(list(places(value)))
        parent[key] = rng.choice(VALUES)
    return json.dumps(value).encode()


def drop(rng: random.Random, content: bytes) -> bytes:
    """Return JSON without some entry."""
    value = json.loads(content)
    parent, key = rng.choice(list(places(value)))
    del parent[key]
    return json.dumps(value).encode()


def whole(rng: random.Random, content: bytes) -> bytes:
    """Return a file that holds one value alone."""
    return json.dumps(rng.choice(VALUES)).encode()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container within JSON with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def in_header(damage: Damage) -> Damage:
    """Return a damage of a safetensors file's header, whose length stays right."""

    def harm(rng: random.Random, content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = damage(rng, content[8 : 8 + length])
        return struct.pack("<Q", len(header)) + header + content[8 + length :]

    return harm


DAMAGES: dict[str, Damage] = {f.__name__: f for f in (cut, flip, zero, nest, replace, drop, whole)}
CASES = [(file, name) for file in JSON for name in DAMAGES]
CASES += [(WEIGHTS, name) for name in (*DAMAGES, "cut the file", "flip the length")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole models, one with an index, made once."""
    folder = tmp_path_factory.mktemp("whole")
    write_folder(folder / "base", "llama")
    shutil.copytree(folder / "base", folder / "parts")
    harms.shard(folder / "parts")
    return folder


def read(folder: Path, base: Path) -> str | None:
    """Do what a run does with a model before it computes; return by which sentence it refuses."""
    where, manifest = "config: models.tuned", folder / "model.json"
    try:
        check_architecture(where, folder, read_folder(where, folder), trust=False)
        tokenizers = {n: read_tokenizer(n, f, trust=False) for n, f in (("a", base), ("b", folder))}
        check_agreement(tokenizers)
        describe("tuned", folder, None, None, False, manifest).write(manifest)
        load_tokenizer(manifest)
        load_model(manifest, torch.float32, CPU)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("file", "damage"), CASES)
def test_a_sentence_or_a_model(file: str, damage: str, made: Path, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        rng = random.Random(f"{SEED} {file} {damage} {number}")
        folder = shutil.copytree(
            made / ("parts" if file == INDEX else "base"), tmp_path / f"{number}"
        )
        content = (folder / file).read_bytes()
        if damage == "cut the file":
            changed = cut(rng, content)
        elif damage == "flip the length":
            changed = flip(rng, content[:8]) + content[8:]
        else:
            chosen = DAMAGES[damage]
            changed = (in_header(chosen) if file == WEIGHTS else chosen)(rng, content)
        (folder / file).write_bytes(changed)
        started = time.monotonic()
        sentence = read(folder, made / "base")
        assert time.monotonic() - started < LONGEST
        assert sentence is None or ("\n" not in sentence and ": " in sentence)
