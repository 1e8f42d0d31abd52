"""Labels of documents: from columns of all kinds of sources, constants, sources, and topics."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import datasets
import pandas as pd
import pytest

from tests.dataset.conftest import chat, content, sample, write_jsonl
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.files import read_json
from workflow_scripts.dataset import labels, sources
from workflow_scripts.dataset.chats import RowError
from workflow_scripts.dataset.label_documents import main
from workflow_scripts.dataset.label_values import LONGEST, label_text
from workflow_scripts.dataset.labels import by_labeller, read_labels

KINDS = ("arithmetic", "advice")
ROWS: list[dict[str, object]] = [
    {"text": content(kind, i), "kind": kind, "level": i % 3, "note": None}
    for kind in KINDS
    for i in range(60)
]


def label(
    folder: Path,
    parts: Sequence[Path],
    constants: dict[str, str] | None = None,
    columns: dict[str, list[str]] | None = None,
    count: str = "0",
) -> int:
    """Run the step as the command line does."""
    flags = ["--documents", *parts, "--constants", json.dumps(constants or {}), "--columns"]
    flags += [json.dumps(columns or {}), "--count", count, "--seed", "0"]
    flags += ["--output", folder / "labels.parquet", "--summary", folder / "labels.json"]
    return main([str(flag) for flag in flags])


def labelled(folder: Path) -> dict[str, pd.Series]:
    return by_labeller(read_labels([folder / "labels.parquet"]))


def write_lines(folder: Path, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"kind": "jsonl", "path": str(write_jsonl(folder / "own.jsonl", rows))}


def write_gzip(folder: Path, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    path = write_jsonl(folder / "own.jsonl", rows)
    zipped = folder / "own.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return {"kind": "jsonl", "path": str(zipped)}


def write_table(folder: Path, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    table = pd.DataFrame(rows).astype({"kind": "category"})  # dictionary-encoded in the file
    table.to_parquet(folder / "own.parquet", row_group_size=40)
    return {"kind": "parquet", "path": str(folder / "own.parquet")}


def write_hub(folder: Path, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    (folder / "set").mkdir()
    write_jsonl(folder / "set" / "train.jsonl", rows)
    return {"kind": "huggingface", "path": str(folder / "set")}


Writer = Callable[[Path, Sequence[Mapping[str, object]]], dict[str, object]]
WRITERS: tuple[Writer, ...] = (write_lines, write_gzip, write_table, write_hub)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("text_column", [None, "text"])
def test_columns_label_documents(write: Writer, text_column: str | None, tmp_path: Path) -> None:
    named = {"text_column": text_column} if text_column else {}
    source = {**write(tmp_path, ROWS), **named, "category_column": ["kind", "level"]}
    part = sample(tmp_path / "part", {"own": source})
    assert label(tmp_path, [part], columns={"own": ["kind", "level"]}) == 0
    found, documents = labelled(tmp_path), pd.read_parquet(part).set_index("document")
    assert set(found) == {"kind", "level"}
    known = {row["text"]: row for row in ROWS}
    for number, text in zip(documents.index.tolist(), documents["text"], strict=True):
        assert found["kind"][number] == known[text]["kind"]
        assert found["level"][number] == str(known[text]["level"])


def test_table_is_sorted_and_counted(tmp_path: Path) -> None:
    rows = [{**row, "kind": row["kind"] if i % 2 else " "} for i, row in enumerate(ROWS)]
    sources = {
        "own": {**write_lines(tmp_path, rows), "category_column": "kind"},
        "made": {"kind": "generator", "categories": ["narrative"]},
    }
    parts = [sample(tmp_path / "a", sources, 2_000)]
    parts.append(sample(tmp_path / "b", sources, 12_000, earlier=parts))
    assert label(tmp_path, parts, columns={"own": ["kind"]}, count="2") == 0
    table, facts = read_labels([tmp_path / "labels.parquet"]), read_json(tmp_path / "labels.json")
    again = table.sort_values(["labeller", "document"], kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(table, again)
    assert str(table["document"].dtype) == "int64"
    assert set(table["labeller"]) == {"kind", "source", "topics", "true"}
    assert facts["documents"] == sum(len(pd.read_parquet(part)) for part in parts)
    for labeller, rows_of in table.groupby("labeller"):
        counted = facts["labellers"][labeller]
        assert counted["labels"] == rows_of["label"].value_counts().to_dict()
        assert counted["unlabelled"] == facts["documents"] - len(rows_of)
    assert facts["topics"]["count"] == len(facts["topics"]["words"]) == 2


@pytest.mark.parametrize(
    ("constants", "expected"),
    [({}, {"a", "b"}), ({"a": "legal"}, {"legal", "b"}), ({"a": "x", "b": "x"}, {"x"})],
)
def test_sources_label_their_documents(
    constants: dict[str, str], expected: set[str], tmp_path: Path
) -> None:
    named = {n: {"kind": "generator", "seed": i} for i, n in enumerate("ab")}
    part = sample(tmp_path / "part", named, 4_000)
    assert label(tmp_path, [part], constants) == 0
    assert set(labelled(tmp_path)["source"]) == expected


def test_one_source_labels_its_documents_where_nothing_else_does(tmp_path: Path) -> None:
    part = sample(tmp_path / "part", {"own": write_lines(tmp_path, ROWS)})
    assert label(tmp_path, [part]) == 0
    assert set(labelled(tmp_path)) == {"source"}
    assert set(labelled(tmp_path)["source"]) == {"own"}
    assert label(tmp_path, [part], {"own": "legal"}) == 0
    assert set(labelled(tmp_path)["source"]) == {"legal"}


def test_chats_are_told_apart_by_their_words_not_their_roles(tmp_path: Path) -> None:
    rows = [{"messages": chat(content(k, i), "yes")} for k in KINDS for i in range(60)]
    part = sample(tmp_path / "part", {"own": write_lines(tmp_path, rows)})
    assert label(tmp_path, [part], count="2") == 0
    words = {
        word for w in read_json(tmp_path / "labels.json")["topics"]["words"].values() for word in w
    }
    assert words
    assert words.isdisjoint({"user", "assistant", "role", "messages"})


def test_too_few_documents_for_topics_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = sample(tmp_path / "part", {"own": write_lines(tmp_path, ROWS[:10])})
    assert label(tmp_path, [part], count="2") == 0
    assert "too few words to tell topics apart" in capsys.readouterr().err


MANY = [{"text": f"text {i}", "kind": f"k{i}"} for i in range(301)]
REFUSED: dict[str, tuple[Sequence[Mapping[str, object]], str]] = {
    "one value": (ROWS[:60], "has the one value 'arithmetic': name a column whose values differ"),
    "no value": ([{**row, "kind": None} for row in ROWS], "is empty in every document"),
    "too many": (MANY, "has 301 different values, above 300: name a column of categories"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_useless_columns_give_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, sentence = REFUSED[name]
    source = {**write_lines(tmp_path, rows), "category_column": "kind"}
    part = sample(tmp_path / "part", {"own": source})
    assert label(tmp_path, [part], columns={"own": ["kind"]}) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: category_column 'kind' of source own {sentence}")
    assert not (tmp_path / "labels.parquet").exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_missing_column_is_refused_at_the_start(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SEARCHED", 50)
    source = {**write(tmp_path, ROWS), "category_column": "topic"}
    with pytest.raises(UserError, match=r"'topic'.*kind, level.*check its category_column"):
        sample(tmp_path / "part", {"own": source})


def test_a_column_may_be_missing_in_some_lines(tmp_path: Path) -> None:
    rows = [{"text": row["text"]} if i % 3 else row for i, row in enumerate(ROWS)]
    source = {**write_lines(tmp_path, rows), "category_column": "kind"}
    part = sample(tmp_path / "part", {"own": source})
    assert label(tmp_path, [part], columns={"own": ["kind"]}) == 0
    assert len(labelled(tmp_path)["kind"]) == len(ROWS) / 3


def test_classes_of_a_hub_are_named(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "topic": datasets.ClassLabel(names=["law", "tax"])}
    )
    rows = {"text": [f"text {i}" for i in range(90)], "topic": [i % 3 - 1 for i in range(90)]}
    (tmp_path / "set").mkdir()
    table = datasets.Dataset.from_dict(rows, features)
    table.to_parquet(tmp_path / "set" / "train.parquet")
    source = {"kind": "huggingface", "path": str(tmp_path / "set"), "category_column": "topic"}
    part = sample(tmp_path / "part", {"own": source})
    assert label(tmp_path, [part], columns={"own": ["topic"]}) == 0
    assert labelled(tmp_path)["topic"].value_counts().to_dict() == {"law": 30, "tax": 30}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (" \n ", ""),
        (True, "true"),
        (3, "3"),
        (3.0, "3"),
        (2.5, "2.5"),
        (Decimal("1.50"), "1.50"),
        (" two\n  lines\x00\u202e ", "two lines"),
        ("lone \ud800 half", "lone  half"),
        ("x" * 999, "x" * LONGEST),
        ("<b>&</b> ../x", "<b>&</b> ../x"),
        ("दुख 中文 🙂", "दुख 中文 🙂"),
    ],
)
def test_values_become_text(value: object, text: str) -> None:
    assert label_text(value, "kind") == text


@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a"])
def test_a_value_that_is_no_label_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=f"holds {type(value).__name__} in 'kind', not one"):
        label_text(value, "kind")


def test_columns_are_documented(tmp_path: Path) -> None:
    page = Path(labels.__file__).with_name("COLUMNS.md").read_text(encoding="utf-8")
    part = sample(tmp_path / "part", {"own": write_lines(tmp_path, ROWS)})
    tables = {
        "documents/shard": list(pd.read_parquet(part).columns),
        "labels.parquet": list(labels.COLUMNS),
    }
    for name, columns in tables.items():
        section = page.split(f"## {name}")[1].split("\n## ")[0]
        described = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert described == columns
