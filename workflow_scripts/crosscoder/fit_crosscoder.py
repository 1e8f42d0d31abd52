"""Fit one crosscoder: ``python -m workflow_scripts.crosscoder.fit_crosscoder --help``."""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, get_args

import torch
from torch import Tensor

from workflow_scripts.activations.controls import add_store_flags, open_store
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import set_threads
from workflow_scripts.common.precision import multiplies_bfloat16
from workflow_scripts.common.provenance import provenance
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.parallel import Processes, joined
from workflow_scripts.crosscoder.sparsity import Variant
from workflow_scripts.crosscoder.threshold import solve_threshold
from workflow_scripts.crosscoder.training import DivergedError, LogRow, Trainer, Training, fit

CHECKPOINT_SECONDS = 60.0
INITIAL_NORM = 0.1
CPU = torch.device("cpu")
ALONE = Processes()


def fit_crosscoder(
    store: ActivationStore,
    settings: Training,
    dictionary_size: int,
    seed: int,
    calibration_rows: int,
    folder: Path,
    checkpoint: Path,
    device: torch.device = CPU,
    processes: Processes = ALONE,
) -> None:
    """Fit a crosscoder on split ``fit`` and write it, with its training log, to ``folder``.

    ``checkpoint`` is written every minute and removed at the end; when there is one of this very
    fit, it goes on from there and, on a CPU, ends with the same bytes as an undisturbed one. Of
    several ``processes`` the first writes.

    Raises
    ------
    UserError
        If the split is smaller than one batch, the batch cannot be shared evenly, or the fit
        diverges: then the last good checkpoint is kept.
    """
    available = store.count("fit")
    if available < settings.batch:
        raise cli.UserError(
            f"the fit split has {available} usable tokens, fewer than one batch of "
            f"{settings.batch}: raise text.tokens or lower fits.*.batch"
        )
    if settings.batch % processes.count:
        raise cli.UserError(
            f"a batch of {settings.batch} cannot be shared by {processes.count} processes: make "
            "fits.*.batch a multiple of them"
        )
    models = len(store.models)
    weights = initial_weights(dictionary_size, models, store.width, seed, INITIAL_NORM)
    trainer = Trainer(weights.to(device), settings, processes)
    log_path = checkpoint.with_suffix(".csv")
    course = _course(store, settings, dictionary_size, seed)
    if checkpoint.exists():
        if trainer.restore(checkpoint, course):
            cli.log(f"continuing after step {trainer.done}")
        else:
            cli.log(f"{checkpoint} is of another fit: starting anew")
    try:
        _train(trainer, store, seed, log_path, checkpoint, course)
    except DivergedError as error:
        if processes.rank == 0 and not checkpoint.exists() and trainer.done:
            trainer.save(checkpoint, course)
        kept = f"; the last good checkpoint is {checkpoint}" if checkpoint.exists() else ""
        raise cli.UserError(f"{error}{kept}") from None
    if processes.rank:
        return
    threshold = 0.0
    if trainer.rule.solved:
        calibration = _calibration(store, settings.batch, calibration_rows)
        threshold = solve_threshold(trainer.weights, calibration, models, settings.k, trainer.costs)
    mean, scale = store.normalization()
    Crosscoder(
        models=list(store.models),
        weights=trainer.weights,
        threshold=threshold,
        costs=trainer.costs,
        mean=torch.from_numpy(mean).float(),
        scale=torch.from_numpy(scale).float(),
        k=settings.k,
        settings={
            "training": asdict(settings),
            "seed": seed,
            "layer": store.layer,
            "latents": dictionary_size,
            "width": store.width,
            "dropped": store.dropped("fit"),
            "provenance": provenance(__file__),
        },
    ).save(folder)
    files.write_text(folder / "training.csv", log_path.read_text(encoding="utf-8"))
    log_path.unlink()
    checkpoint.unlink(missing_ok=True)


def _course(
    store: ActivationStore, settings: Training, dictionary_size: int, seed: int
) -> dict[str, object]:
    """Return what decides a fit's course beside the activations: a checkpoint is of one alone."""
    mean, scale = store.normalization()
    digest = hashlib.sha256(mean.tobytes() + scale.tobytes()).hexdigest()
    return {
        "seed": seed,
        "latents": dictionary_size,
        "normalization": digest,
        "training": asdict(settings),
    }


