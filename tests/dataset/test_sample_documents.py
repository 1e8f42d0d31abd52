"""Sampling: reproducible, in the mix asked for, without duplicates, and clear about bad input."""

from __future__ import annotations

import gzip
import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.dataset.conftest import SPLITS, chat, sample, write_jsonl
from tests.dataset.hub_folders import write_hub
from workflow_scripts.common import provenance
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json
from workflow_scripts.common.provenance import code_digest
from workflow_scripts.dataset import records
from workflow_scripts.dataset import sample_documents as module
from workflow_scripts.dataset.chats import ChatTurn
from workflow_scripts.dataset.drawing import Drawing, content_hash, split_of
from workflow_scripts.dataset.record_forms import DrawnDocument
from workflow_scripts.dataset.settings import GeneratorSource
from workflow_scripts.dataset.sources import NamedSource

GENERATOR = {"made": {"kind": "generator"}}


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def manifest(path: Path) -> Any:
    return read_json(path.parent / "manifest.json")


def test_sampling_is_reproducible_and_seeded(tmp_path: Path) -> None:
    first = sample(tmp_path / "a", GENERATOR)
    second = sample(tmp_path / "b", GENERATOR)
    third = sample(tmp_path / "c", GENERATOR, seed=1)
    assert first.read_bytes() == second.read_bytes()
    assert set(read(first)["hash"]).isdisjoint(read(third)["hash"])


def test_the_code_is_recorded_as_it_was_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Drawing.part

    def edit_and_draw(*arguments: Any) -> Any:
        monkeypatch.setattr(provenance, "code_digest", lambda module: "edited since")
        return part(*arguments)

    before = code_digest(module.__name__)
    monkeypatch.setattr(Drawing, "part", edit_and_draw)
    recorded = manifest(sample(tmp_path, GENERATOR))["provenance"]
    assert recorded["code"] == before


def test_a_larger_budget_extends_a_smaller_one(tmp_path: Path) -> None:
    lines = write_jsonl(tmp_path / "x.jsonl", ({"text": f"line {i} " * 9} for i in range(300)))
    sources = {**GENERATOR, "own": {"kind": "jsonl", "path": str(lines), "weight": 0.5}}
    small = read(sample(tmp_path / "a", sources, tokens=5_000))
    large = read(sample(tmp_path / "b", sources, tokens=15_000))
    assert len(large) > 2 * len(small)
    pd.testing.assert_frame_equal(large.head(len(small)), small)
    assert list(large["document"]) == list(range(len(large)))


BUDGETS = (9_000, 20_000, 80_000, 90_000)  # the third exhausts the files


def kinds_of_sources(folder: Path) -> dict[str, object]:
    """Return one source of each kind; the files repeat some of their lines."""
    texts = [f"line {i % 260} of a file " * 9 for i in range(300)]
    lines = write_jsonl(folder / "x.jsonl", ({"text": text} for text in texts))
    zipped = folder / "y.jsonl.gz"
    zipped.write_bytes(gzip.compress(lines.read_bytes().replace(b"line", b"row")))
    rows = [chat(f"question {text}", "answer") for text in texts]
    pd.DataFrame({"talk": rows}).to_parquet(folder / "z.parquet", row_group_size=40)
    return {
        **GENERATOR,
        "lines": {"kind": "jsonl", "path": str(lines), "weight": 0.5},
        "zipped": {"kind": "jsonl", "path": str(zipped)},
        "table": {
            "kind": "parquet", "path": str(folder / "z.parquet"), "messages_column": "talk"
        },
        "hub": {"kind": "huggingface", "path": str(write_hub(folder / "hub")), "weight": 0.7},
    }  # fmt: skip


