"""The labels of a record: values of any kind of the columns that the config names, as text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

from workflow_scripts.common.characters import JOINERS
from workflow_scripts.dataset.chats import RowError

Labels = tuple[tuple[str, str], ...]
"""Column and label, of the columns in which a record has one."""
LONGEST = 200


def labels_of(record: Mapping[str, object], columns: Sequence[str]) -> Labels:
    """Return column and label of a record; a column without a value gives none.

    Raises
    ------
    RowError
        If a value is a list, a mapping or bytes.
    """
    labels = ((column, label_text(record.get(column), column)) for column in columns)
    return tuple((column, label) for column, label in labels if label)


def label_text(value: object, column: str) -> str:
    """Return a value as a label on one line, or an empty string where it says nothing.

    Whole numbers lose a decimal point, since a column of numbers with gaps is often read as
    fractions.

    Raises
    ------
    RowError
        If it is a list, a mapping or bytes.
    """
    if isinstance(value, list | dict | bytes):
        raise RowError(
            "no label in the category_column",
            f"holds {type(value).__name__} in {column!r}, not one label: choose another "
            "category_column",
        )
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return one_line(str(value))


def one_line(text: str) -> str:
    """Return text without control characters and runs of white space, cut where it is long."""
    line = " ".join(text.split())
    hidden = ("Cc", "Cf", "Cs")
    shown = (c for c in line if c in JOINERS or unicodedata.category(c) not in hidden)
    return "".join(shown)[:LONGEST].strip()
