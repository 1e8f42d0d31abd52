"""Fit one crosscoder; a killed fit continues from its checkpoint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import torch
from jaxtyping import Float
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute, set_threads
from workflow_scripts.common.precision import hasten_products, multiplies_bfloat16, rounds_factors
from workflow_scripts.common.progress import track
from workflow_scripts.common.provenance import provenance
from workflow_scripts.crosscoder.model import Crosscoder, initial_weights
from workflow_scripts.crosscoder.parallel import ALONE, Processes, joined
from workflow_scripts.crosscoder.settings import Training
from workflow_scripts.crosscoder.threshold import solve_threshold
from workflow_scripts.crosscoder.training import DivergedError, LogRow, Trainer, fit
from workflow_scripts.crosscoder.tying import SharedLatents

CHECKPOINT_SECONDS = 60.0
CHECKPOINT_SHARE = 0.05
"""Most of the time that goes into checkpoints: a large one takes minutes."""
LINES = 200
"""Lines of the training log: to read a step's figures is to wait for the device."""
INITIAL_NORM = 0.1
CPU = torch.device("cpu")


def fit_crosscoder(
    inputs: StoreInputs,
    training: Training,
    seed: int,
    compute: Compute,
    checkpoint: Path,
    output_dir: Path,
) -> None:
    """Fit a crosscoder on the split ``fit``; write it and its training log.

    Parameters
    ----------
    seed
        seed of the initial weights and of the order of the tokens
    checkpoint
        file for the state of an unfinished fit, from which the next attempt goes on
    output_dir
        folder to write crosscoder.safetensors, crosscoder.json and training.csv to
    """
    store = inputs.open()
    with joined(compute.device) as (processes, device), torch.no_grad():
        cli.log(f"device: {device}")
        set_threads(compute.threads and max(1, compute.threads // processes.count))
        hasten_products(device)
        fit_store(store, training, seed, output_dir, checkpoint, device, processes)


def fit_store(
    store: ActivationStore,
    settings: Training,
    seed: int,
    folder: Path,
    checkpoint: Path,
    device: torch.device = CPU,
    processes: Processes = ALONE,
) -> None:
    """Fit a crosscoder on split ``fit`` and write it, with its training log, to ``folder``.

    ``checkpoint`` is written every minute, a large one less often, and removed at the end; when
    there is one of this very fit, it goes on from there and, on a CPU, ends with the same bytes as
    an undisturbed one. Of several ``processes`` each fits its latents, and the first writes.

    Raises
    ------
    UserError
        If the split is smaller than one batch, the batch cannot be shared evenly, or the fit
        diverges: then the last good checkpoint is kept.
    """
    _check_batch(store, settings.batch, processes)
    origin = provenance(__file__)  # the code may change while the fit runs
    latents = settings.dictionary_size
    weights = initial_weights(
        latents, len(store.models), store.width, seed, INITIAL_NORM, processes.latents(latents)
    )
    # Codes are exact either way; where most are positive they cost as much as the product.
    fast = multiplies_bfloat16(device) if device.type == "cuda" else rounds_factors()
    rounded = fast and settings.variant != "l1"
    weights = weights.map(lambda tensor: tensor.to(device))
    trainer = Trainer(weights, settings, processes, torch.bfloat16 if rounded else torch.float32)
    log_path = checkpoint.with_suffix(".csv")
    course = _course(store, trainer, seed)
    if checkpoint.exists():
        if trainer.restore(checkpoint, course):
            cli.log(f"continuing after step {trainer.done}")
        else:
            cli.log(f"{checkpoint} is of another fit: starting from scratch")
    try:
        _train(trainer, store, seed, log_path, checkpoint, course)
    except DivergedError as error:
        if trainer.done and not processes.first_says(checkpoint.exists()):
            trainer.save(checkpoint, course)
        kept = f"; the last good checkpoint is {checkpoint}" if checkpoint.exists() else ""
        raise cli.UserError(f"{error}{kept}") from None
    threshold = 0.0
    if trainer.rule.solved:
        calibration = _calibration(store, settings.batch, settings.calibration_rows)
        threshold = solve_threshold(
            trainer.weights, calibration, settings.k, trainer.costs, processes
        )
    fitted = trainer.whole_weights()
    if fitted is None:
        return
    mean, scale = store.normalization()
    Crosscoder(
        models=list(store.models),
        weights=fitted,
        threshold=threshold,
        costs=SharedLatents(settings.shared, settings.shared_cost).costs(latents),
        mean=torch.from_numpy(mean).float(),
        scale=torch.from_numpy(scale).float(),
        k=settings.k,
        settings={
            "training": trainer.recorded(),
            "seed": seed,
            "layer": store.layer,
            "latents": latents,
            "width": store.width,
            "dropped": store.dropped("fit"),
            "provenance": origin,
        },
    ).save(folder)
    files.write_text(folder / "training.csv", log_path.read_text(encoding="utf-8"))
    log_path.unlink()
    checkpoint.unlink(missing_ok=True)


def _check_batch(store: ActivationStore, batch: int, processes: Processes) -> None:
    available = store.count("fit")
    if available < batch:
        raise cli.UserError(
            f"the fit split has {available} usable tokens, fewer than one batch of "
            f"{batch}: raise text.tokens or lower fits.*.batch"
        )
    if batch % processes.count:
        raise cli.UserError(
            f"a batch of {batch} cannot be shared by {processes.count} processes: make "
            "fits.*.batch a multiple of them"
        )


def _course(store: ActivationStore, trainer: Trainer, seed: int) -> dict[str, object]:
    """Return what decides a fit's course beside the activations: a checkpoint is of one alone."""
    mean, scale = store.normalization()
    digest = hashlib.sha256(mean.tobytes() + scale.tobytes()).hexdigest()
    return {"seed": seed, "normalization": digest, "training": trainer.recorded()}


def _train(
    trainer: Trainer,
    store: ActivationStore,
    seed: int,
    log_path: Path,
    checkpoint: Path,
    course: Mapping[str, object],
) -> None:
    """Run the remaining steps, appending to the log and leaving a checkpoint now and then."""
    settings = trainer.settings
    every = max(1, settings.steps // LINES)
    batches = store.shuffled(
        "fit",
        settings.batch,
        seed=seed,
        start_batch=trainer.done,
        device=trainer.weights.device,
        part=trainer.processes.tokens(settings.batch),
    )
    first = trainer.processes.rank == 0
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    opened = _open_log(log_path, store.models, trainer.done) if first else nullcontext()
    with opened as file:
        saved, pause = time.monotonic(), CHECKPOINT_SECONDS
        outcomes = fit(trainer, batches)
        row: LogRow | None = None
        # What is noted is the last line of the log: to read another would be to wait.
        shown = track(outcomes, "steps", settings.steps, trainer.done, note=lambda _: noted(row))
        for outcome in shown if first else outcomes:
            if outcome.step % every == 0 or outcome.step == settings.steps:
                row = outcome.row()
                if file is not None:
                    file.write(_line(row))
            if trainer.processes.first_says(time.monotonic() - saved > pause):
                trainer.check()
                if file is not None:
                    file.flush()
                started = time.monotonic()
                trainer.save(checkpoint, course)
                saved = time.monotonic()
                pause = max(CHECKPOINT_SECONDS, (saved - started) / CHECKPOINT_SHARE)


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
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        kept += [line for line in lines if int(line.split(",")[0]) <= done]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path.open("a", encoding="utf-8")


def noted(row: LogRow | None) -> str:
    """Return how a fit goes, in words."""
    if row is None:
        return ""
    fve = " ".join(f"{value:.3f}" for value in row.fve_per_model)
    return f"loss {row.loss:.4g}, FVE {fve}, L0 {row.l0:.1f}, dead {100 * row.dead_share:.1f} %"


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


def _calibration(
    store: ActivationStore, batch: int, limit: int
) -> Iterator[Float[Tensor, "B M D"]]:
    seen = 0
    for rows, x in store.contiguous("calibration", batch):
        if seen >= limit:
            return
        seen += len(rows)
        yield torch.from_numpy(x)


main = cli.command(fit_crosscoder)


if __name__ == "__main__":
    raise SystemExit(main())
