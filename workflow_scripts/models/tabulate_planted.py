"""Write what was planted: per category the tokens that each of two trained models was taught.

A category is gained when the candidate was taught more tokens of it, lost when it was taught
fewer, unchanged when equally many: the truth that the comparison is held against.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from workflow_scripts import cli, files
from workflow_scripts.models import organism_text
from workflow_scripts.models.loading import model_folder

COLUMNS = ("category", "class", "baseline_tokens", "candidate_tokens", "planted")


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


def read_classes(taxonomy: Path) -> dict[str, str]:
    """Return the class of each category of the taxonomy."""
    content = yaml.safe_load(taxonomy.read_text(encoding="utf-8"))
    return {str(entry["id"]): str(entry["class"]) for entry in content["categories"]}


def tabulate_planted(
    manifest: Path,
    baseline: Mapping[str, int],
    candidate: Mapping[str, int],
    document_seed: int,
    taxonomy: Path,
    output: Path,
) -> None:
    """Write the table; ``baseline`` and ``candidate`` map categories to documents taught."""
    classes = read_classes(taxonomy)
    most = {
        category: max(baseline.get(category, 0), candidate.get(category, 0))
        for category in sorted({*baseline, *candidate})
    }
    tokens = count_tokens(manifest, most, document_seed)
    with files.atomic_path(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for category, sums in tokens.items():
            before, after = sums[baseline.get(category, 0)], sums[candidate.get(category, 0)]
            told = planted(before, after)
            writer.writerow([category, classes.get(category, category), before, after, told])


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="model.json of a model")
    parser.add_argument("--baseline", type=json.loads, required=True, help="category: documents")
    parser.add_argument("--candidate", type=json.loads, required=True, help="category: documents")
    parser.add_argument("--document-seed", type=int, required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    return cli.guarded(
        lambda: tabulate_planted(
            a.tokenizer, a.baseline, a.candidate, a.document_seed, a.taxonomy, a.output
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
