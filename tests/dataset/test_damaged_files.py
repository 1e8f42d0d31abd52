"""Hundreds of damaged files, by seed: each gives documents or one sentence, and never hangs."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.conftest import chat
from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.drawing import Drawing, Place, SourceCount
from workflow_scripts.dataset.settings import FileSource, Sampling
from workflow_scripts.dataset.sources import NamedSource

EACH = 60
"""Damaged files of each form."""
RECORDS: list[dict[str, object]] = [
    {"text": f"document {i}", "n": i, "kind": "a" if i % 2 else "b"}
    if i % 3
    else {"messages": chat(f"question {i}", f"answer {i}"), "n": None, "kind": None}
    for i in range(30)
]
ODD: tuple[object, ...] = (
    None, True, -1, 1e308, float("nan"), 10**400, "", "\x00", "\ud800", [], {}, [[]], [None],
    {"role": "user"}, [{"role": "user", "content": [{"type": "text"}]}], "[" * 5000, b"\xff",
    [{"from": "gpt", "value": {}}], [{"role": ["user"], "content": "a"}], "null",
    [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": {}}}]}],
)  # fmt: skip
RAW = (
    b"[" * 50_000, b"{" * 50_000, b'{"text": ' + b"9" * 6000 + b"}", b"\x00" * 99, b"\xff\xfe\xfa",
    b'{"text": "\\ud800 \\udc00"}', b"nul", b'"', b"\xef\xbb\xbf" * 3, b"{}", b"NaN", b"\r\r\r",
    b'{"a": ' * 3000 + b"1" + b"}" * 3000,
)  # fmt: skip


def odd_records(rng: random.Random) -> list[dict[str, object]]:
    """Return the records with odd values in some places."""
    records = [dict(record) for record in RECORDS]
    for record in rng.sample(records, rng.choice((1, 2, 20))):
        key = rng.choice(("text", "messages", "conversations", "prompt", "chosen", "kind"))
        record[key] = rng.choice(ODD)
        if rng.random() < 0.3:
            record["completion"] = record["rejected"] = rng.choice(ODD)
    return records


def json_lines(rng: random.Random) -> bytes:
    lines = [json.dumps(record, default=repr).encode() for record in odd_records(rng)]
    for _ in range(rng.choice((0, 0, 1, 2))):
        lines.insert(rng.randrange(len(lines)), rng.choice(RAW))
    return b"\n".join(lines)


def json_array(rng: random.Random) -> bytes:
    return json.dumps(odd_records(rng), default=repr, indent=rng.choice((None, 1))).encode()


def csv(rng: random.Random) -> bytes:
    rows = [f'{i},"document {i}",{rng.choice(ODD[:9])}' for i in range(30)]
    return "\n".join(["id,text,kind", *rows]).encode("utf-8", "surrogatepass")


def parquet(rng: random.Random) -> bytes:
    column = rng.choice(("text", "messages", "conversations"))
    chats = [chat(f"question {i}", f"answer {i}") for i in range(30)]
    plain = rng.choice(([f"document {i}" for i in range(30)], [None, 3] * 15, [b"\xff", b"a"] * 15))
    values = plain if rng.random() < 0.5 else chats
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: values, "kind": ["a", "b"] * 15}), sink, row_group_size=10)
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def utf16(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16")


FORMS: dict[str, tuple[str, Callable[[random.Random], bytes], Callable[[bytes], bytes]]] = {
    "JSON lines": ("jsonl", json_lines, bytes),
    "JSON array": ("jsonl", json_array, bytes),
    "UTF-16": ("jsonl", json_lines, utf16),
    "gzip": ("jsonl", json_lines, gzip.compress),
    "zstd": ("jsonl", json_lines, zstd),
    "bzip2": ("jsonl", json_lines, bz2.compress),
    "xz": ("jsonl", json_lines, lzma.compress),
    "CSV": ("csv", csv, bytes),
    "Parquet": ("parquet", parquet, bytes),
}


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return bytes as they are, cut, flipped, or with a piece taken out, put in or repeated."""
    way = rng.choice(("none", "cut", "flip", "flip", "out", "in", "twice"))
    place = rng.randrange(len(data))
    if way == "cut":
        return data[:place]
    if way == "out":
        return data[:place] + data[place + rng.randrange(1, 40) :]
    if way == "in":
        return data[:place] + rng.choice(RAW) + data[place:]
    if way == "twice":
        return data + data
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 3, 30)) if way == "flip" else 0):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def read(path: Path, kind: str, rng: random.Random) -> str:
    """Return what came of a file; anything but documents and a sentence is raised."""
    settings = FileSource(
        kind=kind,  # type: ignore[arg-type]
        path=str(path),
        category_column=rng.choice((None, "kind")),
        preference=rng.choice((None, "chosen")),
        bad_rows=rng.choice((None, "skip", "stop")),
    )
    try:
        source = NamedSource("own", settings, 0)
        rows = list(
            Drawing([source], Sampling(), Place(), set()).part(9999, {"own": SourceCount(kind)})
        )
    except UserError as error:
        return "a sentence" if len(str(error).splitlines()) == 1 else "lines"
    for row in rows:
        (row.text + row.messages + row.labels).encode()
    return "documents" if rows else "none"


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_give_documents_or_one_sentence(form: str, tmp_path: Path) -> None:
    kind, make, pack = FORMS[form]
    rng = random.Random(f"damage {form}")
    outcomes = Counter[str]()
    for number in range(EACH):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(damage(pack(make(rng)), rng))
        outcomes[read(path, kind, rng)] += 1
    assert not outcomes["lines"], outcomes
    assert outcomes["documents"] > 5, outcomes
    assert outcomes["a sentence"] > 1, outcomes
