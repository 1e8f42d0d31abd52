"""Content keys change with what a dump depends on, and with nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.run.test_settings import Raw, put, smoke, write_described
from workflow_scripts.run import store_keys
from workflow_scripts.run.fingerprints import fingerprint
from workflow_scripts.run.load import load

HUB: Raw = {"hub": "owner/name", "revision": "0" * 40}


def dump(raw: Raw, model: str = "it", shard: int = 0) -> str:
    """Return the key of a dump."""
    return store_keys.dump_key(load(raw), model, "mid", shard)


CHANGES: list[tuple[str, object]] = [
    ("seed", 1),
    ("text.sources.generated.categories", ["narrative", "arithmetic"]),
    ("text.context_length", 64),
    ("text.shard_tokens", 20_000),
    ("text.bytes_per_token", 3.0),
    ("text.splits", {"fit": 0.5, "calibration": 0.1, "score": 0.2, "explain": 0.1, "verify": 0.1}),
    ("layers.mid", [1, 2]),
    ("activations.dtype", "float16"),
    ("activations.compute_dtype", "bfloat16"),
    ("models.it.organism.seed", 3),
    ("models.pt.organism.teach.narrative", 151),
    ("organism.learning_rate", 0.001),
    ("models.other", HUB),  # another tokenizer in the run
]


@pytest.mark.parametrize(("place", "value"), CHANGES)
def test_what_a_dump_depends_on_changes_its_key(place: str, value: object) -> None:
    assert dump(put(smoke(), place, value)) != dump(smoke())


NO_CHANGES: list[tuple[str, object]] = [
    ("run", "other"),
    ("text.tokens", 90_000),
    ("text.topics", {"count": 3}),
    ("layers.high", [2]),
    ("models.simpo.organism.seed", 9),
    ("activations.batch_tokens", 100),
    ("activations.device", "cuda"),
    ("activations.norm_bound", 5.0),
    ("crosscoder.k", 5),
    ("latents.nu_r", 0.4),
]


@pytest.mark.parametrize(("place", "value"), NO_CHANGES)
def test_nothing_else_changes_it(place: str, value: object) -> None:
    assert dump(put(smoke(), place, value)) == dump(smoke())


def test_a_hub_model_is_known_by_id_and_revision() -> None:
    raw = put(smoke(), "models.other", HUB)
    assert dump(raw, "other") != dump(put(raw, "models.other.revision", "1" * 40), "other")
    assert dump(raw, "other") != dump(put(raw, "models.other.hub", "owner/else"), "other")


def test_a_column_of_labels_is_drawn_with_the_text_and_a_constant_is_not() -> None:
    source = {"kind": "huggingface", "path": "owner/text", "revision": "0" * 40}
    raw = put(smoke(), "text.sources.web", source)
    assert dump(put(raw, "text.sources.web.category", "legal")) == dump(raw)
    assert dump(put(raw, "text.sources.web.category_column", "kind")) != dump(raw)


def test_the_format_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(smoke())
    monkeypatch.setattr(store_keys, "VERSION", 999)
    assert dump(smoke()) != before


def test_a_last_shard_that_is_not_full_has_a_key_of_its_own() -> None:
    """Shards of 30,000 tokens: the third holds 10,000, then all it can."""
    short, full = (load(put(smoke(), "text.tokens", tokens)) for tokens in (70_000, 90_000))
    for key in (store_keys.documents_key, store_keys.tokens_key):
        assert [key(short, n) == key(full, n) for n in range(3)] == [True, True, False]
    assert [store_keys.shard_tokens(short, n) for n in range(3)] == [30_000, 30_000, 10_000]


def test_files_of_text_and_models_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text(json.dumps({"text": "one"}))
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        write_described(tmp_path / name)
    raw: Raw = {
        "run": "mine",
        "models": {"base": "base", "tuned": "tuned"},
        "text": {"sources": {"chats": {"kind": "jsonl", "path": "chats.jsonl"}}},
        "layers": {"mid": [2]},
    }

    def key() -> str:
        fingerprint.cache_clear()
        return dump(raw, "tuned")

    before = key()
    write_described(tmp_path / "base", 1)
    assert key() == before  # another model's weights
    write_described(tmp_path / "tuned", 1)
    after = key()
    (tmp_path / "chats.jsonl").write_text(json.dumps({"text": "two"}))
    assert len({before, after, key()}) == 3
