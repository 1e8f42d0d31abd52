"""How far are the weights of two models apart, tensor by tensor? ``weights/<comparison>.csv``.

No text is read and no model run: tensors are read one at a time from the safetensors files. The
effective rank of a change ΔW with singular values σ is (Σσ²)² / Σσ⁴, the participation ratio of
σ²: 1 where it writes one direction, the smaller side where it writes all of them equally.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from workflow_scripts.common import cli
from workflow_scripts.common.device import Compute
from workflow_scripts.common.manifest import Manifest, adapter_folder, model_folder
from workflow_scripts.common.progress import track
from workflow_scripts.common.tables import write_csv
from workflow_scripts.models.loading import load_model
from workflow_scripts.models.settings import WeightComparison
from workflow_scripts.models.weight_changes import COLUMNS, place_of
from workflow_scripts.models.weights import weight_files

ITERATIONS = 30
"""Of the power method for the largest singular value."""
Reader = Callable[[], Tensor]


def compare_weights(
    baseline: Path,
    candidate: Path,
    how: WeightComparison,
    compute: Compute,
    output: Path,
) -> None:
    """Write how far each tensor of two models is apart.

    Tensors that only one of them has, or in another shape, are left out and counted in the log.

    Parameters
    ----------
    baseline, candidate
        manifests of the two models
    output
        table to write, a row per tensor (CSV)
    """
    device = compute.start()
    rows = []
    with tensors(baseline) as before, tensors(candidate) as after, torch.no_grad():
        shared = [name for name in before if name in after]
        left_out = len(before) + len(after) - 2 * len(shared)
        for name in track(shared, "tensors"):
            w, v = (side[name]().to(device, torch.float32) for side in (before, after))
            if w.shape == v.shape:
                rows.append(change(name, w, v - w, how.weight_changes == "spectrum"))
            else:
                left_out += 2
    if left_out:
        cli.log(f"{left_out} tensors have no counterpart of equal shape in the other model")
    sides = {"baseline": Manifest.read(baseline).name, "candidate": Manifest.read(candidate).name}
    write_csv(output, [{**sides, **row} for row in rows], COLUMNS)


@contextmanager
def tensors(manifest: Path) -> Iterator[Mapping[str, Reader]]:
    """Give the readers of a model's tensors by name; one with an adapter is merged in memory."""
    if adapter_folder(manifest) is not None:
        state = load_model(manifest, torch.float32, torch.device("cpu")).state_dict()
        yield {name: (lambda tensor=tensor: tensor) for name, tensor in state.items()}  # type: ignore[misc]
        return
    where = f"model {Manifest.read(manifest).name}"
    with ExitStack() as stack:
        readers: dict[str, Reader] = {}
        for path in weight_files(where, model_folder(manifest)):
            file = stack.enter_context(safe_open(path, framework="pt"))
            readers |= {
                name: (lambda file=file, name=name: file.get_tensor(name))
                for name in file.keys()  # noqa: SIM118 - it is no mapping
            }
        yield readers


def change(name: str, w: Tensor, delta: Tensor, spectrum: bool) -> dict[str, object]:
    """Return a tensor's row of the table: its norm, its change, and the spectrum of that."""
    layer, module = place_of(name)
    norm, moved = float(w.norm()), float(delta.norm())
    rank, leading = math.nan, math.nan
    if spectrum and delta.ndim == 2 and moved > 0:
        rank, leading = effective_rank(delta)
    values = (name, layer, module, w.numel(), norm, moved, moved / norm if norm else math.nan)
    least = min(delta.shape) if delta.ndim == 2 else ""
    return dict(zip(COLUMNS[2:], (*values, rank, leading, least), strict=True))


def effective_rank(delta: Tensor) -> tuple[float, float]:
    """Return (Σσ²)² / Σσ⁴ of a matrix, and the largest σ² as a share of Σσ².

    Both follow from the Gram matrix of the smaller side, without a decomposition.
    """
    scaled = delta / delta.norm()
    gram = scaled @ scaled.T if delta.shape[0] <= delta.shape[1] else scaled.T @ scaled
    vector = gram[:, gram.diagonal().argmax()]
    for _ in range(ITERATIONS):
        vector = gram @ (vector / vector.norm())
    return float(1 / gram.square().sum()), float(vector.norm())


main = cli.command(compare_weights)


if __name__ == "__main__":
    raise SystemExit(main())
