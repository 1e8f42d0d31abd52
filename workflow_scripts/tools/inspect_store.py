"""What is in the store: ``python -m workflow_scripts.tools.inspect_store [FILES] [--remove]``.

With dumps named, reads every chunk of them and compares it with its checksum; prints what each
holds and where it came from. Ends with 2 and a sentence if one is truncated, damaged, no dump, or
of a newer version.

Without files, lists what no config at hand refers to: entries of ``results/store``, and checkpoints
of fits, as an edit of settings or code leaves them behind. The configs at hand are those in
``config/`` and in the working directory, and those of ``--configs``. ``--remove`` removes the
entries of the store, and nothing else.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workflow_scripts.activations import FORMAT, VERSION
from workflow_scripts.activations.layout import Layer
from workflow_scripts.activations.store import read_index, read_norms
from workflow_scripts.common import cli, hdf5
from workflow_scripts.run.comparisons import difference_comparisons
from workflow_scripts.run.flags import Flags
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import STORE, Paths
from workflow_scripts.run.plan_run import human
from workflow_scripts.run.settings import Config

KEY = re.compile("[0-9a-f]{16}")
DOOMED = ".removed-"
CHECKPOINTS = "results/*/crosscoder/*/*/checkpoint-*.safetensors"


@dataclass(frozen=True)
class Unused:
    """What no config at hand refers to."""

    path: Path
    size: int
    """Bytes."""
    used: float
    """When a file of it was last read or written, as far as the file system says."""
    holds: str

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d", time.localtime(self.used))
        return f"  {self.path}  {human(self.size):>8}  last used {day}  {self.holds}"


def inspect_store(path: Path) -> Iterator[str]:
    """Yield lines that describe a dump; every byte of its rows is read.

    Raises
    ------
    UserError
        If the file is truncated, damaged, no dump, or of a newer version.
    """
    with hdf5.open_complete(path, FORMAT, VERSION) as file:
        version = int(file.attrs["format_version"])
        layers = sorted(int(n.removeprefix("layer")) for n in file if n.startswith("layer"))
        origin = json.loads(hdf5.get_text(file, "provenance"))
    index = read_index(path)
    rows = len(index.document)
    yield f"{path}: {FORMAT} version {version}, {path.stat().st_size:,} bytes"
    yield f"  {rows:,} rows of {len(np.unique(index.document)):,} documents"
    for number, split in enumerate(index.splits):
        yield f"  split {split}: {int((index.split == number).sum()):,} rows"
    for number in layers:
        layer = Layer.open(path, number)
        layer.verify()
        norms = read_norms(path, number)
        shown = np.quantile(norms, (0, 0.5, 1)) if rows else np.zeros(3)
        yield (
            f"  layer {number}: {layer.rows:,} x {layer.width} {layer.encoding} in "
            f"{len(layer.offsets)} chunks of {layer.chunk_rows} rows, checksums agree; norms "
            f"{shown[0]:.4g} to {shown[2]:.4g}, median {shown[1]:.4g}"
        )
    for name, value in sorted(origin.items()):
        yield f"  {name}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"


def configs_at_hand(given: Iterable[Path]) -> list[Path]:
    """Return the config files in ``config/`` and the working directory, and those given."""
    return sorted({*Path("config").glob("*.y*ml"), *Path().glob("*.y*ml"), *given})


def read_configs(paths: Iterable[Path]) -> list[Config]:
    """Return the settings of config files; a file of something else is passed over.

    So is a config that is not valid here, as where its files are missing, if its run has no
    results: then nothing was made for it.

    Raises
    ------
    UserError
        If another one cannot be read: what it refers to is not known.
    """
    configs = []
    for path in paths:
        raw: object = None
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(raw, dict) and "models" in raw:
                configs.append(load(raw))
        except (cli.UserError, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = f"{path} cannot be read ({cli.first_line(error)})"
            run = raw.get("run") if isinstance(raw, dict) else None
            if not run or Path("results", str(run)).exists():
                raise cli.UserError(
                    f"{reason}, so that what it needs of the store is not known: correct it, or "
                    "move it elsewhere"
                ) from None
            cli.log(f"{reason}; its run has no results, so that it needs nothing")
    return configs


def unused_entries(configs: Sequence[Config]) -> list[Unused]:
    """Return the entries of the store that no config refers to and no run's folder links to."""
    try:
        needed = {entry for config in configs for entry in Paths(config).store_entries()}
    except OSError as error:
        raise cli.UserError(
            f"{error.filename} cannot be read ({error.strerror}), so that what a config needs of "
            "the store is not known: put it back, or move the config elsewhere"
        ) from None
    store = Path(STORE)
    folders = [path for path in store.glob("*") if path.is_dir() and not path.is_symlink()]
    entries = {path for path in folders if KEY.fullmatch(path.name)}
    kept = {*needed, *_linked(store)}
    return [_described(path) for path in sorted(entries) if path.name not in kept]


