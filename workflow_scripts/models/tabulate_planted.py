"""Write what was planted: per category the tokens that either model of a pair was taught.

A category is gained when the candidate was taught more tokens of it, lost when it was taught
fewer, unchanged when equally many: the truth that the comparison is held against.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.common.manifest import model_folder
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
Taught = Mapping[str, Sequence[int]]
"""Category: documents taught to a model and to each of its bases."""


@dataclass(frozen=True)
class Pair:
    """Two compared models, baseline first, with what either was taught."""

    models: tuple[str, str]
    baseline: Taught
    candidate: Taught


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
    manifest: Path,
    pairs: Sequence[Pair],
    document_seed: int,
    taxonomy: Path,
    output: Path,
) -> None:
    """Write the table of all pairs; each is taught the first documents of a category."""
    class_of = load_taxonomy(taxonomy).class_of
    most: dict[str, int] = {}
    for pair in pairs:
        for side in (pair.baseline, pair.candidate):
            for category, documents in side.items():
                most[category] = max(most.get(category, 0), *documents)
    tokens = count_tokens(manifest, most, document_seed)
    with files.atomic_path(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for pair in pairs:
            writer.writerows(_rows(pair, tokens, class_of))


def _rows(
    pair: Pair, tokens: Mapping[str, Sequence[int]], class_of: Callable[[str], str]
) -> Iterator[tuple[object, ...]]:
    for category in sorted({*pair.baseline, *pair.candidate}):
        before, after = (
            sum(tokens[category][documents] for documents in side.get(category, ()))
            for side in (pair.baseline, pair.candidate)
        )
        told = planted(before, after)
        yield (*pair.models, category, class_of(category), before, after, told)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="model.json of a model")
    parser.add_argument(
        "--lessons",
        type=json.loads,
        required=True,
        help='list of {"pair": [baseline, candidate], "baseline": {category: [documents]}, '
        '"candidate": …}',
    )
    parser.add_argument("--document-seed", type=int, required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    pairs = [Pair(tuple(told["pair"]), told["baseline"], told["candidate"]) for told in a.lessons]
    return cli.guarded(
        lambda: tabulate_planted(a.tokenizer, pairs, a.document_seed, a.taxonomy, a.output)
    )


if __name__ == "__main__":
    raise SystemExit(main())
