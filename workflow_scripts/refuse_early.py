"""Checks that a run makes when it starts and a dry run does not: pins, keys, tokenizers."""

from __future__ import annotations

import re
from pathlib import Path

from workflow_scripts.autointerp.check_endpoint import check_endpoint
from workflow_scripts.cli import UserError
from workflow_scripts.config import Config, HubSource

COMMIT = re.compile(r"[0-9a-f]{40}")


def refuse_early(config: Config) -> None:
    """Refuse what would stop the run later.

    Raises
    ------
    UserError
        If a hub revision is no commit, a source is not at hand, an annotator's endpoint or key is
        missing, or local models have tokenizers in conflict.
    """
    check_pins(config)
    check_sources(config)
    llm = config.autointerp.llm
    if config.autointerp.annotator == "llm" and llm is not None:
        check_endpoint("llm", llm.base_url, llm.key_env, llm.mode, Path(llm.cache))
    check_tokenizers(config)


def check_pins(config: Config) -> None:
    """Check that what comes from a hub is pinned: a branch would change under the run."""
    named = {f"models.{n}": (m.hub, m.revision) for n, m in config.models.items() if m.hub}
    for name, source in config.text.sources.items():
        if isinstance(source, HubSource):
            named[f"text.sources.{name}"] = (source.path, source.revision)
    for place, (hub, revision) in named.items():
        if not COMMIT.fullmatch(revision or ""):
            raise UserError(
                f"config: {place}.revision is {revision}, which may change: put the commit of "
                f"{hub} (40 hex digits) in its place, by python -m "
                "workflow_scripts.models.pin_revisions and the config's path"
            )


def check_sources(config: Config) -> None:
    """Check that the documents can be read: data sets of a hub can be planned with only."""
    for name, source in config.text.sources.items():
        if isinstance(source, HubSource):
            raise UserError(
                f"config: text.sources.{name} is the hub's {source.path}, which this version plans "
                "with but does not fetch: export it to JSONL or Parquet and name the file"
            )


def check_tokenizers(config: Config) -> None:
    """Check that the tokenizers of models in local folders agree."""
    folders = {name: model.path for name, model in config.models.items() if model.path}
    if len(folders) < 2:
        return
    from transformers import AutoTokenizer

    from workflow_scripts.dataset.vocabularies import check_agreement

    check_agreement(
        {
            name: AutoTokenizer.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=config.models[name].trust_remote_code,
            )
            for name, folder in folders.items()
        }
    )
