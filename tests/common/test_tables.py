"""CSV tables: one form, and names that stay text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.tables import read_csv, write_csv


def test_names_stay_text_and_undefined_numbers_come_back(tmp_path: Path) -> None:
    rows = [{"name": "true", "low": math.nan, "n": 3}, {"name": "nan", "low": 1 / 3, "n": 4}]
    write_csv(tmp_path / "t.csv", rows, ("name", "low", "n"))
    assert (tmp_path / "t.csv").read_text() == "name,low,n\ntrue,n/a,3\nnan,0.333333,4\n"
    table = read_csv(tmp_path / "t.csv", ("name",))
    assert table["name"].tolist() == ["true", "nan"]
    assert math.isnan(table["low"][0])


def test_without_rows_the_columns_stand_alone(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [], ("name", "low"))
    assert list(read_csv(tmp_path / "t.csv").columns) == ["name", "low"]


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "does not exist"), ("", "is empty"), ("a\n1\n", "lacks the column")],
)
def test_a_file_that_is_no_such_table_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "t.csv", ("name",))