def _linked(store: Path) -> Iterator[str]:
    """Yield the entries to which links in the runs' folders lead."""
    root = store.resolve()
    for stage in ("dataset", "models"):
        for path in store.parent.glob(f"*/{stage}/**/*"):
            target = path.resolve()
            if path.is_symlink() and root in target.parents:
                yield target.relative_to(root).parts[0]


def orphaned_checkpoints(configs: Sequence[Config]) -> list[Unused]:
    """Return the checkpoints of fits from which none of the configs' would go on."""
    current = set[str]()
    for config in configs:
        flags = Flags(Paths(config))
        fits = {name: fit for name, fit in config.fits.items() if fit.imported is None}
        current |= {flags.checkpoint(f, str(seed)) for f, fit in fits.items() for seed in fit.seeds}
        current |= set(map(flags.difference_checkpoint, difference_comparisons(config)))
    found = sorted(Path().glob(CHECKPOINTS))
    return [_described(path) for path in found if str(path) not in current]


def _described(path: Path) -> Unused:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    states = [file.lstat() for file in files] or [path.lstat()]
    names = {file.relative_to(path).parts[0] for file in files} if path.is_dir() else set()
    used = max(max(state.st_atime, state.st_mtime) for state in states)
    return Unused(path, sum(s.st_size for s in states), used, ", ".join(sorted(names)))


def report(configs: Sequence[Config], entries: Sequence[Unused]) -> Iterator[str]:
    """Yield lines about what no config refers to."""
    runs = ", ".join(sorted({config.run for config in configs})) or "none"
    yield f"configs at hand: those of the runs {runs}"
    total = human(sum(entry.size for entry in entries))
    yield f"entries of {STORE} that none of them refers to: {len(entries)}, {total}"
    yield from map(str, entries)
    checkpoints = orphaned_checkpoints(configs)
    total = human(sum(entry.size for entry in checkpoints))
    yield f"checkpoints from which none of their fits goes on: {len(checkpoints)}, {total}"
    yield from map(str, checkpoints)


def discard(entries: Iterable[Unused]) -> None:
    """Remove entries of the store, each at once: first it gets a name that no run looks for."""
    for entry in entries:
        entry.path.rename(entry.path.with_name(f"{DOOMED}{entry.path.name}"))
        cli.log(f"removed {entry.path}")
    for doomed in Path(STORE).glob(f"{DOOMED}*"):  # also what a killed attempt left
        shutil.rmtree(doomed)


def inspect_stores(
    files: tuple[Path, ...] = (),
    /,
    configs: tuple[Path, ...] = (),
    settings: dict[str, Any] | None = None,
    remove: bool = False,
) -> None:
    """Print what dumps hold, or without any what in the store no config at hand refers to.

    Parameters
    ----------
    files
        dumps (HDF5): every byte of their rows is compared with its checksum
    configs
        further config files whose entries are in use
    settings
        all settings of a run whose entries are in use (JSON)
    remove
        remove the entries of the store that are listed

    Raises
    ------
    UserError
        If a file is damaged, or a config cannot be read.
    """
    for path in files:
        for line in inspect_store(path):
            print(line, flush=True)
    if files:
        return
    known = read_configs(configs_at_hand(configs))
    known += [Config.model_validate(settings)] if settings else []
    entries = unused_entries(known)
    print("\n".join(report(known, entries)), flush=True)
    if remove:
        discard(entries)
        print(f"removed: {len(entries)} entries", flush=True)
    elif entries:
        print("DELETE=yes snakemake clean_store removes these entries, nothing else", flush=True)


main = cli.command(inspect_stores)


if __name__ == "__main__":
    raise SystemExit(main())