@pytest.mark.parametrize("block", [64, 10_000])
def test_parts_are_the_sample_cut_in_pieces(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK", block)
    sources = kinds_of_sources(tmp_path)
    parts: list[Path] = []
    for index, tokens in enumerate(BUDGETS):
        parts.append(sample(tmp_path / f"part{index}", sources, tokens, earlier=parts))
    joined = pd.concat([read(path) for path in parts], ignore_index=True)
    pd.testing.assert_frame_equal(joined, read(sample(tmp_path / "whole", sources, BUDGETS[-1])))
    facts = [manifest(path) for path in parts]
    whole = manifest(tmp_path / "whole" / "documents.parquet")
    assert facts[-1]["place"] == whole["place"]
    assert len(set(joined["source"])) == 5
    for name in sources:
        counted = sum(part["sources"][name]["duplicates"] for part in facts)
        assert counted == whole["sources"][name]["duplicates"]


def refuse_to_read(source: NamedSource, *_: object) -> None:
    raise AssertionError(f"{source.name} is read again")


def test_one_job_reads_the_sources_for_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = kinds_of_sources(tmp_path)
    alone: list[Path] = []
    for index, tokens in enumerate(BUDGETS):
        alone.append(sample(tmp_path / f"alone{index}", sources, tokens, earlier=alone))
    paths = [tmp_path / f"part{index}/documents.parquet" for index in range(len(BUDGETS))]
    later = dict(zip(paths[1:], BUDGETS[1:], strict=True))
    parts = [sample(tmp_path / "part0", sources, BUDGETS[0], later=later)]
    monkeypatch.setattr(NamedSource, "documents", refuse_to_read)
    for index, tokens in enumerate(BUDGETS[1:], 1):
        parts.append(sample(tmp_path / f"part{index}", sources, tokens, earlier=parts))
    for one, other in zip(parts, alone, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert manifest(one) == manifest(other)
    assert list(tmp_path.rglob("ahead")) == []


def test_a_part_drawn_ahead_for_something_else_is_drawn_again(tmp_path: Path) -> None:
    later = {tmp_path / "part1/documents.parquet": 20_000}
    first = sample(tmp_path / "part0", GENERATOR, 9_000, later=later)
    stale = tmp_path / "part1/ahead/documents.parquet"
    assert stale.exists()
    second = sample(tmp_path / "part1", GENERATOR, 30_000, earlier=[first])
    assert manifest(second)["tokens_wanted"] == 30_000
    assert not stale.exists()
    alone = sample(tmp_path / "alone", GENERATOR, 30_000, earlier=[first])
    assert second.read_bytes() == alone.read_bytes()


def test_only_missing_parts_are_drawn_ahead(tmp_path: Path) -> None:
    there = tmp_path / "part1/documents.parquet"
    there.parent.mkdir()
    there.touch()
    later = {there: 20_000, tmp_path / "part2/documents.parquet": 30_000}
    sample(tmp_path / "part0", GENERATOR, 9_000, later=later)
    assert not list(tmp_path.rglob("ahead/*"))


def test_what_is_wrong_further_on_stops_the_part_that_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f'{{"text": "line {i} of a file with some words"}}' for i in range(400)]
    sources = {"own": {"kind": "jsonl", "path": str(tmp_path / "own.jsonl"), "bad_rows": "stop"}}
    (tmp_path / "own.jsonl").write_text("\n".join([*rows, "{oops"]) + "\n")
    later = {tmp_path / "part2/documents.parquet": 100_000}
    first = sample(tmp_path / "part1", sources, 100, later=later)
    assert "no part is drawn ahead from documents on: source own:" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not valid JSON"):
        sample(tmp_path / "part2", sources, 100_000, earlier=[first])


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    for i in range(1100):
        write_jsonl(tmp_path / f"{i:04}.jsonl", [{"text": f"line {i} of many files, each its own"}])
    sources = {"own": {"kind": "jsonl", "path": str(tmp_path / "*.jsonl")}}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        table = read(sample(tmp_path / "a", sources, 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(table) == 1100
    assert table["text"].is_unique


def test_a_part_behind_the_end_of_the_text_is_empty(tmp_path: Path) -> None:
    lines = write_jsonl(tmp_path / "x.jsonl", ({"text": f"line {i} " * 9} for i in range(40)))
    sources = {"own": {"kind": "jsonl", "path": str(lines)}}
    first = sample(tmp_path / "a", sources, 20_000)
    second = sample(tmp_path / "b", sources, 40_000, earlier=[first])
    assert (len(read(first)), len(read(second))) == (40, 0)
    assert manifest(second)["short"] is True


def test_mix_follows_the_weights_in_tokens(tmp_path: Path) -> None:
    sources = {
        "plain": {"kind": "generator", "weight": 3, "categories": {"news": 2, "arithmetic": 1}},
        "chat": {"kind": "generator", "weight": 1, "categories": ["advice"]},
    }
    path = sample(tmp_path, sources, tokens=60_000)
    table = read(path)
    size = table.assign(tokens=table["text"].str.len() / 3 + table["messages"].str.len() / 4)
    share = size.groupby("source")["tokens"].sum() / size["tokens"].sum()
    assert share["plain"] == pytest.approx(0.75, abs=0.04)
    plain = size[size["source"] == "plain"].groupby("category")["tokens"].sum()
    assert plain["news"] / plain["arithmetic"] == pytest.approx(2, rel=0.1)


def test_columns_and_manifest_counts(tmp_path: Path) -> None:
    path = sample(tmp_path, GENERATOR)
    table, facts = read(path), manifest(path)
    assert list(table.columns) == [
        "document", "source", "kind", "category", "split", "text", "messages", "hash", "labels",
    ]  # fmt: skip
    assert facts["documents"] == len(table)
    splits = facts["sources"]["made"]["splits"]
    assert {k: v for k, v in splits.items() if v} == table["split"].value_counts().to_dict()
    chats = table[table["kind"] == "chat"]
    assert (chats["text"] == "").all()
    assert json.loads(chats.iloc[0]["messages"])[0]["role"] == "user"
    assert (table[table["kind"] == "plain"]["messages"] == "").all()


def test_splits_are_disjoint_by_content_and_near_their_fractions(tmp_path: Path) -> None:
    table = read(sample(tmp_path, GENERATOR, tokens=150_000))
    assert table["hash"].is_unique
    share = table["split"].value_counts(normalize=True)
    for name, fraction in SPLITS:
        assert share.get(name, 0) == pytest.approx(fraction, abs=0.05)
    assert "verify" not in share


def test_a_document_keeps_its_split_in_any_sample(tmp_path: Path) -> None:
    first = read(sample(tmp_path / "a", GENERATOR, seed=3)).set_index("hash")["split"]
    second = read(sample(tmp_path / "b", {"other": {"kind": "generator", "seed": 3}}))
    again = second.set_index("hash")["split"]
    shared = first.index.intersection(again.index)
    assert len(shared) > 50
    assert (first[shared] == again[shared]).all()


def test_split_of_covers_the_range() -> None:
    assert split_of("0" * 64, {"fit": 0.5, "score": 0.5}) == "fit"
    assert split_of("f" * 64, {"fit": 0.5, "score": 0.5}) == "score"
    assert split_of("f" * 64, {"fit": 1.0, "verify": 0.0}) == "fit"


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    texts = [f"text number {i} with some words" for i in range(60)]
    records = [{"text": text} for text in texts]
    records += [{"text": f"  {text.replace(' ', '  ')} "} for text in texts[:20]]
    records += [{"text": "   "}]
    lines = write_jsonl(tmp_path / "x.jsonl", records)
    path = sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}})
    assert len(read(path)) == 60
    facts = manifest(path)
    assert facts["sources"]["own"]["duplicates"] == 20
    assert facts["short"] is True
    sources = facts["sources"]
    assert sources["own"]["empty"] == 1
    assert sources["own"]["exhausted"] is True
    assert len(sources["own"]["files"]["x.jsonl"]) == 64


