"""Files are read in any common compression and encoding, which their first bytes tell."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from tests.dataset.conftest import sample
from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.settings import FileSource
from workflow_scripts.dataset.sources import NamedSource

TEXTS = [f"document {i}, é 日本 \x00\x07 </script>\u2028" for i in range(40)]
LINES = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS)
DATA = LINES.encode()


def drawn(path: Path, kind: str = "jsonl", **settings: object) -> set[str]:
    source = {"own": {"kind": kind, "path": str(path), **settings}}
    return set(pd.read_parquet(sample(path.parent / "out", source, 200_000))["text"])


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd,
}  # fmt: skip


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_compression_is_told_by_content(form: str, name: str, tmp_path: Path) -> None:
    compress = COMPRESS[form]
    (tmp_path / name).write_bytes(compress(DATA))
    assert drawn(tmp_path / name) == {*TEXTS}
    (tmp_path / name).write_bytes(compress(DATA[:1000]) + compress(DATA[1000:]))
    assert drawn(tmp_path / name) == {*TEXTS}
    (tmp_path / name).write_bytes(compress(DATA * 50)[:-9])
    with pytest.raises(UserError, match=f"is no whole {form} file .*: fetch it again"):
        drawn(tmp_path / name)


ENCODED = {
    "mark": codecs.BOM_UTF8 + DATA,
    "marks within": codecs.BOM_UTF8 + DATA + codecs.BOM_UTF8 + DATA,
    "Windows": DATA.replace(b"\n", b"\r\n"),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16 big": codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"),
    "UTF-16 little, no mark": LINES.encode("utf-16-le"),
    "UTF-16 big, no mark": LINES.encode("utf-16-be"),
    "UTF-32": LINES.encode("utf-32"),
    "gzip of UTF-16": gzip.compress(LINES.encode("utf-16")),
    "array": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "array with mark": codecs.BOM_UTF8 + json.dumps([{"text": t} for t in TEXTS]).encode(),
    "escapes": "".join(json.dumps({"text": text}) + "\r\n" for text in TEXTS).encode("utf-16"),
}


@pytest.mark.parametrize("form", ENCODED)
def test_encodings_line_ends_and_arrays(form: str, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(ENCODED[form])
    assert drawn(tmp_path / "own.jsonl") == {*TEXTS}


def test_a_first_line_that_looks_like_an_array_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(b"[INFO] export\n" + DATA)
    assert drawn(tmp_path / "own.jsonl") == {*TEXTS}


def test_of_repeated_keys_the_last_counts(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"text": "first", "text": "second"}\n')
    assert drawn(tmp_path / "own.jsonl") == {"second"}


@pytest.mark.parametrize(("separator", "mark"), [(",", ""), ("\t", ""), (";", "\ufeff")])
def test_csv_with_a_header(separator: str, mark: str, tmp_path: Path) -> None:
    long = "long " * 40_000
    texts = [f'{i}: "quoted"\n{separator}{long if i == 3 else ""}' for i in range(9)]
    frame = pd.DataFrame({"id": range(9), "text": texts})
    text = mark + frame.to_csv(index=False, sep=separator)
    for data in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16-le")):
        (tmp_path / "own.csv").write_bytes(data)
        assert drawn(tmp_path / "own.csv", "csv") == {*texts}
    assert drawn(tmp_path / "own.csv", "csv", text_column="id") == {str(i) for i in range(9)}


def test_csv_rows_longer_than_the_header_are_bad(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,text\n1,a\n2,b,c\n3,d\n4\n")
    assert drawn(tmp_path / "own.csv", "csv") == {"a", "d"}
    with pytest.raises(UserError, match=r"own\.csv row 2 has more fields than the header"):
        drawn(tmp_path / "own.csv", "csv", bad_rows="stop")


REFUSED = {
    "Parquet": (b"PAR1 etc.", "is a Parquet file: set its kind to parquet"),
    "ZIP": (b"PK\x03\x04 etc.", "is a ZIP archive: unpack it"),
    "Latin-1": (LINES.replace("日本", "").encode("latin-1", "ignore"), "is not UTF-8 .*save the"),
    "CSV": (b"id,text\n1,a\n", "is not valid JSON"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_files_are_refused_by_name(form: str, tmp_path: Path) -> None:
    data, sentence = REFUSED[form]
    (tmp_path / "own.jsonl").write_bytes(data)
    with pytest.raises(UserError, match=sentence) as caught:
        drawn(tmp_path / "own.jsonl")
    assert "own.jsonl" in str(caught.value)
    (tmp_path / "own.parquet").write_bytes(gzip.compress(data))
    with pytest.raises(UserError, match=r"own\.parquet is gzip data, no Parquet file: unpack it"):
        drawn(tmp_path / "own.parquet", "parquet")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.jsonl").write_bytes(DATA)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"own\.jsonl cannot be read \(Permission denied\): check"):
        NamedSource("own", FileSource(kind="jsonl", path=str(tmp_path / "own.jsonl")), 0)


def test_names_that_look_like_patterns_and_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("chat[v2].jsonl", "my notes (v2)?.jsonl", "it's*.jsonl", "{x}.jsonl"):
        (tmp_path / name).write_bytes(DATA)
        assert drawn(tmp_path / name) == {*TEXTS}
        (tmp_path / name).unlink()
    (tmp_path / "own.jsonl").write_bytes(DATA)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source = {"own": {"kind": "jsonl", "path": "~/own.jsonl"}}
    assert len(pd.read_parquet(sample(tmp_path / "out", source))) == len(TEXTS)
    with pytest.raises(UserError, match=r"/out is a folder: name its files, as in .*/out/\*\.json"):
        drawn(tmp_path / "out")
