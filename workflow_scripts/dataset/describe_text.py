"""Sum up the text of a run: documents by source and split, tokens, what was dropped and why.

Refuses text in which a split has no document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common import cli
from workflow_scripts.common.files import read_json, write_json
from workflow_scripts.common.provenance import provenance
from workflow_scripts.dataset.settings import Splits, Splitting

SUMMED = (
    *("read", "documents", "rows", "tokens", "tokens_whole", "truncated"),
    *("system_folded", "thoughts_removed"),
)
COUNTED_BY_SOURCE = ("splits", "categories", "bad_rows", "changes")
COUNTED = ("dropped", "split_rows", "split_tokens")


def describe_documents(parts: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return the sums over the parts of a sample, with each source's."""
    sources = {
        name: _source([part["sources"][name] for part in parts]) for name in sources_of(parts)
    }
    return {
        "documents": sum(part["documents"] for part in parts),
        "tokens_estimated": sum(part["tokens_estimated"] for part in parts),
        "short": any(part["short"] for part in parts),
        "duplicates": sum(source["duplicates"] for source in sources.values()),
        "splits": dict(sum((Counter(source["splits"]) for source in sources.values()), Counter())),
        "sources": sources,
    }


def sources_of(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of a sample's sources."""
    return list(parts[0]["sources"])


def _source(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total = dict(counts[0])
    for count in counts[1:]:
        for name, value in count.items():
            if isinstance(value, bool):
                total[name] |= value
            elif isinstance(value, int):
                total[name] += value
            elif name in COUNTED_BY_SOURCE:
                total[name] = dict(Counter(total[name]) + Counter(value))
    return total


def describe_tokens(shards: Sequence[Mapping[str, Any]], budget: int) -> dict[str, object]:
    """Return the sums over the token shards."""
    sums: dict[str, object] = {name: sum(s[name] for s in shards) for name in SUMMED}
    counts = {
        name: dict(sum((Counter(shard[name]) for shard in shards), Counter())) for name in COUNTED
    }
    return {
        **sums,
        **counts,
        "tokens_wanted": budget,
        "short": any(shard["short"] for shard in shards),
        "shards": [{"rows": shard["rows"], "tokens": shard["tokens"]} for shard in shards],
        "rows_per_document": shards[0]["rows_per_document"],
        "template": shards[0]["template"],
        "categories": shards[0]["categories"],
    }


def check_splits(parts: Sequence[Mapping[str, Any]], splits: Splits) -> None:
    """Refuse a sample in which a split is empty.

    Raises
    ------
    UserError
        Naming the split.
    """
    described = describe_documents(parts)
    counts: Any = described["splits"]
    for split, fraction in splits:
        if fraction > 0 and not counts.get(split):
            raise cli.UserError(
                f"none of the {described['documents']} documents of the sources "
                f"({', '.join(sources_of(parts))}) fell into the split {split}: "
                "give more text or a larger fraction"
            )


def describe_text(
    documents: list[Path], shards: list[Path], splitting: Splitting, tokens: int, output: Path
) -> None:
    """Write the manifest of a run's text.

    Parameters
    ----------
    documents
        manifests of the sample's parts
    shards
        manifests of the token shards
    tokens
        budget of tokens of the run
    output
        manifest to write (JSON)

    Raises
    ------
    UserError
        If a split is empty.
    """
    sampled = [read_json(path) for path in documents]
    check_splits(sampled, splitting.splits)
    tokenized = [read_json(path) for path in shards]
    write_json(
        output,
        {
            "documents": describe_documents(sampled),
            "tokens": describe_tokens(tokenized, tokens),
            "provenance": provenance(__file__),
        },
    )


main = cli.command(describe_text)


if __name__ == "__main__":
    raise SystemExit(main())