def test_hash_ignores_white_space_but_not_roles() -> None:
    assert content_hash(DrawnDocument("a  b\n")) == content_hash(DrawnDocument("a b"))
    assert content_hash(DrawnDocument("é")) == content_hash(DrawnDocument("é"))
    user = DrawnDocument("", (ChatTurn("user", "a"),))
    assert content_hash(user) != content_hash(DrawnDocument("", (ChatTurn("assistant", "a"),)))
    assert content_hash(user) != content_hash(DrawnDocument("a"))


def test_parquet_with_messages_and_named_columns(tmp_path: Path) -> None:
    rows = [list(chat(f"question {i}?", f"answer {i}.")) for i in range(120)]
    pd.DataFrame({"talk": rows}).to_parquet(tmp_path / "talk.parquet", row_group_size=30)
    source = {"kind": "parquet", "path": str(tmp_path / "*.parquet"), "messages_column": "talk"}
    table = read(sample(tmp_path, {"web": source}))
    assert len(table) == 120
    assert set(table["kind"]) == {"chat"}
    assert json.loads(table["messages"][0])[1]["role"] == "assistant"


def test_chat_lines_are_found_by_their_column(tmp_path: Path) -> None:
    lines = write_jsonl(
        tmp_path / "x.jsonl", ({"id": i, "messages": chat(f"q {i}", f"a {i}")} for i in range(90))
    )
    table = read(sample(tmp_path, {"own": {"kind": "jsonl", "path": str(lines)}}))
    assert set(table["kind"]) == {"chat"}
    assert set(table["category"]) == {""}


def jsonl_source(folder: Path, *lines: str, **settings: str) -> dict[str, object]:
    path = folder / "own.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"own": {"kind": "jsonl", "path": str(path), **settings}}


def parquet_source(folder: Path, content: bytes) -> dict[str, object]:
    (folder / "own.parquet").write_bytes(content)
    return {"own": {"kind": "parquet", "path": str(folder / "own.parquet")}}


def gzip_source(folder: Path, content: bytes) -> dict[str, object]:
    (folder / "own.jsonl.gz").write_bytes(content)
    return {"own": {"kind": "jsonl", "path": str(folder / "own.jsonl.gz")}}


