"""Label the documents: known categories, the user's columns, sources, and topics in the text.

A label is text; a document has at most one by each labeller. ``labels.json`` says how many
documents each label has and how the topics came about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.common import cli, files
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labellers import SOURCE, TOPICS, TRUE
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.common.settings import Name
from workflow_scripts.dataset import topics
from workflow_scripts.dataset.documents import contents
from workflow_scripts.dataset.label_values import one_line
from workflow_scripts.dataset.labels import COLUMNS
from workflow_scripts.dataset.settings import Topics

MOST_LABELS = 300
"""Values of a column above which they are no categories: later tables have a row for each."""


def known_labels(
    documents: pd.DataFrame, constants: Mapping[str, str], columns: Mapping[str, Sequence[str]]
) -> dict[str, pd.Series[str]]:
    """Return the labels by document of each labeller that needs no look at the text.

    ``documents`` has the columns ``source``, ``category`` and ``labels``; ``constants`` are labels
    of sources, ``columns`` the columns of labels by source.

    Raises
    ------
    UserError
        If a column has no value, one value, or too many.
    """
    labels: dict[str, pd.Series[str]] = {}
    if (documents["category"] != "").any():
        labels[TRUE] = documents["category"]
    parsed = documents["labels"].map(lambda text: json.loads(text) if text else {})
    for column in dict.fromkeys(name for names in columns.values() for name in names):
        labels[column] = parsed.map(lambda values, column=column: values.get(column, ""))
        check_column(column, labels[column], [s for s, names in columns.items() if column in names])
    sources = documents["source"].map(lambda name: one_line(constants.get(name, name)))
    if constants or sources.nunique() > 1:
        labels[SOURCE] = sources
    return labels


def check_column(column: str, labels: pd.Series[str], sources: Sequence[str]) -> None:
    """Refuse a column whose values cannot be set against each other.

    Raises
    ------
    UserError
        If it has no value, one value, or more than :data:`MOST_LABELS`.
    """
    values = labels[labels != ""].unique()
    where = f"category_column {column!r} of source {', '.join(sources)}"
    if not len(values):
        raise UserError(f"{where} is empty in every document: name another column, or none")
    if len(values) == 1:
        raise UserError(
            f"{where} has the one value {cli.quoted(values[0])}: name a column whose values "
            "differ, or give the source that text as its `category`"
        )
    if len(values) > MOST_LABELS:
        raise UserError(
            f"{where} has {len(values)} different values, above {MOST_LABELS}: name a column of "
            "categories, or merge its values"
        )


def find_topics(
    paths: Sequence[Path], documents: int, settings: Topics, seed: int
) -> tuple[list[str], dict[str, object]]:
    """Return each document's topic, empty where it has none, and how the topics came about."""
    sample = np.random.default_rng(seed).permutation(documents)[: topics.FITTED]
    model = None
    if settings.count != 0:
        model = topics.fit_topics(list(_chosen(paths, set(sample.tolist()))), settings, seed)
        if model is None:
            cli.log("the text has too few words to tell topics apart: no document gets one")
    if model is None:
        return [""] * documents, {"count": 0, "silhouettes": {}, "words": {}}
    names = [*model.names, ""]  # the last one is that of topic −1
    shown = track(contents(paths), "documents", documents, size=len)
    labels = [names[topic] for texts in shown for topic in model.predict(texts)]
    return labels, {
        "count": len(model.names),
        "silhouettes": {str(count): score for count, score in model.silhouettes.items()},
        "words": dict(zip(model.names, map(list, model.words), strict=True)),
    }


def _chosen(paths: Sequence[Path], numbers: set[int]) -> Iterator[str]:
    """Yield the start of the content of some documents, by their place in all tables."""
    all_texts = (text for texts in contents(paths) for text in texts)
    for number, text in enumerate(all_texts):
        if number in numbers:
            yield text[: topics.CHARACTERS]


def summarize(labels: Mapping[str, pd.Series[str]]) -> dict[str, object]:
    """Return how many documents each labeller and label has, and how many have none."""
    return {
        labeller: {
            "documents": int((series != "").sum()),
            "unlabelled": int((series == "").sum()),
            "labels": {str(k): int(n) for k, n in series[series != ""].value_counts().items()},
        }
        for labeller, series in labels.items()
    }


def table_of(labels: Mapping[str, pd.Series[str]]) -> pd.DataFrame:
    """Return the rows of labels.parquet, by labeller and document."""
    rows = [
        pd.DataFrame({"document": series.index, "labeller": labeller, "label": series.to_numpy()})
        for labeller, series in sorted(labels.items())
    ]
    table = pd.concat([pd.DataFrame(columns=list(COLUMNS)), *rows]).astype(COLUMNS)
    return table[table["label"] != ""].sort_values(["labeller", "document"], kind="stable")


def label_documents(
    documents: list[Path],
    constants: dict[Name, str],
    columns: dict[Name, list[str]],
    finding: Topics,
    seed: int,
    output: Path,
    summary: Path,
) -> None:
    """Write the labels of all documents.

    Parameters
    ----------
    documents
        tables of documents
    constants
        labels that the config gives sources as a whole (JSON)
    columns
        columns of labels by source (JSON)
    seed
        seed of the topics
    output
        table of labels to write (Parquet)
    summary
        counts by labeller and the topics' words to write (JSON)

    Raises
    ------
    UserError
        If a column of labels has no value, one value, or too many.
    """
    needed = ["document", "source", "category", "labels"]
    read = pd.concat([files.read_parquet(path, needed) for path in documents], ignore_index=True)
    labels = known_labels(read, constants, columns)
    found, described = find_topics(documents, len(read), finding, seed)
    if any(found):
        labels[TOPICS] = pd.Series(found, dtype=object)
    if not labels:  # what models predict is measured on labelled documents alone
        labels[SOURCE] = read["source"]
    labels = {name: series.set_axis(read["document"]) for name, series in labels.items()}
    files.write_parquet(output, table_of(labels))
    files.write_json(
        summary,
        {
            "documents": len(read),
            "labellers": summarize(labels),
            "topics": described,
            "provenance": provenance(__file__),
        },
    )


main = cli.command(label_documents)


if __name__ == "__main__":
    raise SystemExit(main())
