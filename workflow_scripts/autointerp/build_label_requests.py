"""Build the requests for labels of documents: which of the given categories is each text of?

Documents are drawn from those on which the models are compared. Opens no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.autointerp.llm.cost import plan_requests
from workflow_scripts.autointerp.llm.requests import encoded, read_requests, write_lines
from workflow_scripts.autointerp.prompting.document_requests import DocumentRequests, choices_of
from workflow_scripts.autointerp.settings import Annotator, DocumentSample, Price, Replicates
from workflow_scripts.common import cli, files
from workflow_scripts.common.settings import Name
from workflow_scripts.common.taxonomy import load_taxonomy
from workflow_scripts.dataset.answered_rows import answered_documents
from workflow_scripts.dataset.documents import read_contents
from workflow_scripts.dataset.labels import read_labels

SPLIT = "score"


def draw_documents(
    documents: NDArray[np.int64], labels: pd.DataFrame, count: int, seed: int
) -> NDArray[np.int64]:
    """Return up to ``count`` of the documents, sorted, each with the same chance.

    Of each combination of the labels that are known (``document``, ``labeller``, ``label``) it has
    the same share as all have: a systematic sample, from a random start (Cochran 1977, ch. 8), of
    the documents in the order of their labels.
    """
    rng = np.random.default_rng([seed, 12])
    shuffled = rng.permutation(documents)
    known = labels[labels["document"].isin(documents)].sort_values(["document", "labeller"])
    kinds = known.groupby("document")["label"].agg("\0".join).reindex(shuffled).fillna("")
    ordered = kinds.sort_values(kind="stable").index.to_numpy(dtype=np.int64)
    taken = min(count, len(ordered))
    places = (np.arange(taken) + rng.random()) * len(ordered) / max(taken, 1)
    return np.sort(ordered[places.astype(np.int64)])


def beginnings(
    paths: Sequence[Path], documents: NDArray[np.int64], characters: int
) -> dict[int, str]:
    """Return the beginning of each document's text, by its number."""
    contents = read_contents(paths, documents.tolist())
    return {number: text[:characters] for number, text in contents.items()}


def build_label_requests(
    documents: list[Path],
    tokens: list[Path],
    labels: Path,
    taxonomy: Path,
    categories: dict[str, str],
    annotators: dict[Name, Annotator],
    sample: DocumentSample,
    counts: Replicates,
    limit: int,
    prices: dict[str, Price],
    seed: int,
    code: str,
    requests: Path,
    plan: Path,
) -> None:
    """Write the requests about a sample of documents, and a plan of calls, tokens and cost.

    Parameters
    ----------
    documents
        tables of documents
    tokens
        token shards
    labels
        labels that the documents have already (Parquet)
    taxonomy
        categories that may be named (YAML)
    categories
        the user's own in their place, name to what belongs to it, or none (JSON)
    annotators
        annotators: name to model, prompt, label_seed, temperature and extra_body (JSON)
    limit
        tokens of an answer at most
    prices
        model to money per million input and output tokens (JSON)
    seed
        seed of all choices
    code
        digest of the step's code, for the ledger
    requests
        requests to write (JSON lines)
    plan
        plan to write (JSON)

    Raises
    ------
    UserError
        If an input is missing, or the split has no document with an answer token.
    """
    answered = answered_documents(tokens, SPLIT)
    if not len(answered):
        raise cli.UserError(f"the {SPLIT} split holds no usable token: raise text.tokens")
    chosen = draw_documents(answered, read_labels([labels]), sample.sample, seed)
    choices = choices_of(load_taxonomy(taxonomy), categories, annotators)
    builder = DocumentRequests(choices, annotators, counts.replicates, limit, seed)
    header, texts = builder.header(code), beginnings(documents, chosen, sample.characters)
    write_lines(requests, header, map(encoded, builder.requests(texts)))
    summary = plan_requests(header, read_requests(requests), prices)
    files.write_json(plan, summary)
    calls = int(summary["total"]["calls"])
    cli.log(f"{calls} requests about {len(texts)} of {len(answered)} documents")


main = cli.command(build_label_requests)


if __name__ == "__main__":
    raise SystemExit(main())
