"""Write what was planted: per category the tokens that either model of a pair was taught.

A category is gained when the candidate was taught more tokens of it, lost when it was taught
fewer, unchanged when equally many: the truth against which the comparison is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from workflow_scripts.common import cli
from workflow_scripts.common.manifest import model_folder
from workflow_scripts.common.settings import Name
from workflow_scripts.common.tables import write_csv
from workflow_scripts.common.taxonomy import load_taxonomy
from workflow_scripts.models import organism_text

COLUMNS = (
    "baseline",
    "candidate",
    "category",
    "class",
    "baseline_tokens",
    "candidate_tokens",
    "planted",
)


def planted(baseline: int, candidate: int) -> str:
    """Return the word for a category by the tokens of it that either model was taught."""
    if baseline == candidate:
        return "unchanged"
    return "gained" if candidate > baseline else "lost"


def count_tokens(manifest: Path, documents: Mapping[str, int], seed: int) -> dict[str, list[int]]:
    """Return, per category, the tokens of its first 0, 1, … documents, cumulated."""
    tokenizer = organism_text.load_fast(model_folder(manifest))
    counts = {}
    for category, number in documents.items():
        taught = organism_text.taught_documents({category: number}, seed)
        sums = [0]
        for row in organism_text.encode(tokenizer, taught):
            sums.append(sums[-1] + len(row))
        counts[category] = sums
    return counts


def tabulate_planted(
    tokenizer: Path,
    taught: dict[Name, dict[Name, list[int]]],
    baselines: list[str],
    candidates: list[str],
    document_seed: int,
    taxonomy: Path,
    output: Path,
) -> None:
    """Write the table of all pairs; each model is taught the first documents of a category.

    Parameters
    ----------
    tokenizer
        model.json of a model, whose tokenizer counts
    taught
        model: category: documents taught to it and to each of its bases (JSON)
    baselines
        first model of each pair
    candidates
        second model of each pair, in the same order
    document_seed
        seed of the documents taught
    taxonomy
        classes and categories (YAML)
    output
        table to write (CSV)
    """
    class_of = load_taxonomy(taxonomy).class_of
    most: dict[str, int] = {}
    for lessons in taught.values():
        for category, documents in lessons.items():
            most[category] = max(most.get(category, 0), *documents)
    tokens = count_tokens(tokenizer, most, document_seed)
    rows = (
        dict(zip(COLUMNS, (*pair, *row), strict=True))
        for pair in zip(baselines, candidates, strict=True)
        for row in _rows([taught[name] for name in pair], tokens, class_of)
    )
    write_csv(output, rows, COLUMNS)


def _rows(
    pair: Sequence[Mapping[str, Sequence[int]]],
    tokens: Mapping[str, Sequence[int]],
    class_of: Callable[[str], str],
) -> Iterator[tuple[object, ...]]:
    for category in sorted({name for lessons in pair for name in lessons}):
        before, after = (
            sum(tokens[category][documents] for documents in lessons.get(category, ()))
            for lessons in pair
        )
        yield category, class_of(category), before, after, planted(before, after)


main = cli.command(tabulate_planted)


if __name__ == "__main__":
    raise SystemExit(main())
