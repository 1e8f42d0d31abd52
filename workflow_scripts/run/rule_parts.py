"""Parts that several rules share: dictionaries that a rule unpacks into a directive.

The Snakefile uses this module; no step does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from snakemake.io import report

from workflow_scripts.common.provenance import PACKAGE
from workflow_scripts.paper.settings import Paper
from workflow_scripts.run import resources, store_keys
from workflow_scripts.run.flags import flags
from workflow_scripts.run.settings import Config

ByWildcards = Callable[[Any], Any]
FIGURES = "<results>/figures"
CAPTION = "captions/figure.rst"  # what `snakemake --report` shows of a figure


def step(name: str) -> dict[str, str]:
    """Return the params of every rule: the module that runs, and its code's digest.

    So an edit of the code redoes its jobs. ``name`` is ``stage.verb_object``.
    """
    return {"step": f"{PACKAGE}.{name}", "code": store_keys.step_digest(name)}


def sized(config: Config) -> dict[str, Callable[..., int]]:
    """Return the memory and time that a job requests, by its rule; twice as much if repeated."""

    def requested(resource: str) -> Callable[..., int]:
        def request(wildcards: object, attempt: int, rulename: str) -> int:
            first: int = getattr(resources.request(config, rulename), resource)
            return int(first * 2 ** (attempt - 1))

        return request

    return {"mem_mb": requested("mem_mb"), "runtime": requested("runtime")}


def untracked(settings: Any, *names: str | type[BaseModel]) -> Callable[..., list[str]]:
    """Return flags that affect speed, not results; changing them triggers no rerun.

    Snakemake does not track params that depend on ``threads``.
    """
    return lambda wildcards, threads: flags(settings, *names)


def for_fit(function: Callable[[str], Any]) -> ByWildcards:
    """Return an input or params function: what ``function`` returns for a job's fit."""
    return lambda wildcards: function(wildcards.fit)


def for_comparison(function: Callable[[str], Any]) -> ByWildcards:
    """Return the same for a job's comparison."""
    return lambda wildcards: function(wildcards.comparison)


def one_of(names: Iterable[str]) -> str:
    """Return the expression of a wildcard that is one of some names, so that no other file fits."""
    return "|".join(names) or "-"


def shard_number(wildcards: Any) -> int:
    """Return the number of a job's shard."""
    return int(wildcards.shard.removeprefix("shard"))


def folder_of(file: str | int = 0) -> Callable[..., str]:
    """Return a params function: the folder of an output, by its name or place."""
    return lambda wildcards, output: str(Path(_file(output, file)).parent)


def folder_of_input(file: str) -> Callable[..., str]:
    """Return a params function: the folder of an input, by its name."""
    return lambda wildcards, input: str(Path(_file(input, file)).parent)


def _file(files: Any, name: str | int) -> str:
    file = files[name] if isinstance(name, int) else getattr(files, name)
    return str(file if isinstance(file, str) else file[0])


def paper_of(config: Config) -> Paper:
    """Return the settings of the published study, or stop where the config has none."""
    if config.paper is None:
        raise SystemExit(
            f"error: the config of run {config.run} has no published study: "
            "use snakemake --configfile config/paper.yaml reproduce_paper"
        )
    return config.paper


def figure(name: str, category: str, label: str) -> dict[str, str]:
    """Return the output of a figure; ``snakemake --report`` lists it by category and label."""
    wildcards = re.findall(r"{(\w+)}", name)
    labels = {"figure": label} | {wildcard: f"{{{wildcard}}}" for wildcard in wildcards}
    png = report(f"{FIGURES}/{name}.png", caption=CAPTION, category=category, labels=labels)
    return {"png": png, "pdf": f"{FIGURES}/{name}.pdf", "table": f"{FIGURES}/{name}.csv"}


def named_inputs(wildcards: object, input: Mapping[str, str | list[str]]) -> list[str]:
    """Return the inputs of a job as flags of their names; those without files are left out."""
    files = {name: [file] if isinstance(file, str) else file for name, file in input.items()}
    return [word for name, paths in files.items() if paths for word in (f"--{name}", *paths)]
