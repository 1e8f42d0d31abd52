"""Send requests to an OpenAI-compatible endpoint; the only step that opens a socket.

Every good answer goes into the response cache as it arrives, outside this step's outputs; they are
then written from the cache alone, so that a second run sends nothing and writes the same bytes.
Where too many requests have no good answer, the step fails; the next run requests those again.
With `--mode replay` no socket is opened at all. The key comes from the environment variable that
`--key-env` names. Exit codes: 0 done, 2 stopped with a sentence that says why, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from workflow_scripts.autointerp.annotation_tables import GOOD
from workflow_scripts.autointerp.llm.api_key import is_loopback, read_headers, read_key
from workflow_scripts.autointerp.llm.budget import Amount, SpendLog
from workflow_scripts.autointerp.llm.cache import ResponseCache, normalise_url
from workflow_scripts.autointerp.llm.caller import Caller
from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.cost import plan_requests
from workflow_scripts.autointerp.llm.endpoint import Endpoint
from workflow_scripts.autointerp.llm.outputs import TRANSPORT_FAILED, CallOutputs, Writer, writing
from workflow_scripts.autointerp.llm.refusals import explain_failures, explain_gaps
from workflow_scripts.autointerp.llm.replay import StoredAnswers
from workflow_scripts.autointerp.llm.requests import Request, read_header, read_requests
from workflow_scripts.autointerp.llm.sender import CallTally, Policy, Sender, StopRunError
from workflow_scripts.autointerp.settings import (
    Calls,
    Connection,
    Failures,
    HeaderName,
    Price,
    Retries,
    SpendingCaps,
    Variable,
)
from workflow_scripts.common import cli
from workflow_scripts.common.progress import Progress

INTERRUPTED = 130
GRACE = 20.0
"""Seconds that calls in flight may still take after an interrupt."""
AFTER = 0.2
"""Seconds for what follows a call; who waits for a turn to call is not waited for."""


class InterruptedRunError(Exception):
    """The user stopped the run."""


@dataclass(frozen=True)
class Setup:
    """Where the requests lie, where they go, and how."""

    requests: Path
    connection: Connection
    policy: Policy
    failures: Failures
    headers: dict[str, str]
    """Name to environment variable."""
    spend: Path | None

    @property
    def url(self) -> str:
        """The endpoint's address in its usual form."""
        return normalise_url(self.connection.base_url)

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        return urlsplit(self.url).netloc

    @property
    def cache(self) -> ResponseCache:
        """The response cache."""
        return ResponseCache(Path(self.connection.cache))