def _train(
    trainer: Trainer,
    store: ActivationStore,
    seed: int,
    log_path: Path,
    checkpoint: Path,
    course: Mapping[str, object],
) -> None:
    """Run the remaining steps, appending to the log and leaving a checkpoint every minute."""
    settings = trainer.settings
    batches = (
        torch.from_numpy(x)
        for x in store.shuffled("fit", settings.batch, seed=seed, start_batch=trainer.done)
    )
    rows = fit(trainer, batches, len(store.models))
    if trainer.processes.rank:
        for _ in rows:
            pass
        return
    every = max(1, settings.steps // 200)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with _open_log(log_path, store.models, trainer.done) as file:
        saved = time.monotonic()
        for row in cli.progress(rows, total=settings.steps - trainer.done, desc="crosscoder"):
            if row.step % every == 0 or row.step == settings.steps:
                file.write(_line(row))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                file.flush()
                trainer.save(checkpoint, course)
                saved = time.monotonic()


def _open_log(path: Path, models: Sequence[str], done: int) -> TextIO:
    """Open the training log for appending, cut back to the lines of the first ``done`` steps."""
    header = (
        ["step", "tokens", "loss", "auxk_loss"]
        + [f"loss_{name}" for name in models]
        + [f"fve_{name}" for name in models]
        + ["l0", "dead_share", "learning_rate"]
    )
    kept = [",".join(header)]
    if done and path.exists():
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
        kept += [",".join(line) for line in lines if int(line[0]) <= done]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path.open("a", encoding="utf-8")


def _line(row: LogRow) -> str:
    values = [
        row.loss,
        row.auxk_loss,
        *row.loss_per_model,
        *row.fve_per_model,
        row.l0,
        row.dead_share,
        row.learning_rate,
    ]
    return ",".join([str(row.step), str(row.tokens), *(f"{v:.7g}" for v in values)]) + "\n"


def _calibration(store: ActivationStore, batch: int, limit: int) -> Iterator[Tensor]:
    seen = 0
    for rows, x in store.contiguous("calibration", batch):
        if seen >= limit:
            return
        seen += len(rows)
        yield torch.from_numpy(x)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_store_flags(parser)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--dictionary-size", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="tokens drawn in all")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warmup-share", type=float, default=0.05)
    parser.add_argument("--decay-share", type=float, default=0.2)
    parser.add_argument("--k-start", type=float, default=0.0, help="0: start at k")
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--dead-tokens", type=int, default=100_000)
    parser.add_argument("--k-aux", type=int, default=0, help="0: half the width")
    parser.add_argument("--auxk-weight", type=float, default=1 / 32)
    parser.add_argument("--variant", choices=get_args(Variant), default="batch_topk")
    parser.add_argument("--l1-price", type=float, default=0.0, help="μ of variant l1")
    parser.add_argument("--shared-share", type=float, default=0.0, help="of the latents")
    parser.add_argument("--shared-cost", type=float, default=0.5, help="others cost 1")
    parser.add_argument("--calibration-rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args(argv)

    def run() -> None:
        store = open_store(arguments)
        steps = max(1, arguments.tokens // arguments.batch)
        with joined(arguments.device) as (processes, device):
            set_threads(arguments.threads and max(1, arguments.threads // processes.count))
            # Codes are exact either way; where most are positive they cost as much as the product.
            rounded = multiplies_bfloat16(device) and arguments.variant != "l1"
            settings = Training(
                steps=steps,
                k=arguments.k,
                batch=arguments.batch,
                learning_rate=arguments.learning_rate,
                warmup_steps=round(steps * arguments.warmup_share),
                decay_share=arguments.decay_share,
                k_start=arguments.k_start or arguments.k,
                clip_norm=arguments.clip_norm,
                dead_tokens=arguments.dead_tokens,
                k_aux=arguments.k_aux or store.width // 2,
                auxk_weight=arguments.auxk_weight,
                variant=arguments.variant,
                l1_price=arguments.l1_price,
                shared=round(arguments.shared_share * arguments.dictionary_size),
                shared_cost=arguments.shared_cost,
                matmul="bfloat16" if rounded else "float32",
            )
            fit_crosscoder(
                store,
                settings,
                arguments.dictionary_size,
                arguments.seed,
                arguments.calibration_rows,
                arguments.output_dir,
                arguments.checkpoint,
                device,
                processes,
            )

    return cli.guarded(run)


if __name__ == "__main__":
    raise SystemExit(main())
