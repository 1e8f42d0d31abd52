"""Checks that a run makes when it starts and a dry run does not: pins, keys, local models."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from workflow_scripts.common.cli import UserError, log
from workflow_scripts.dataset.hub import check_access
from workflow_scripts.dataset.settings import HubSource
from workflow_scripts.run.check_endpoint import check_endpoint, warn_of_silence
from workflow_scripts.run.local_models import (
    check_tokenizers,
    check_weights,
    warn_of_libraries,
    warn_of_memory,
    warn_of_twins,
)
from workflow_scripts.run.paths import Paths
from workflow_scripts.run.plan_run import check_disk, llm_calls
from workflow_scripts.run.settings import Config

COMMIT = re.compile(r"[0-9a-f]{40}")
MANY_CALLS = 50_000
"""Planned calls to an LLM from which a cap is asked for."""


def refuse_early(
    config: Config, dumps: Collection[Path] | None = None, *, calls: bool = True
) -> None:
    """Refuse what would stop the run later.

    ``dumps`` are those that it will make, ``calls`` is whether it will call an annotator: only then
    are its endpoint and key looked at.

    Raises
    ------
    UserError
        If a hub revision is no commit, a hub refuses a data set, very many calls to an LLM have no
        cap, an annotator's endpoint or key is missing, a published crosscoder cannot be had or does
        not fit, local models have weights that are not their architecture's or tokenizers in
        conflict, or the disk is too small.
    """
    check_pins(config)
    check_sources(config)
    llm = config.autointerp.llm
    if calls and config.autointerp.annotator == "llm" and llm is not None:
        check_cap(config)
        check_endpoint(llm, llm.headers)
        if llm.mode == "live":
            warn_of_silence(llm.base_url)
        if len(llm.annotators) * llm.replicates < 2:
            log(
                "warning: one annotator answers once, so that nothing tells how reliable its names "
                "are: add another to autointerp.llm.annotators"
            )
    check_imports(config)
    check_weights(config)
    check_tokenizers(config)
    check_disk(config, dumps)
    warn_of_twins(config)
    warn_of_memory(config)
    warn_of_libraries(config, dumps or ())


def check_cap(config: Config) -> None:
    """Ask for a cap where very many calls to an LLM are planned: nobody should pay by surprise."""
    llm = config.autointerp.llm
    if config.autointerp.annotator != "llm" or llm is None or llm.mode != "live":
        return
    calls = sum(planned.calls for planned in llm_calls(config).values())
    if calls > MANY_CALLS and (llm.max_requests, llm.max_tokens, llm.max_cost) == (None,) * 3:
        raise UserError(
            f"config: the plan has some {calls:,} calls to an LLM and no cap: set "
            "autointerp.llm.max_requests, or max_cost with prices"
        )


def check_pins(config: Config) -> None:
    """Check that what comes from a hub is pinned: a branch would change under the run."""
    named: dict[str, tuple[str | None, str | None]] = {
        f"models.{n}.revision": (m.hub, m.revision) for n, m in config.models.items() if m.hub
    }
    for name, model in config.models.items():
        if model.adapter_revision is not None:
            named[f"models.{name}.adapter_revision"] = (model.adapter, model.adapter_revision)
    for name, fit in config.fits.items():
        if fit.imported is not None and fit.imported.hub:
            named[f"fits.{name}.imported.revision"] = (fit.imported.hub, fit.imported.revision)
    for name, source in config.text.sources.items():
        if isinstance(source, HubSource) and not Path(source.path).is_dir():
            named[f"text.sources.{name}.revision"] = (source.path, source.revision)
    for place, (hub, revision) in named.items():
        if not COMMIT.fullmatch(revision or ""):
            raise UserError(
                f"config: {place} is {revision}, which may change: put the commit of "
                f"{hub} (40 hex digits) in its place, by python -m "
                "workflow_scripts.tools.pin_revisions and the config's path"
            )


def check_imports(config: Config) -> None:
    """Fetch and open published crosscoders, which are needed only after the dumps."""
    chosen = {name: fit for name, fit in config.fits.items() if fit.imported is not None}
    if not chosen:
        return
    from workflow_scripts.crosscoder.import_crosscoder import open_published, read_published

    for name, fit in chosen.items():
        assert fit.imported is not None
        models = read_published(open_published(fit.imported)).shape[0]
        if models != len(fit.models):
            raise UserError(
                f"config: fits.{name} has {len(fit.models)} models, its imported crosscoder "
                f"{models}: name the models that it was fitted on"
            )


def check_sources(config: Config) -> None:
    """Check that the hub gives the data sets that are still to be read."""
    for name, source in config.text.sources.items():
        if not isinstance(source, HubSource) or Path(source.path).is_dir() or _drawn(config):
            continue
        try:
            check_access(source.path)
        except UserError as error:
            raise UserError(f"config: text.sources.{name}: {error}") from None


def _drawn(config: Config) -> bool:
    """Return whether all documents lie in the store."""
    return all(Path(file).exists() for file in Paths(config).documents)
