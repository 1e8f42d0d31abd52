"""Send requests to an OpenAI-compatible endpoint; the only step that opens a socket.

Every answer goes into the response cache at receipt, outside this step's outputs; the outputs are
then written from the cache alone, so that a second run sends nothing and writes the same bytes.
With `--mode replay` no socket is opened at all. The key comes from the environment variable that
`--key-env` names. Exit codes: 0 done, 2 stopped with a sentence that says why, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from workflow_scripts.autointerp.llm.api_key import is_loopback, read_key
from workflow_scripts.autointerp.llm.budget import Amount, Caps, SpendLog
from workflow_scripts.autointerp.llm.cache import ResponseCache, normalise_url
from workflow_scripts.autointerp.llm.caller import Caller, CallTally, Policy, StopRunError
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.cost import Price, plan_requests
from workflow_scripts.autointerp.llm.endpoint import Endpoint
from workflow_scripts.autointerp.llm.outputs import CallOutputs, Writer, writing
from workflow_scripts.autointerp.llm.replay import StoredAnswers
from workflow_scripts.autointerp.llm.requests import Request, read_header, read_requests
from workflow_scripts.common import cli

INTERRUPTED = 130
GRACE = 20.0
"""Seconds that calls in flight may still take after an interrupt."""
AFTER = 0.2
"""Seconds for what follows a call; calls that wait for their turn are dropped."""
LINE_SECONDS = 15.0


class InterruptedRunError(Exception):
    """The user stopped the run."""


@dataclass(frozen=True)
class CallPaths:
    """Files that the step reads and writes."""

    requests: Path
    cache: Path
    outputs: CallOutputs
    spend: Path | None = None
    """What the run's steps have spent together; none: caps hold for this step alone."""


def call_llm(paths: CallPaths, base_url: str, key_env: str, mode: str, policy: Policy) -> None:
    """Answer all requests and write responses, ledger and manifest.

    The cache is read until it lacks an answer; only then is the endpoint called.

    Raises
    ------
    UserError
        If the endpoint refuses, a cap is reached, a key is missing, or a replay lacks answers.
    InterruptedRunError
        If the user stopped the run.
    """
    url = normalise_url(base_url)
    header = read_header(paths.requests)
    cache, replay = ResponseCache(paths.cache), mode == "replay"
    answers = StoredAnswers(cache, url, header, policy.form, failures=replay)
    requests = enumerate(read_requests(paths.requests))
    tally = CallTally()
    missing: list[str] = []
    with writing(paths.outputs, header, urlsplit(url).netloc) as writer:
        for place, request in requests:
            result = answers.find(request)
            if isinstance(result, Conversation):
                writer.add(place, result)
                tally.done += 1
                tally.cached += len(result.turns)
            elif not replay:
                left = chain([(place, request)], requests)
                rest = Rest(left, count_requests(paths.requests), tally, writer)
                _send(paths, url, key_env, policy, rest)
            else:
                missing.append(f"{request.id} ({result})")
        if missing:
            raise cli.UserError(
                f"the response cache {paths.cache} lacks {len(missing)} answers, such as "
                f"{'; '.join(missing[:5])}: run in live mode, or unpack the archive that holds them"
            )


@dataclass(frozen=True)
class Rest:
    """The requests that the cache does not answer, and where their answers go."""

    requests: Iterator[tuple[int, Request]]
    total: int
    """All requests of the file, those that the cache has answered included."""
    tally: CallTally
    writer: Writer


def _send(paths: CallPaths, url: str, key_env: str, policy: Policy, rest: Rest) -> None:
    """Have the endpoint answer the rest."""
    key = read_key(key_env)
    host = urlsplit(url).netloc
    cli.log(f"sending text of the study to {host}: up to {rest.total - rest.tally.done} requests")
    if url.startswith("http://") and not is_loopback(url):
        cli.log(f"warning: {host} is reached over plain http, so others can read key and texts")
    try:
        asyncio.run(_run(paths, url, key, key_env, policy, rest))
    except StopRunError as stop:
        raise cli.UserError(str(stop)) from None
    if rest.tally.usage_missing:
        cli.log(
            f"warning: {rest.tally.usage_missing} answers do not say how many tokens they took; "
            "their upper bound counts"
        )
    if rest.tally.cut_off:
        cli.log(
            f"warning: {rest.tally.cut_off} calls gave no answer, yet may be billed; "
            "their upper bound counts"
        )


async def _run(
    paths: CallPaths, url: str, key: str, key_env: str, policy: Policy, rest: Rest
) -> None:
    header = read_header(paths.requests)
    interrupted = asyncio.Event()
    async with Endpoint(url, key, policy.deadline, policy.concurrency) as endpoint:
        spend = SpendLog(paths.spend) if paths.spend else None
        cache = ResponseCache(paths.cache)
        caller = Caller(endpoint, cache, header, policy, key_env, spend, rest.tally)

        def interrupt() -> None:
            caller.stop("interrupted")
            interrupted.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        with Progress(rest.total) as progress:
            calls = caller.run(rest.requests, rest.total, rest.writer.add, progress.show)
            task = asyncio.create_task(calls)
            stopping = asyncio.create_task(interrupted.wait())
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if interrupted.is_set():
                await caller.finish_calls(GRACE)
                await asyncio.wait({task}, timeout=AFTER)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise InterruptedRunError(f"{rest.tally.done} of {rest.total} are answered")
            stopping.cancel()
            await task
            progress.close(rest.tally, caller.budget.spent)


