"""Four times the latents need about as much memory, and no more than a little per judged item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.autointerp.llm_run import ANNOTATORS
from tests.autointerp.memory import make_examples, peaks, run
from tests.common.test_taxonomy import SHIPPED
from workflow_scripts.autointerp.llm.requests import (
    Request,
    encoded,
    read_header,
    read_requests,
    write_lines,
)

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="the peak is read from Linux's /proc")

BATCH = 30
COPIES = 30, 120
"""Of four latents."""


@pytest.fixture(scope="module")
def folders(contexts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return folders with the examples of 120 latents and of four times as many."""
    made = [tmp_path_factory.mktemp(f"copies{copies}") for copies in COPIES]
    for folder, copies in zip(made, COPIES, strict=True):
        make_examples(contexts, folder, copies)
    return made


@pytest.fixture(scope="module")
def measured(folders: list[Path]) -> list[dict[str, tuple[int, int]]]:
    return [run(folder, BATCH) for folder in folders]


def test_four_times_the_latents_need_about_the_same_memory(
    measured: list[dict[str, tuple[int, int]]],
) -> None:
    few, many = measured
    for step, (process, tables) in many.items():
        assert process < 1.2 * few[step][0], (step, process, few[step])
        assert tables < 1.3 * few[step][1], (step, tables, few[step])


def answered(folder: Path, times: int) -> list[object]:
    """Write the requests of the first annotator so often, as replicates, and an answer to each.

    Return the flags that parsing them takes.
    """
    source, requests = folder / "requests.jsonl", folder / f"requests{times}.jsonl"
    header = read_header(source)
    write_lines(requests, header, map(encoded, replicated(source, times)))
    responses = folder / f"responses{times}.jsonl"
    with responses.open("w", encoding="utf-8") as out:
        for request in read_requests(requests):
            scores = [{"item": item, "score": 50} for item in request.items]
            reply = {"key": "", "content": json.dumps({"answers": scores}), "finish_reason": "stop"}
            line = {"id": request.id, "failure": None, "exchanges": [reply]}
            out.write(json.dumps(line) + "\n")
    return [
        *("--requests", requests, "--responses", responses, "--replicates", times),
        *("--latents", folder / "latents.parquet", "--taxonomy", SHIPPED),
        *("--annotators", *ANNOTATORS, "--purpose", "score"),
        *("--output", folder / "scores.parquet", "--summary", folder / "summary.json"),
    ]


def replicated(path: Path, times: int) -> Iterator[Request]:
    """Yield all requests, so many times as other replicates."""
    for replicate in range(times):
        for request in read_requests(path):
            yield replace(request, id=f"{request.id}-{replicate}", replicate=replicate)


@pytest.mark.usefixtures("measured")
def test_an_answered_item_takes_few_bytes(folders: list[Path]) -> None:
    """Hundreds would be the objects of an item; what stays are numbers of ten bytes, and copies."""
    folder, times = folders[0], (1, 8)
    items = sum(len(request.items) for request in read_requests(folder / "requests.jsonl"))
    few, many = (peaks(BATCH, "parse_responses", *answered(folder, n))[0] for n in times)
    assert items > 4000
    assert many - few < 100 * items * (times[1] - times[0]), (few, many, items)
