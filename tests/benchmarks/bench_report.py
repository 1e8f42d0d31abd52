"""The report's page of a crosscoder with 100,000 latents in a real browser: size and times.

``python -m tests.benchmarks.bench_report`` (part of ``make bench``); needs Chromium, or root on
Debian to install it.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.report import Figure, at_most, record
from tests.comparison import run_folder
from tests.debian import can_install
from tests.figures.browser import Page, browse, chromium
from tests.figures.conftest import compared, write_causes
from tests.figures.test_report import made_report

LATENTS = 100_000
COUNT = "document.querySelector('#count').textContent"


def big_page(folder: Path) -> Path:
    """Return a page whose direct crosscoder has so many latents, 10 of which are dead."""
    run = run_folder.make_run(folder / "run")
    compared(run)
    write_causes(run)
    small, run_folder.LATENTS = run_folder.LATENTS, LATENTS
    rng = np.random.default_rng(0)
    run_folder.write_fit(run, "it_simpo", ("it", "simpo"), 0, rng, run_folder.PIECES, "words")
    run_folder.LATENTS = small
    return made_report(run, folder)


def answered(browser: Page, element: str, value: str, wanted: str) -> float:
    """Return the seconds from a change of a control until the count of rows shows ``wanted``."""
    started = time.perf_counter()
    browser.type(element, value)
    browser.wait_for(f"{COUNT}.startsWith({json.dumps(wanted)})", 30)
    return time.perf_counter() - started


def measure(page: Path) -> list[Figure]:
    """Return size and times."""
    with browse() as browser:
        started = time.perf_counter()
        browser.open(page.as_uri())
        browser.wait_for(f"/^\\d/.test({COUNT})")
        loaded = time.perf_counter() - started
        browser.type("fit", "2")
        browser.wait_for(f"{COUNT}.includes('all {LATENTS - 10} are in')")
        everything = str(browser.evaluate(COUNT)).split(maxsplit=1)[0]
        times = []
        for _ in range(3):
            times.append(answered(browser, "search", "no such word", "0"))
            times.append(answered(browser, "search", "", everything))
    name = "report"
    return [
        at_most(name, "page of 100,000 latents", page.stat().st_size / 1e6, "MB", 25),
        at_most(name, "load until interactive", loaded, "s", 2.0),
        at_most(name, "slowest filter", max(times), "s", 0.1),
    ]


if __name__ == "__main__":
    if chromium() is None and not can_install():
        raise SystemExit("error: there is no Chromium, and only root can install it")
    with tempfile.TemporaryDirectory() as folder:
        record(measure(big_page(Path(folder))))