def call_llm(
    requests: Path,
    connection: Connection,
    calls: Calls,
    retries: Retries,
    caps: SpendingCaps,
    failures: Failures,
    headers: dict[HeaderName, Variable],
    prices: dict[str, Price],
    responses: Path,
    ledger: Path,
    manifest: Path,
    spend: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Write the answers to all requests, a ledger of the calls, and a manifest.

    Parameters
    ----------
    requests
        requests of one purpose (JSON lines)
    headers
        further headers of each request: name to environment variable that holds the value (JSON)
    prices
        model to money per million input and output tokens (JSON)
    responses
        answers to write (JSON lines)
    ledger
        table to write, a row per stored reply (CSV)
    manifest
        facts about the run to write (JSON)
    spend
        file by which the steps of a run share the caps; none: they hold for this step alone
    dry_run
        print what would be sent and what it would cost, and stop

    Raises
    ------
    UserError
        If the endpoint refuses, a cap is reached, a key is missing, a replay lacks answers, or
        more requests have no good answer than ``failures`` allows.
    SystemExit
        If the user stopped the run.
    """
    policy = Policy(connection.response_format, calls, retries, caps, prices)
    setup = Setup(requests, connection, policy, failures, headers, spend)
    if dry_run:
        print_plan(setup)
        return
    try:
        answer(setup, CallOutputs(responses, ledger, manifest))
    except (InterruptedRunError, KeyboardInterrupt) as stop:
        command = json.dumps(["python", "-m", __spec__.name if __spec__ else "", *sys.argv[1:]])
        where = str(stop) or "while the cache was read"
        cli.log(f"interrupted: {where}; nothing is lost, resume with the same command: {command}")
        raise SystemExit(INTERRUPTED) from None


def answer(setup: Setup, outputs: CallOutputs) -> None:
    """Answer all requests and write the outputs.

    The cache is read until it lacks an answer; only then is the endpoint called.

    Raises
    ------
    UserError
        As :func:`call_llm`.
    InterruptedRunError
        If the user stopped the run.
    """
    header = read_header(setup.requests)
    replay = setup.connection.mode == "replay"
    answers = StoredAnswers(setup.cache, setup.url, header, setup.policy.form, failures=replay)
    requests = enumerate(read_requests(setup.requests))
    tally = CallTally()
    missing: list[str] = []
    with writing(outputs, header, setup.host) as writer:
        for place, request in requests:
            stored = answers.find(request)
            if isinstance(stored, Conversation):
                writer.add(place, stored)
                tally.done += 1
                tally.cached += len(stored.turns)
            elif not replay:
                left = chain([(place, request)], requests)
                _send(setup, Rest(left, count_requests(setup.requests), tally, writer))
            else:
                missing.append(f"{request.id} ({stored})")
        if missing:
            raise cli.UserError(
                f"the response cache {setup.connection.cache} lacks {len(missing)} answers, such "
                f"as {'; '.join(missing[:5])}: run in live mode, or unpack the archive that holds "
                "them"
            )
        check_failures(header.purpose, writer.statuses, setup.failures)


def check_failures(purpose: str, statuses: Counter[str], limits: Failures) -> None:
    """Refuse to go on when more requests failed than the limits allow; tell how many did.

    A limit below 1 is a share of the requests, else a count. A latent that the model answered, but
    did not explain, stays without an explanation.

    Raises
    ------
    UserError
        With the number of each status, and what helps.
    """
    failed = Counter({status: n for status, n in statuses.items() if status not in GOOD})
    if purpose == "explain":
        silent = Counter({TRANSPORT_FAILED: failed.pop(TRANSPORT_FAILED, 0)})
        checks = [(silent, "max_failures", limits.max_failures)]
        checks += [(failed, "max_unexplained", limits.max_unexplained)]
    else:
        checks = [(failed, "max_failures", limits.max_failures)]
    total = statuses.total()
    for some, name, limit in checks:
        if some.total() > (limit * total if limit < 1 else limit):
            raise cli.UserError(explain_failures(purpose, some, total, name))
        if some.total():
            cli.log(f"warning: {explain_gaps(purpose, some, total, name)}")


@dataclass(frozen=True)
class Rest:
    """The requests that the cache does not answer, and where their answers go."""

    requests: Iterator[tuple[int, Request]]
    total: int
    """All requests of the file, those that the cache has answered included."""
    tally: CallTally
    writer: Writer


def _send(setup: Setup, rest: Rest) -> None:
    """Have the endpoint answer the rest."""
    key, host = read_key(setup.connection.key_env), setup.host
    headers = read_headers(setup.headers)
    cli.log(f"sending text of the study to {host}: up to {rest.total - rest.tally.done} requests")
    if setup.url.startswith("http://") and not is_loopback(setup.url):
        cli.log(f"warning: {host} is reached over plain http, so others can read key and texts")
    try:
        asyncio.run(_run(setup, key, headers, rest))
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


async def _run(setup: Setup, key: str, headers: dict[str, str], rest: Rest) -> None:
    policy, header = setup.policy, read_header(setup.requests)
    interrupted = asyncio.Event()
    async with Endpoint(setup.url, key, policy.calls.concurrency, headers) as endpoint:
        spend = SpendLog(setup.spend) if setup.spend else None
        sender = Sender(endpoint, policy, spend, rest.tally)
        caller = Caller(sender, setup.cache, header, setup.connection.key_env)

        def interrupt() -> None:
            sender.stop("interrupted")
            interrupted.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        progress = Progress(rest.total, "requests", rest.tally.done)

        def show(tally: CallTally, spent: Amount) -> None:
            progress.reach(tally.done, lambda: tally.text(spent))

        calls = asyncio.create_task(caller.run(rest.requests, rest.total, rest.writer.add, show))
        stopping = asyncio.create_task(interrupted.wait())
        await asyncio.wait({calls, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if interrupted.is_set():
            await sender.finish_calls(GRACE)
            await asyncio.wait({calls}, timeout=AFTER)
            calls.cancel()
            await asyncio.gather(calls, return_exceptions=True)
            raise InterruptedRunError(f"{rest.tally.done} of {rest.total} are answered")
        stopping.cancel()
        await calls
        spent = rest.tally.text(sender.budget.spent)
        cli.log(f"{rest.tally.done}/{rest.total} requests, {spent}")


def count_requests(path: Path) -> int:
    """Return the number of requests in a file."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines) - 1


def print_plan(setup: Setup) -> None:
    """Print what a run would send and cost; opens no socket."""
    header = read_header(setup.requests)
    plan = plan_requests(header, read_requests(setup.requests), setup.policy.prices)
    answers = StoredAnswers(setup.cache, setup.url, header, setup.policy.form)
    stored = answers.count(read_requests(setup.requests))
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
        print(f"no price is configured for {model}, so its cost is not known")


main = cli.command(call_llm)


if __name__ == "__main__":
    raise SystemExit(main())