def count_requests(path: Path) -> int:
    """Return the number of requests in a file."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines) - 1


class Progress:
    """A bar on a terminal, a plain line every quarter of a minute elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._started = time.monotonic()
        self._said = self._started
        self._bar = tqdm(total=total, disable=not sys.stderr.isatty(), desc="requests")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, tally: CallTally, spent: Amount) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.update(tally.done - self._bar.n)
            self._bar.set_postfix_str(self._text(tally, spent), refresh=False)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            rate = tally.done / max(now - self._started, 1e-9)
            left = (self.total - tally.done) / max(rate, 1e-9)
            cli.log(
                f"{tally.done}/{self.total} requests, {rate:.1f}/s, {left:.0f} s left, "
                + self._text(tally, spent)
            )

    def close(self, tally: CallTally, spent: Amount) -> None:
        """Show what the run did."""
        cli.log(f"{tally.done}/{self.total} requests, {self._text(tally, spent)}")

    def _text(self, tally: CallTally, spent: Amount) -> str:
        money = f", cost {spent.cost:.4f}" if spent.cost else ""
        return (
            f"{tally.cached} from the cache, {tally.sent} sent, {tally.retries} retried, "
            f"{tally.failed} failed, {spent.input} + {spent.output} tokens{money}"
        )


def dry_run(paths: CallPaths, base_url: str, policy: Policy) -> None:
    """Print what a run would send and cost; opens no socket."""
    header = read_header(paths.requests)
    plan = plan_requests(header, read_requests(paths.requests), policy.prices)
    url = normalise_url(base_url)
    answers = StoredAnswers(ResponseCache(paths.cache), url, header, policy.form)
    stored = answers.count(read_requests(paths.requests))
    names = ["calls", "input_tokens", "output_tokens", "input_bound", "output_bound"]
    names += ["cost", "cost_bound"]
    print(f"{header.purpose}: nothing is sent")
    print("annotator".ljust(16) + "".join(name.rjust(15) for name in names))
    for annotator, row in [*plan["annotators"].items(), ("total", plan["total"])]:
        cells = "".join(
            (f"{row[name]:.4f}" if name.startswith("cost") else f"{row[name]:.0f}").rjust(15)
            for name in names
        )
        print(annotator.ljust(16) + cells)
    print(f"in the cache: {stored}; new: {int(plan['total']['calls']) - stored}")
    for model in plan["unpriced"]:
        print(f"no price is configured for {model}, so its cost is missing")


def _parser() -> argparse.ArgumentParser:
    default = Policy()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the response cache")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--key-env", default="", help="name of the variable that holds the key")
    parser.add_argument("--mode", choices=("live", "replay"), default="live")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--response-format", default=default.form)
    parser.add_argument("--concurrency", type=int, default=default.concurrency)
    parser.add_argument("--requests-per-minute", type=float)
    parser.add_argument("--attempts", type=int, default=default.attempts)
    parser.add_argument("--deadline", type=float, default=default.deadline, help="seconds")
    parser.add_argument("--retry-share", type=float, default=default.retry_share)
    parser.add_argument("--longest-wait", type=float, default=default.longest_wait)
    parser.add_argument("--first-backoff", type=float, default=default.first_backoff)
    parser.add_argument("--max-requests", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--max-cost", type=float)
    parser.add_argument("--spend", type=Path, help="file by which steps share the caps")
    parser.add_argument("--prices", default="{}", help="JSON: model to [input, output] per million")
    parser.add_argument("--responses", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and call."""
    a = _parser().parse_args(argv)
    paths = CallPaths(a.requests, a.cache, CallOutputs(a.responses, a.ledger, a.manifest), a.spend)

    def run() -> None:
        policy = Policy(
            concurrency=a.concurrency,
            requests_per_minute=a.requests_per_minute,
            attempts=a.attempts,
            deadline=a.deadline,
            retry_share=a.retry_share,
            longest_wait=a.longest_wait,
            first_backoff=a.first_backoff,
            caps=Caps(a.max_requests, a.max_tokens, a.max_cost),
            prices=Price.parse(a.prices),
            form=a.response_format,
        )
        if a.dry_run:
            dry_run(paths, a.base_url, policy)
        else:
            call_llm(paths, a.base_url, a.key_env, a.mode, policy)

    try:
        return cli.guarded(run)
    except (InterruptedRunError, KeyboardInterrupt) as stop:
        command = json.dumps(["python", "-m", __spec__.name if __spec__ else "", *sys.argv[1:]])
        where = str(stop) or "while the cache was read"
        cli.log(f"interrupted: {where}; nothing is lost, resume with the same command: {command}")
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
