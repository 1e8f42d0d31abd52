"""Calls to an endpoint that takes its time: how near to the ideal, and whether memory grows.

``python -m tests.benchmarks.bench_calls`` (part of ``make bench``). The endpoint is the tests' fake
server in a process of its own; it waits 20 ms before each answer, then 200 ms, as a fast model
would. The ideal is that all connections wait all the time; the floor is a bare client that posts
the same bodies over as many connections and reads the replies, which tells what server and machine
take by themselves.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.autointerp.fake_server import serving
from tests.autointerp.llm_run import KEY_ENV, Run, make_contexts
from tests.autointerp.memory import peaks as peaks_of
from tests.benchmarks.report import Figure, at_least, at_most, record
from workflow_scripts.autointerp.llm.dialect import Dialect, compose
from workflow_scripts.autointerp.llm.requests import (
    Request,
    encoded,
    read_header,
    read_requests,
    write_lines,
)

CALLS, CONCURRENCY, LATENCY = 5000, 32, 0.02
TIMES = 5
"""How often it is timed; the median counts, since both cores are full and machines are noisy."""
SLOW_CALLS, SLOW_LATENCY = 1600, 0.2
PURPOSE = "score"


def prepare(data: Path, folder: Path, url: str, calls: int) -> Run:
    """Return a run whose requests are explained and built: exactly so many scoring calls."""
    run = Run(data, folder, url, folder / "cache", held_out=20, null=10)
    # As the workflow calls it, the file of what the run spends included.
    run.flags = ("--concurrency", str(CONCURRENCY), "--spend", str(folder / "spend.jsonl"))
    if run.purpose("explain") or run.build(PURPOSE):
        raise RuntimeError("the requests cannot be built")
    path = run.file(PURPOSE, "requests.jsonl")
    copies = replicated(list(read_requests(path)), calls)
    write_lines(path, read_header(path), map(encoded, copies))
    return run


def replicated(requests: list[Request], calls: int) -> Iterator[Request]:
    """Yield the requests over and over, each time as another replicate."""
    for number in range(calls):
        replicate, place = divmod(number, len(requests))
        request = requests[place]
        yield replace(request, id=f"{request.id}-{replicate}", replicate=replicate)


def floor(run: Run) -> float:
    """Return the seconds that a bare client takes for the same bodies."""
    path = run.file(PURPOSE, "requests.jsonl")
    header = read_header(path)
    bodies = iter(
        [json.dumps(compose(header, r, Dialect(), [])).encode() for r in read_requests(path)]
    )
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection(run.url.split("/")[2])
        headers = {"Authorization": "Bearer none", "Content-Type": "application/json"}
        while True:
            with lock:
                body = next(bodies, None)
            if body is None:
                break
            connection.request("POST", "/v1/chat/completions", body, headers)
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def called(run: Run) -> float:
    """Return the seconds of the calling step, its outputs included."""
    started = time.perf_counter()
    if run.call(PURPOSE) != 0:
        raise RuntimeError("the calls failed")
    return time.perf_counter() - started


def measure(folder: Path) -> list[Figure]:
    """Return the ratios."""
    os.environ[KEY_ENV] = "none"
    data = folder / "data"
    data.mkdir()
    make_contexts(data)
    peaks = []
    with serving(folder, latency=LATENCY) as url:
        runs = [prepare(data, folder / f"timed{n}", url, CALLS) for n in range(TIMES)]
        bare = floor(runs[0])
        every = sorted(map(called, runs))
        seconds = statistics.median(every)
        again = called(runs[0])
        for calls in (CALLS // 4, CALLS):
            run = prepare(data, folder / f"peak{calls}", url, calls)
            peaks.append(peaks_of(0, "call_llm", *run.call_flags(PURPOSE))[0])
    with serving(folder, latency=SLOW_LATENCY) as url:
        slow = called(prepare(data, folder / "slow", url, SLOW_CALLS))
    ideal, slow_ideal = CALLS * LATENCY / CONCURRENCY, SLOW_CALLS * SLOW_LATENCY / CONCURRENCY
    name = "calls"
    return [
        at_least(name, f"{CALLS} calls of 20 ms", CALLS / seconds, "calls/s", 400),
        Figure(name, f"{CALLS} calls of 20 ms, of the ideal", seconds / ideal, "x"),
        Figure(name, f"the slowest of {TIMES} times", every[-1] / ideal, "x"),
        at_most(name, f"{SLOW_CALLS} calls of 200 ms, of the ideal", slow / slow_ideal, "x", 1.15),
        Figure(name, "a bare client, of the ideal", bare / ideal, "x"),
        Figure(name, "the same from the cache", CALLS / again, "calls/s"),
        at_most(name, "peak of memory at 4x the calls", peaks[1] / peaks[0], "x", 1.1),
        Figure(name, "peak of memory", peaks[1] / 1e6, "MB"),
        Figure(name, "memory per further call", (peaks[1] - peaks[0]) / (0.75 * CALLS), "bytes"),
    ]


def clear(shelf: Path, but: Path) -> None:
    """Remove what runs left a day ago and before.

    A run leaves its folder: ext4 passes over each inode that was freed in the last five minutes
    when it makes a file, which takes ten times as long after a deletion of thousands.
    """
    for left in shelf.iterdir():
        if left != but and left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left)


def main() -> None:
    """Measure and record."""
    shelf = Path("results/bench_calls")
    shelf.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=shelf))
    record(measure(folder))
    clear(shelf, folder)


if __name__ == "__main__":
    main()
