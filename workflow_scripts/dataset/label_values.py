"""The labels of a record: values of any kind of the columns that the config names, as text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

from workflow_scripts.common.characters import JOINERS
from workflow_scripts.common.cli import UserError

Labels = tuple[tuple[str, str], ...]
"""Column and label, of the columns in which a record has one."""
LONGEST = 200


def labels_of(record: Mapping[str, object], columns: Sequence[str], where: str) -> Labels:
    """Return column and label of a record; a column without a value gives none.

    Raises
    ------
    UserError
        If a value is a list, a mapping or bytes.
    """
    labels = ((column, label_text(record.get(column), column, where)) for column in columns)
    return tuple((column, label) for column, label in labels if label)


def label_text(value: object, column: str, where: str) -> str:
    """Return a value as a label on one line, or an empty string where it says nothing.

    Whole numbers lose a decimal point, since a column of numbers with gaps is often read as
    fractions.

    Raises
    ------
    UserError
        If it is a list, a mapping or bytes.
    """
    if isinstance(value, list | dict | bytes):
        raise UserError(
            f"{where} holds {type(value).__name__} in {column!r}, not one label: choose another "
            "category_column"
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