TALK = '{"messages": [{"role": "user", "content": "a"}]}'
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no sources": (lambda _: {}, "hold no text"),
    "unknown kind": (lambda _: {"a": {"kind": "xml"}}, "not valid at a: Input tag 'xml'"),
    "unknown key": (
        lambda _: {"a": {"kind": "generator", "path": "x"}},
        "not valid at a.generator.path: Extra inputs",
    ),
    "unknown category": (
        lambda _: {"a": {"kind": "generator", "categories": ["cooking"]}},
        "names the unknown category cooking",
    ),
    "weight": (
        lambda _: {"a": {"kind": "generator", "weight": 0}},
        "not valid at a.generator.weight: Input should be greater than 0",
    ),
    "missing file": (
        lambda folder: {"a": {"kind": "jsonl", "path": str(folder / "none.jsonl")}},
        r"source a: .*none\.jsonl does not exist: check its `path`",
    ),
    "no path": (lambda _: {"a": {"kind": "jsonl"}}, "not valid at a.jsonl.path: Field required"),
    "empty file": (lambda folder: jsonl_source(folder), "own.jsonl is empty: it holds no doc"),
    "only blanks": (lambda folder: jsonl_source(folder, '{"text": " "}'), "hold no text"),
    "bad line": (
        lambda folder: jsonl_source(folder, '{"text": "a"}', "", "{oops", bad_rows="stop"),
        r"own\.jsonl line 3 is not valid JSON",
    ),
    "no object": (lambda folder: jsonl_source(folder, "1"), "line 1 is no JSON object"),
    "array of numbers": (lambda folder: jsonl_source(folder, "[1]"), "item 1 is no JSON object"),
    "no column": (
        lambda folder: jsonl_source(folder, '{"body": "a", "id": 1}'),
        r"line 1 has no column 'text' \(it has body, id\): set text_column",
    ),
    "no text": (lambda folder: jsonl_source(folder, '{"text": 3}'), "line 1 holds int in 'text'"),
    "two columns": (
        lambda folder: jsonl_source(folder, text_column="a", messages_column="b"),
        "has text_column and messages_column: give one of them",
    ),
    "messages text": (
        lambda folder: jsonl_source(folder, '{"messages": "hello"}'),
        "line 1 holds text for messages, not a list of",
    ),
    "messages form": (
        lambda folder: jsonl_source(folder, '{"messages": [{"role": "user", "said": "a"}]}'),
        "line 1 has a message without text content",
    ),
    "role": (
        lambda folder: jsonl_source(folder, TALK.replace("user", "narrator")),
        "line 1 has the role 'narrator'",
    ),
    "no user": (
        lambda folder: jsonl_source(folder, TALK.replace("user", "assistant")),
        "line 1 has no user message",
    ),
    "truncated gzip": (
        lambda folder: gzip_source(folder, gzip.compress(b'{"text": "a"}\n' * 99)[:-9]),
        r"own\.jsonl\.gz is no whole gzip file",
    ),
    "no gzip": (lambda folder: gzip_source(folder, b"text"), r"line 1 is not valid JSON"),
    "empty gzip": (lambda folder: gzip_source(folder, gzip.compress(b"\n")), "is empty: it holds"),
    "no parquet": (lambda folder: parquet_source(folder, b"text"), "is not a Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sources_give_one_sentence(name: str, tmp_path: Path) -> None:
    make, sentence = BAD[name]
    with pytest.raises(UserError, match=sentence) as caught:
        sample(tmp_path, make(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "documents.parquet").exists()


def test_missing_parquet_column(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "own.parquet")
    source = {"own": {"kind": "parquet", "path": str(tmp_path / "own.parquet")}}
    with pytest.raises(UserError, match=r"has no column 'text' \(it has body\)"):
        sample(tmp_path, source)


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        ({"fit": 0.5, "score": 0.1}, "--splits sum to 0.8: make them sum to 1"),
        ({"train": 1.0}, "train"),
        ({"fit": "all"}, "--splits.fit is 'all': Input should be a valid number"),
        ([1.0], "--splits"),
    ],
)
def test_bad_splits(
    splits: object, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([*flags(tmp_path, GENERATOR), "--splits", json.dumps(splits)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence, line)


def flags(folder: Path, sources: object) -> list[str]:
    return [
        "--sources", json.dumps(sources), "--tokens", "3000", "--context-length", "64",
        "--bytes-per-token", "3", "--seed", "0", "--output", str(folder / "documents.parquet"),
        "--manifest", str(folder / "manifest.json"),
    ]  # fmt: skip


def test_main_runs_and_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(flags(tmp_path, GENERATOR)) == 0
    digest = code_digest("workflow_scripts.dataset.sample_documents")
    assert manifest(tmp_path / "documents.parquet")["provenance"]["code"] == digest
    assert module.main(flags(tmp_path, {"a": {"kind": "xml"}})) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: --sources is not valid at a: Input tag 'xml'")


def test_sources_keep_their_own_seed() -> None:
    own = GeneratorSource(kind="generator", seed=4)
    assert NamedSource("a", own, 9).seed == 4
    assert NamedSource("a", GeneratorSource(kind="generator"), 9).seed == 9
