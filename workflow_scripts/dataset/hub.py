"""Data sets in the layout of the Hugging Face hub, streamed row by row through ``datasets``.

Only the columns that are needed are read, and only data formats that hold no code. A gated
data set needs its licence accepted and a token: the error names both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from workflow_scripts.common.cli import UserError, shortened
from workflow_scripts.dataset.settings import HubSource

FORMATS = ("parquet", "json", "csv", "text", "arrow")
PAGE = "https://huggingface.co/datasets/"


def stream(data: HubSource, columns: Sequence[str], first: int) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a data set in their order from row ``first`` on; ``columns`` where given.

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
        _check_columns(data, rows, columns)
        if columns:
            rows = rows.select_columns(list(columns))
        for row in rows.skip(first) if first else rows:
            yield cast("Mapping[str, object]", row)
    except UserError:
        raise
    except Exception as error:  # of pyarrow, fsspec, httpx, huggingface_hub, datasets
        raise UserError(refusal(data.path, error)) from None


def _check_columns(data: HubSource, rows: Any, columns: Sequence[str]) -> None:
    known = rows.column_names or list(next(iter(rows), {}))
    for column in columns:
        if column not in known:
            raise UserError(
                f"the data set {data.path} has no column {column!r} (it has {', '.join(known)}): "
                "set text_column or messages_column"
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
