"""Build the requests to the annotators for one purpose: explain, classify or score.

Opens no socket. Writes `requests.jsonl` and `plan.json` (calls and tokens, and money where prices
are given). Explanations must exist before classify and score, since their prompts quote them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.autointerp.llm.cost import Price, plan_requests
from workflow_scripts.autointerp.llm.requests import (
    NamedAnnotator,
    encoded,
    parse_annotators,
    read_requests,
    write_lines,
)
from workflow_scripts.autointerp.prompting import templates
from workflow_scripts.autointerp.prompting.contexts import ContextTable
from workflow_scripts.autointerp.prompting.request_builder import Builder, Shape, Subject
from workflow_scripts.autointerp.select_contexts import OK
from workflow_scripts.common import cli, files
from workflow_scripts.common.taxonomy import load_taxonomy


def build_requests(
    purpose: str,
    contexts: Path,
    latents: Path,
    taxonomy: Path,
    explanations: Path | None,
    annotators: Sequence[NamedAnnotator],
    shape: Shape,
    seed: int,
    output: Path,
    plan: Path,
    prices: dict[str, Price] | None = None,
    code: str = "",
) -> None:
    """Write the requests of one purpose and their plan.

    Raises
    ------
    UserError
        If an input is missing, or explanations are needed and not given.
    """
    if purpose != "explain" and explanations is None:
        raise cli.UserError(f"the purpose {purpose} needs --explanations")
    categories = load_taxonomy(taxonomy)
    table = ContextTable(contexts)
    status = files.read_parquet(latents)
    usable = sorted(int(x) for x in status.loc[status["status"] == OK, "latent"])
    builder = Builder(purpose, table, categories, annotators, shape, seed)
    if explanations is None:
        subjects = list(_everyone(usable, annotators, shape.replicates))
    else:
        subjects = list(_explained(files.read_parquet(explanations), annotators))
    header = builder.header(code)
    write_lines(output, header, _lines(builder, subjects, output.parent))
    summary = plan_requests(header, read_requests(output), prices or {})
    files.write_json(plan, summary)
    calls = int(summary["total"]["calls"])
    cli.log(f"{purpose}: {calls} requests for {len(subjects)} latents and annotators")


def _lines(builder: Builder, subjects: Sequence[Subject], folder: Path) -> Iterator[bytes]:
    """Yield the requests in their permuted order, by way of a file without a name in ``folder``.

    They are built latent by latent, since the contexts of all would fill the memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = builder.tasks(subjects)
    places = [(0, 0)] * len(tasks)
    with tempfile.TemporaryFile(dir=folder) as spill:
        for number in sorted(range(len(tasks)), key=lambda i: tasks[i].subject.latent):
            block = b"".join(map(encoded, builder.requests(tasks[number])))
            places[number] = spill.tell(), len(block)
            spill.write(block)
        for start, size in places:
            spill.seek(start)
            yield spill.read(size)


def _everyone(
    latents: Sequence[int], annotators: Sequence[NamedAnnotator], replicates: int
) -> Iterator[Subject]:
    for annotator in annotators:
        for replicate in range(replicates):
            for latent in latents:
                yield Subject(annotator, replicate, latent)


def _explained(table: pd.DataFrame, annotators: Sequence[NamedAnnotator]) -> Iterator[Subject]:
    by_name = {annotator.name: annotator for annotator in annotators}
    usable = table[(table["explanation"] != "") & table["annotator"].isin(list(by_name))]
    columns = ["annotator", "replicate", "latent", "explanation"]
    for name, replicate, latent, explanation in usable[columns].itertuples(index=False):
        yield Subject(by_name[name], int(replicate), int(latent), explanation)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and build."""
    shape = Shape()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--purpose", choices=templates.PURPOSES, required=True)
    parser.add_argument("--contexts", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--explanations", type=Path, help="needed for classify and score")
    parser.add_argument("--annotators", required=True, help="JSON list of objects")
    parser.add_argument("--replicates", type=int, default=shape.replicates)
    parser.add_argument("--items-per-prompt", type=int, default=shape.items_per_prompt)
    parser.add_argument("--held-out", type=int, default=shape.held_out)
    parser.add_argument("--null", type=int, default=shape.null)
    parser.add_argument("--fuzz", type=int, default=shape.fuzz)
    parser.add_argument("--canaries", type=int, default=shape.canaries)
    parser.add_argument("--code", default="", help="digest of the step's code, for the ledger")
    parser.add_argument("--prices", default="{}", help="JSON: model to [input, output] per million")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    a = parser.parse_args(argv)

    def run() -> None:
        build_requests(
            a.purpose,
            a.contexts,
            a.latents,
            a.taxonomy,
            a.explanations,
            parse_annotators(a.annotators),
            Shape(
                items_per_prompt=a.items_per_prompt,
                held_out=a.held_out,
                null=a.null,
                fuzz=a.fuzz,
                canaries=a.canaries,
                replicates=a.replicates,
            ),
            a.seed,
            a.requests,
            a.plan,
            Price.parse(a.prices),
            a.code,
        )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
