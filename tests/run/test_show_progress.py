"""The terminal repeats how far running steps are, each line once."""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.run.show_progress import latest, new_lines


def test_new_lines_are_repeated_once(tmp_path: Path) -> None:
    fit, dump, waiting = (tmp_path / f"{name}.log" for name in ("fit", "dump", "waiting"))
    fit.write_text("[12:00:00] device: cpu\n[12:00:10] 5 of 9 steps, 0.5/s, 8 s left, loss 0.3\n")
    dump.write_text("[12:00:00] 3 of 4 tokens, 1/s, 1 s left\n")
    logs = {"fit_crosscoder a": fit, "dump_activations b": dump, "score_latents": waiting}
    shown = {"dump_activations b": latest(dump)}  # an earlier run's
    assert list(new_lines(logs, shown)) == [
        "  fit_crosscoder a: 5 of 9 steps, 0.5/s, 8 s left, loss 0.3"
    ]
    assert list(new_lines(logs, shown)) == []
    with dump.open("a") as file:
        file.write("[12:00:15] 4 of 4 tokens, 1/s, 0 s left\nwarning: of a library\n")
    assert list(new_lines(logs, shown)) == ["  dump_activations b: 4 of 4 tokens, 1/s, 0 s left"]


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    log.write_bytes(b"\xff" * 10_000 + b"\n[12:00:10] 1,000 tokens, 12/s\n")
    assert latest(log) == "1,000 tokens, 12/s"
