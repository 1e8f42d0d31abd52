"""GGUF files as models of a run: checked when it is planned, converted once, known by content."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from tests.models.gguf_files import tiny_llama, write_gguf
from tests.run.test_settings import Raw, put
from workflow_scripts.common.cli import UserError
from workflow_scripts.run import store_keys
from workflow_scripts.run.fingerprints import fingerprint
from workflow_scripts.run.flags import Flags
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.plan_run import describe
from workflow_scripts.run.preflight import refuse_early
from workflow_scripts.run.resources import depth, size

RAW: Raw = {
    "run": "mine",
    "models": {"whole": {"gguf": "whole.gguf"}, "packed": "packed.gguf"},
    "text": {"sources": {"notes": {"kind": "jsonl", "path": "notes.jsonl"}}, "context_length": 64},
    "layers": {"mid": [2]},
}


@pytest.fixture(autouse=True)
def _tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in two forms, and a text, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    fingerprint.cache_clear()  # of relative paths
    write_gguf(Path("whole.gguf"), tiny_llama())
    write_gguf(Path("packed.gguf"), tiny_llama(), Kind.Q8_0)
    Path("notes.jsonl").write_text('{"text": "the"}\n')


def test_a_run_starts_from_files_alone(capsys: pytest.CaptureFixture[str]) -> None:
    config = load(RAW)
    refuse_early(config)
    assert capsys.readouterr().err == ""
    assert depth(config, "packed") == 2
    assert (size(config, "packed").width, size(config, "whole").width) == (64, 64)
    assert "dequantised" in describe(config)
    assert load(put(RAW, "models.whole.gguf", "~/whole.gguf")).models["whole"].gguf == str(
        Path.cwd() / "whole.gguf"
    )


def test_forms_of_a_model_share_the_text_and_nothing_else() -> None:
    config = load(RAW)
    tokenizers, models, converted = (
        {name: key(config, name) for name in config.models}
        for key in (store_keys.tokenizer_key, store_keys.model_key, store_keys.converted_key)
    )
    assert tokenizers["whole"] == tokenizers["packed"]
    assert models["whole"] != models["packed"]
    assert converted["whole"] != converted["packed"]
    paths = Paths(config)
    assert paths.gguf_file(converted["packed"]) == "packed.gguf"
    folder = f"results/store/{converted['packed']}/from-gguf"
    assert paths.model_files("packed") == [f"{folder}/config.json"]
    assert f"--path={folder}" in Flags(paths).model_source("packed")


def test_the_same_file_twice_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    refuse_early(load(put(RAW, "models.packed", "whole.gguf")))
    assert "warning: models whole and packed are the same files" in capsys.readouterr().err


MISTAKES: list[tuple[str, object, str]] = [
    ("models.whole", {"gguf": "none.gguf"}, "none.gguf cannot be read (No such file"),
    ("models.whole", {"path": "whole.gguf"}, "is a GGUF file: name it by gguf in place of path"),
    ("models.whole", {"gguf": "whole.gguf", "path": "x"}, "has gguf and path: give exactly one"),
    ("layers.mid", [3], "model whole has 2 layers: use 1 to 2"),
    ("text.context_length", 65, "model whole was made for 64 positions: lower it"),
]


@pytest.mark.parametrize(("place", "value", "told"), MISTAKES)
def test_mistakes_are_told_when_a_run_is_planned(place: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(put(RAW, place, value))
    assert told in str(caught.value)


def test_an_architecture_that_is_not_read_stops_the_start() -> None:
    write_gguf(Path("packed.gguf"), tiny_llama(), architecture="rwkv6")
    with pytest.raises(UserError, match=r"config: models\.packed: transformers cannot read packed"):
        refuse_early(load(RAW))
