"""Local folders in the layout of the hub: Parquet files by split, a card with configurations."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.dataset.conftest import chat

CARD = """\
---
license: odc-by
configs:
- config_name: default
  default: true
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: sample
  data_files:
  - {split: train, path: data/train-00000*}
---
# A data set
"""
FILES, ROWS = 3, 60


def write_hub(folder: Path) -> Path:
    """Write a data set with the columns ``id``, ``text``, ``conversation``; return the folder."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    for number in range(FILES):
        write_file(data / f"train-{number:05d}-of-{FILES:05d}.parquet", number * ROWS, ROWS)
    write_file(data / "test-00000-of-00001.parquet", FILES * ROWS, 10)
    return folder


def write_file(path: Path, first: int, rows: int) -> None:
    """Write numbered rows as one Parquet file."""
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "id": list(numbers),
            "text": [f"plain document number {n} with words" for n in numbers],
            "conversation": [chat(f"question {n}", f"answer {n}") for n in numbers],
        }
    )
    pq.write_table(table, path, row_group_size=25)
