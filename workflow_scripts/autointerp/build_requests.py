"""Build the requests to the annotators for one purpose: explain, classify or score.

Opens no socket. Explanations must exist before classify and score, since their prompts quote them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from workflow_scripts.autointerp.annotation_tables import OK
from workflow_scripts.autointerp.llm.cost import plan_requests
from workflow_scripts.autointerp.llm.requests import encoded, read_requests, write_lines
from workflow_scripts.autointerp.prompting.contexts import ContextTable
from workflow_scripts.autointerp.prompting.request_builder import Builder, Subject
from workflow_scripts.autointerp.settings import (
    MAX_OUTPUT,
    Annotator,
    AnyPurpose,
    Price,
    PromptCounts,
    Purpose,
)
from workflow_scripts.common import cli, files
from workflow_scripts.common.settings import Count, Name
from workflow_scripts.common.taxonomy import load_taxonomy


def build_requests(
    purpose: Purpose,
    contexts: Path,
    latents: Path,
    taxonomy: Path,
    annotators: dict[Name, Annotator],
    counts: PromptCounts,
    limits: dict[AnyPurpose, Count],
    prices: dict[str, Price],
    seed: int,
    code: str,
    requests: Path,
    plan: Path,
    explanations: Path | None = None,
) -> None:
    """Write the requests of one purpose, and a plan of calls, tokens and cost.

    Parameters
    ----------
    purpose
        purpose of the requests
    contexts
        contexts of the latents (Parquet)
    latents
        status of each latent (Parquet)
    taxonomy
        categories that may be named (YAML)
    annotators
        annotators: name to model, prompt, label_seed, temperature and extra_body (JSON)
    limits
        tokens of an answer at most, per purpose (JSON)
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
    explanations
        explanations that classify and score quote (Parquet)

    Raises
    ------
    UserError
        If an input is missing, or explanations are needed and not given.
    """
    if purpose != "explain" and explanations is None:
        raise cli.UserError(f"the purpose {purpose} needs --explanations")
    limit = limits.get(purpose, MAX_OUTPUT[purpose])
    builder = Builder(
        purpose, ContextTable(contexts), load_taxonomy(taxonomy), annotators, counts, seed, limit
    )
    if explanations is None:
        status = files.read_parquet(latents)
        usable = sorted(int(x) for x in status.loc[status["status"] == OK, "latent"])
        pairs = product(annotators, range(counts.replicates), usable)
        subjects = [Subject(*pair) for pair in pairs]
    else:
        subjects = list(_explained(files.read_parquet(explanations), annotators))
    header = builder.header(code)
    write_lines(requests, header, _lines(builder, subjects, requests.parent))
    summary = plan_requests(header, read_requests(requests), prices)
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


def _explained(table: pd.DataFrame, annotators: Collection[str]) -> Iterator[Subject]:
    usable = table[(table["explanation"] != "") & table["annotator"].isin(list(annotators))]
    columns = ["annotator", "replicate", "latent", "explanation"]
    for name, replicate, latent, explanation in usable[columns].itertuples(index=False):
        yield Subject(name, int(replicate), int(latent), explanation)


main = cli.command(build_requests)


if __name__ == "__main__":
    raise SystemExit(main())
