"""kill -9, a full disk and a large shard: what is left, what is reported, what a rerun makes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.activations.synthetic import token_shard, write_tokens
from tests.models.random_models import write_model
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.tools.inspect_store import inspect_store

KILLED = """
import os, signal, sys
from workflow_scripts.activations import dump_activations as step, layout
step.HELD_BYTES = 1 << 18
written = layout.LayerWriter.write
def write(self, *arguments):
    written(self, *arguments)
    if self.done > 2000:
        os.kill(os.getpid(), signal.SIGKILL)
layout.LayerWriter.write = write
step.main(sys.argv[1:])
"""
SMALL = """
import sys
from workflow_scripts.activations import dump_activations as step
step.HELD_BYTES = 1 << 18
raise SystemExit(step.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two token shards, of 1,500 and 9,000 tokens."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "llama")
    write_tokens(folder / "shard000.h5", token_shard([30] * 50))
    write_tokens(folder / "shard001.h5", token_shard([30] * 300, 50, seed=1))
    return folder


def dump(
    program: str, inputs: Path, output: Path, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Dump the shard that ``output`` names, in a process of its own."""
    flags = ["--model", inputs / "llama" / "model.json", "--tokens", inputs / output.name]
    more = ["--layers", "1", "2", "3", "--dtype", "float32", "--threads", "1", "--output", output]
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, flags + more)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_dump_leaves_nothing_that_a_rerun_keeps(inputs: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "a" / "shard001.h5", tmp_path / "b" / "shard001.h5"
    assert dump(SMALL, inputs, undisturbed).returncode == 0
    assert dump(KILLED, inputs, killed).returncode == -signal.SIGKILL
    left = [path.name for path in killed.parent.iterdir()]
    assert len(left) == 1
    assert left[0].endswith(".part")
    assert not killed.exists()
    assert dump(SMALL, inputs, killed).returncode == 0
    assert [path.name for path in killed.parent.iterdir()] == ["shard001.h5"]
    assert killed.read_bytes() == undisturbed.read_bytes()


def test_a_full_disk_is_told_and_keeps_finished_shards(inputs: Path, tmp_path: Path) -> None:
    """A limit on the size of files, between the sizes of the two shards."""
    first, second = (tmp_path / f"shard00{n}.h5" for n in (0, 1))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    assert dump(SMALL, inputs, first, limit).returncode == 0
    finished = first.read_bytes()
    done = dump(SMALL, inputs, second, limit)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "shard001.h5" in told[0]
    assert "make room and run again: what is finished is kept" in told[0]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shard000.h5"]
    assert first.read_bytes() == finished
    assert dump(SMALL, inputs, second).returncode == 0
    assert any("9,000 rows of 300 documents" in line for line in inspect_store(second))


# The peak of resource.getrusage is that of the parent too, before it became another program.
MEASURED = """
import re, sys
from pathlib import Path
from workflow_scripts.activations import dump_activations as step
step.HELD_BYTES = 1 << 20
code = step.main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
raise SystemExit(code)
"""


def test_memory_does_not_grow_with_the_shard(inputs: Path, tmp_path: Path) -> None:
    """Ten times the tokens: only what is known of each token grows, by less than 100 bytes."""
    peaks, tokens = [], (40_000, 400_000)
    for number, count in enumerate(tokens, start=2):
        name = f"shard00{number}.h5"
        write_tokens(inputs / name, token_shard([50] * (count // 50)))
        done = dump(MEASURED, inputs, tmp_path / name)
        assert done.returncode == 0, done.stderr
        peaks.append(1024 * int(done.stdout.split()[-1]))
    written = np.diff([(tmp_path / f"shard00{n}.h5").stat().st_size for n in (2, 3)])[0]
    index = 100 * (tokens[1] - tokens[0])
    assert peaks[1] - peaks[0] < index < 0.6 * written, (peaks, written)
