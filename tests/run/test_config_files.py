"""A damaged config file is refused with one sentence that names the file and the line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from tests.run.test_settings import SMOKE, put, smoke
from workflow_scripts.common.cli import UserError
from workflow_scripts.run.config_files import check_file
from workflow_scripts.run.load import load


def refusal(tmp_path: Path, content: bytes | str) -> str:
    """Return the sentence by which a file is refused."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        check_file(path)
    told = str(caught.value)
    assert "\n" not in told
    assert str(path) in told
    return told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- run: a\n", "line 1: a config is a mapping"),
        ("run", "line 1: a config is a mapping"),
        ("run: a\nseed: 1\nrun: b\n", "line 3: 'run' stands in line 1 too"),
        ("run: a\ntext:\n  tokens: 1\n  tokens: 2\n", "line 4: 'tokens' stands in line 3 too"),
        ("run: a\ntext:\n\ttokens: 1\n", "line 3: no YAML"),
        ("run: a\nlayers: {a: [1}\n", "line 2: no YAML"),
        ("run: a\nmodels:\n  yes: {path: x}\n", "line 3: YAML reads the key 'yes' as bool"),
        ("run: a\nmodels:\n  1.5: x\n", "line 3: YAML reads the key '1.5' as float"),
        ("run: a\nmodels:\n  ~: x\n", "line 3: YAML reads the key '~' as null"),
        ("run: a\n? [1, 2]\n: x\n", "line 2: a key is one word"),
        ("run: a\nx: " + "[" * 60 + "]" * 60, "line 2: nested more than 40 levels"),
        ("x: " + "[" * 5000 + "]" * 5000, "nested more than 40 levels"),
        ("run: a\nseed: é\n".encode("latin-1"), "line 2: no UTF-8"),
        ("run: a\n".encode("utf-16"), "line 1: no UTF-8"),
        (b"run: a\nx: \x00\n", "is no YAML"),
    ],
)
def test_a_damaged_file(tmp_path: Path, content: bytes | str, told: str) -> None:
    assert told in refusal(tmp_path, content)


def test_marks_and_merged_keys_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfrun: a\nx: &x {k: 1}\ny: {<<: *x, k: 2}\nz: *x\n")
    check_file(path)
    check_file(tmp_path / "not_there.yaml")
    check_file(SMOKE)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("text.tokens", "1e6", "'1e6': give a whole number: YAML reads it as text: write 1000000"),
        ("crosscoder.learning_rate", "abc", "'abc': give a number"),
        ("run", True, "True: give text: put it in quotes"),
        ("run", 12, "12: give text: put it in quotes"),
    ],
)
def test_values_that_yaml_reads_otherwise(place: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(put(smoke(), place, value))
    assert told in str(caught.value)


def _damage(text: str, rng: random.Random) -> bytes:
    """Return a config with some damage of the kinds that editors and people do."""
    raw = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(raw))
        kind = rng.randrange(6)
        if kind == 0:
            raw[place : place + rng.randint(1, 40)] = b""
        elif kind == 1:
            raw[place:place] = rng.choice(
                [b"\t", b"\x00", b"\xff", b": ", b"- ", b"{", b"]", b"&a *b"]
            )
        elif kind == 2:
            raw[place] = rng.randrange(256)
        elif kind == 3:
            other = rng.randrange(len(raw))
            raw[place:place] = raw[other : other + 30]
        elif kind == 4:
            lines = bytes(raw).split(b"\n")
            rng.shuffle(lines)
            raw = bytearray(b"\n".join(lines))
        else:
            values = [
                b"yes",
                b"1e6",
                b".nan",
                b"~",
                b"[]",
                b"{}",
                b"-1",
                b"2026-01-01",
                b"!!set {}",
            ]
            raw[place:place] = b" " + rng.choice(values) + b" "
    return bytes(raw)


def test_200_damaged_configs_are_read_or_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, path = SMOKE.read_text(encoding="utf-8"), Path("mine.yaml")
    sentences = []
    for seed in range(200):
        path.write_bytes(_damage(text, random.Random(seed)))
        try:
            check_file(path)
            load(yaml.safe_load(path.read_bytes().decode("utf-8-sig")))
        except UserError as error:
            sentences.append(str(error))
    assert 100 < len(sentences) <= 200
    assert all(sentence and "\n" not in sentence for sentence in sentences)
