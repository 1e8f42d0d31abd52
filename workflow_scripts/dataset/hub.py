"""Data sets in the layout of the Hugging Face hub, streamed row by row through ``datasets``.

Only the columns that are needed are read, and only data formats that hold no code. A gated
data set needs its licence accepted and a token: the error names both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common.cli import UserError, shortened
from workflow_scripts.dataset.settings import HubSource

FORMATS = ("parquet", "json", "csv", "text", "arrow")
PAGE = "https://huggingface.co/datasets/"


def stream(
    data: HubSource, columns: Sequence[str], labels: Sequence[str], first: int
) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a data set in their order from row ``first`` on.

    They hold ``columns`` and ``labels``, all columns without ``columns``. Labels that are stored
    as numbers of classes are given by name; a negative number stands for none.

    Raises
    ------
    UserError
        If the data set, its configuration, split or a column does not exist, its format is none
        of :data:`FORMATS`, or the hub does not give it.
    """
    from datasets import load_dataset, load_dataset_builder

    place = {"name": data.name, "revision": None if data.local else data.revision}
    try:
        builder = load_dataset_builder(data.path, **place)
        form = type(builder).__module__.rpartition(".")[2]
        if form not in FORMATS:
            raise UserError(
                f"the data set {data.path} is of the format {form}: only {', '.join(FORMATS)} are "
                "read, convert it"
            )
        rows = load_dataset(data.path, **place, split=data.split, streaming=True)
        _check_columns(data, rows, columns, "set text_column or messages_column")
        _check_columns(data, rows, labels, "check its category_column")
        if columns:
            rows = rows.select_columns(list(dict.fromkeys([*columns, *labels])))
        classes = _class_names(rows, labels)
        for row in rows.skip(first) if first else rows:
            yield _with_names(row, classes)
    except UserError:
        raise
    except Exception as error:  # of pyarrow, fsspec, httpx, huggingface_hub, datasets
        raise UserError(refusal(data.path, error)) from None


def _class_names(rows: Any, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the classes of those columns that hold their numbers."""
    from datasets import ClassLabel

    kinds = {column: (rows.features or {}).get(column) for column in columns}
    return {column: kind.names for column, kind in kinds.items() if isinstance(kind, ClassLabel)}


def _with_names(
    row: Mapping[str, Any], classes: Mapping[str, Sequence[str]]
) -> Mapping[str, object]:
    """Return a row with the names of classes in place of their numbers."""
    numbers = {column: row[column] for column in classes}
    named = {
        column: None if number is None or number < 0 else classes[column][number]
        for column, number in numbers.items()
    }
    return {**row, **named}


def _check_columns(data: HubSource, rows: Any, columns: Sequence[str], remedy: str) -> None:
    known = rows.column_names or list(next(iter(rows), {}))
    for column in columns:
        if column not in known:
            raise UserError(
                f"the data set {data.path} has no column {column!r} (it has {', '.join(known)}): "
                f"{remedy}"
            )


def refusal(path: str, error: Exception) -> str:
    """Return why a data set could not be read, and the remedy, in one sentence."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    text = shortened(error)
    gated = isinstance(error, GatedRepoError) or "gated dataset" in text
    if gated:
        return (
            f"the data set {path} is gated: accept its licence at {PAGE}{path} and give a token "
            f"of that account in HF_TOKEN ({_token()})"
        )
    if isinstance(error, RepositoryNotFoundError | DatasetNotFoundError):
        return (
            f"the data set {path} does not exist, or is private: check its `path` and HF_TOKEN "
            f"({_token()})"
        )
    if isinstance(error, ValueError | LookupError) or Path(path).is_dir():
        return f"the data set {path} cannot be read ({text}): check its files, name and split"
    return f"the data set {path} cannot be fetched ({text}): check the network and HF_ENDPOINT"


def _token() -> str:
    from huggingface_hub import get_token

    if os.environ.get("HF_TOKEN"):
        return "the one that is set has no access"
    return "the stored one has no access" if get_token() else "none is set"


def check_access(path: str) -> None:
    """Ask the hub whether this account may read a data set.

    Raises
    ------
    UserError
        If it may not, naming licence page and token, or the hub does not answer.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(path, repo_type="dataset")
    except Exception as error:  # the HTTP library's own errors share no base with others
        raise UserError(refusal(path, error)) from None
