"""Documents to shards: one row per document, dealt in order, with true categories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import CHATML, TURNS, chat, sample, trained, wrap, write_jsonl
from workflow_scripts.cli import UserError
from workflow_scripts.dataset.shards import SPLITS, TokenShard
from workflow_scripts.dataset.tokenize_documents import Layout, fill_shards, main

FEW = {"fit": 0.5, "score": 0.5}


def shards(
    folder: Path,
    documents: Path,
    tokenizers: Mapping[str, PreTrainedTokenizerFast],
    layout: Layout | None = None,
    template: Path | None = None,
) -> tuple[list[TokenShard], dict[str, object]]:
    layout = layout or Layout(context_length=96, tokens=12_000, shard_tokens=5_000)
    outputs = [folder / f"shard{index:03d}.h5" for index in range(layout.shards)]
    manifest = folder / "tokens.json"
    fill_shards(documents, tokenizers, {}, template, layout, outputs, manifest, {})
    return [TokenShard.read(path) for path in outputs], json.loads(manifest.read_text())


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("documents"), {"made": {"kind": "generator"}})


def test_shards_follow_the_documents(
    documents: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    result, manifest = shards(tmp_path, documents, {"pt": tokenizer, "it": wrap(trained(TURNS))})
    table = pd.read_parquet(documents).set_index("document")
    assert [shard.tokens <= 5_000 for shard in result] == [True] * 3
    assert all(shard.tokens > 4_800 for shard in result[:2])
    assert 1_800 < result[2].tokens <= 2_000
    order = np.concatenate([shard.row_document for shard in result])
    np.testing.assert_array_equal(order, np.arange(len(order)))
    for shard in result:
        starts = shard.row_starts[:-1]
        assert (shard.ids[starts] == tokenizer.bos_token_id).all()
        assert (shard.ids == tokenizer.bos_token_id).sum() == shard.rows
        assert shard.template[starts].all()
        assert int(np.diff(shard.row_starts).max()) <= 96
        rows = table.loc[shard.row_document]
        assert [SPLITS[i] for i in shard.row_split] == list(rows["split"])
        for index, category in enumerate(rows["category"]):
            found = shard.category[shard.row(index)]
            masked = shard.template[shard.row(index)]
            assert (found[masked] == -1).all()
            assert (found[~masked] == shard.categories.index(category)).all()
    assert manifest["tokens"] == sum(shard.tokens for shard in result)
    assert manifest["short"] is False
    assert manifest["dropped"] == {}


def test_plain_rows_decode_to_their_text(
    documents: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (shard, *_), _ = shards(tmp_path, documents, {"pt": tokenizer})
    table = pd.read_parquet(documents).set_index("document")
    plain = 0
    for index, number in enumerate(shard.row_document):
        if table.loc[number, "kind"] == "plain":
            text = str(tokenizer.decode(shard.ids[shard.row(index)][1:].tolist()))
            assert str(table.loc[number, "text"]).startswith(text)
            assert (shard.role[shard.row(index)] == 0).all()
            plain += 1
    assert plain > 5


def test_tokenizing_is_reproducible_and_extends(
    documents: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    shards(tmp_path / "a", documents, {"pt": tokenizer}, Layout(96, 4_000, 2_000))
    shards(tmp_path / "b", documents, {"pt": tokenizer}, Layout(96, 8_000, 2_000))
    for name in ("shard000.h5", "shard001.h5"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_short_text_leaves_empty_but_valid_shards(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    lines = write_jsonl(tmp_path / "x.jsonl", ({"text": f"document {i}"} for i in range(50)))
    table = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}}, splits=FEW)
    result, manifest = shards(tmp_path, table, {"pt": tokenizer})
    assert [shard.rows for shard in result] == [50, 0, 0]
    assert manifest["short"] is True
    assert (result[0].category == -1).all()


def test_rows_with_ids_that_a_model_lacks_are_dropped(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    larger = wrap(trained(TURNS))
    larger.add_tokens(["<tool>"], special_tokens=True)
    texts = [f"text {i} {'<tool>' if i % 4 == 0 else 'word'}" for i in range(40)]
    texts.append("in the <bos> middle")
    lines = write_jsonl(tmp_path / "x.jsonl", ({"text": text} for text in texts))
    table = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}}, splits=FEW)
    (first, *_), manifest = shards(tmp_path, table, {"pt": tokenizer, "it": larger})
    assert first.rows == 30
    assert manifest["dropped"] == {"has ids that a model lacks": 10, "has BOS inside": 1}


def test_template_file_and_template_of_another_model(tmp_path: Path) -> None:
    lines = write_jsonl(
        tmp_path / "x.jsonl", ({"messages": chat(f"q {i}", f"a {i}")} for i in range(40))
    )
    table = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}}, splits=FEW)
    base, tuned = wrap(trained(TURNS), None), wrap(trained(TURNS))
    (first, *_), manifest = shards(tmp_path, table, {"pt": base, "it": tuned})
    assert tuned.get_vocab()["<start_of_turn>"] in first.ids
    assert manifest["template"] == tuned.chat_template
    file = tmp_path / "chatml.jinja"
    file.write_text(CHATML)
    (first, *_), _ = shards(tmp_path, table, {"pt": base, "it": tuned}, template=file)
    assert tuned.get_vocab()["<start_of_turn>"] not in first.ids
    with pytest.raises(UserError, match=r"has a chat template: set text.template"):
        shards(tmp_path, table, {"pt": wrap(trained(TURNS), None)})
    with pytest.raises(UserError, match=r"none\.jinja does not exist"):
        shards(tmp_path, table, {"pt": base}, template=tmp_path / "none.jinja")


def test_conflicting_tokenizers_stop_before_any_shard(documents: Path, tmp_path: Path) -> None:
    left, right = wrap(trained(TURNS)), wrap(trained(TURNS, 700, 40))
    with pytest.raises(UserError, match="the tokenizers of pt and it conflict"):
        shards(tmp_path, documents, {"pt": left, "it": right})
    assert not list(tmp_path.iterdir())


def test_all_documents_dropped(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    lines = write_jsonl(
        tmp_path / "x.jsonl",
        ({"messages": [*chat(f"q {i}"), *chat("again")]} for i in range(40)),
    )
    table = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}}, splits=FEW)
    with pytest.raises(UserError, match="gives no usable row: all 40 documents were dropped"):
        shards(tmp_path, table, {"pt": tokenizer})


@pytest.mark.parametrize(
    ("layout", "outputs", "sentence"),
    [
        (Layout(200, 1000, 100), 10, "context_length 200 exceeds shard_tokens 100"),
        (Layout(50, 1000, 100), 3, "3 shard files are named but .* make 10"),
        (Layout(50, 0, 100), 0, "at least 2"),
    ],
)
def test_layouts_that_cannot_work(layout: Layout, outputs: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        layout.check(outputs)


def test_main_from_model_manifests(
    documents: Path,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    manifest = tmp_path / "model.json"
    manifest.write_text(
        json.dumps(
            {
                "name": "pt",
                "kind": "folder",
                "folder": str(tmp_path / "model"),
                "architecture": "LlamaForCausalLM",
                "hidden_size": 8,
                "layers": 1,
                "vocabulary": len(tokenizer),
                "trust_remote_code": False,
            }
        )
    )
    flags = [
        "--documents", str(documents), "--tokenizer", f"pt={manifest}", "--tokenizer",
        f"it={manifest}", "--context-length", "64", "--tokens", "4000", "--shard-tokens", "2000",
        "--manifest", str(tmp_path / "tokens.json"), "--output", str(tmp_path / "s0.h5"),
    ]  # fmt: skip
    assert main(flags) == 2
    assert "1 shard files are named but 4000 tokens" in capsys.readouterr().err
    assert main([*flags, str(tmp_path / "s1.h5")]) == 0
    assert TokenShard.read(tmp_path / "s1.h5").tokens > 1800
