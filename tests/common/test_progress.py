"""Long steps say how far they are: at most a line every 15 seconds, and none in short ones."""

from __future__ import annotations

import time

import pytest

from workflow_scripts.common.progress import LINE, track


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def lines(err: str) -> list[str]:
    """Return the lines as a terminal repeats them."""
    found = [LINE.fullmatch(line) for line in err.splitlines()]
    return [match[1] if match else "another line" for match in found]


def test_a_line_every_fifteen_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for step in track(range(40, 100), "steps", 100, 40, note=lambda step: f"loss {step / 100}"):
        clock.now = 1.0 * (step - 39)
    assert lines(capsys.readouterr().err) == [
        "50 of 100 steps, 1/s, 50 s left, loss 0.49",
        "65 of 100 steps, 1/s, 35 s left, loss 0.64",
        "80 of 100 steps, 1/s, 20 s left, loss 0.79",
        "95 of 100 steps, 1/s, 5 s left, loss 0.94",
    ]


def test_sizes_and_an_unknown_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    batches = iter([["a"] * 4000] * 3)
    for _ in track(batches, "documents", size=len):
        clock.now += 9.0
    assert lines(capsys.readouterr().err) == ["8,000 documents, 444/s"]


def test_slow_steps_have_hours_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track([0] * 50, "latents"):
        clock.now += 1000.0
        if clock.now > 1500:
            break
    assert lines(capsys.readouterr().err) == ["1 of 50 latents, 0.0010/s, 13.6 h left"]


def test_short_steps_are_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track([1, 2, 3], "files"):
        clock.now += 3.0
    assert capsys.readouterr().err == ""
