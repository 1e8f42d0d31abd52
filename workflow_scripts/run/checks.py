"""Checks of a run's settings against each other and against files, before any work.

Each raises a UserError with one sentence that names the culprit and the remedy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.labellers import LEXICAL, LLM, SOURCE, TOPICS, TRUE
from workflow_scripts.common.taxonomy import load_taxonomy
from workflow_scripts.dataset.local_files import absence, check_readable, matches, patterns
from workflow_scripts.dataset.settings import FileSource, RecordSource
from workflow_scripts.paper.published import read_study
from workflow_scripts.run.comparisons import labellers
from workflow_scripts.run.fit_checks import check_comparisons, check_fits
from workflow_scripts.run.model_checks import check_folders, check_layers, check_models
from workflow_scripts.run.name_checks import check_names
from workflow_scripts.run.settings import Config


def check_text(config: Config) -> None:
    """Check that there are sources, and their files."""
    if not config.text.sources:
        raise UserError("config: text.sources is empty: name at least one source")
    for name, source in config.text.sources.items():
        if isinstance(source, FileSource):
            _check_files(f"config: text.sources.{name}", source)


def check_labellers(config: Config) -> None:
    """Check that no column of labels has the name of other labels, and that somebody answers."""
    llm = config.autointerp.llm
    taken = {TRUE, LEXICAL, SOURCE, TOPICS, LLM, *(llm.annotators if llm else ())}
    for name, source in config.text.sources.items():
        columns = source.label_columns if isinstance(source, RecordSource) else []
        for column in columns:
            if column in taken:
                raise UserError(
                    f"config: text.sources.{name}.category_column: {column!r} is the name of other "
                    "labels in the results: rename the column in the data"
                )
    known = labellers(config)
    if config.comparison.labeller is not None and config.comparison.labeller not in known:
        raise UserError(
            f"config: comparison.labeller: no document has labels by {config.comparison.labeller}: "
            f"choose from {', '.join(known)}"
        )


def check_splits(config: Config) -> None:
    """Check the template, the control tokens, the sizes of rows and shards, and the splits."""
    text = config.text
    for name, share in text.splits:
        if share == 0:
            raise UserError(f"config: text.splits.{name} is 0: every split is needed")
    if text.template is not None and not Path(text.template).is_file():
        raise UserError(f"config: text.template: {text.template} does not exist: check the path")
    if text.template is not None:
        _check_braces("config: text.template", Path(text.template))
    if text.control_tokens is not None and text.control_tokens not in config.models:
        raise UserError(
            f"config: text.control_tokens names the unknown model {text.control_tokens}: use one "
            f"of {', '.join(config.models)}"
        )
    if text.longest > text.shard_tokens:
        raise UserError(
            f"config: a document may have {text.longest} tokens (text.context_length times "
            f"rows_per_document), above text.shard_tokens {text.shard_tokens}: make shards at "
            "least as long as a document"
        )


def _check_files(where: str, source: FileSource) -> None:
    for pattern in patterns(source):
        files = matches(pattern)
        if not files:
            raise UserError(f"{where}.path: {absence(pattern)}")
        for path in files:
            _check_braces(f"{where}.path", path)
            check_readable(f"{where}.path", path)
        if all(_is_empty(path) for path in files):
            raise UserError(f"{where}.path: {pattern} is empty: it holds no documents")


def _check_braces(where: str, path: Path) -> None:
    if set("{}") & set(str(path)):
        raise UserError(
            f"{where}: {path} has braces in its name, which Snakemake takes for a wildcard: "
            "rename it"
        )


def _is_empty(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            if block.strip():
                return False
    return True


def check_taxonomy(config: Config) -> None:
    """Check that a taxonomy that is given can be read."""
    if config.taxonomy is not None:
        if not Path(config.taxonomy).is_file():
            raise UserError(f"config: taxonomy: {config.taxonomy} does not exist: check the path")
        load_taxonomy(Path(config.taxonomy))


def check_paper(config: Config) -> None:
    """Check that the published quantities can be read, where a study is reproduced."""
    for file in config.paper.published if config.paper else ():
        read_study(Path(file))


def check_annotator(config: Config) -> None:
    """Check that an LLM that the config names is described."""
    if config.autointerp.annotator == "llm" and config.autointerp.llm is None:
        raise UserError(
            "config: autointerp.annotator is llm, but autointerp.llm is missing: "
            "give its base_url and annotators, or use lexical"
        )
    llm = config.autointerp.llm
    reserved = {TRUE, LEXICAL, SOURCE, TOPICS, LLM}.intersection(llm.annotators if llm else ())
    if reserved:
        raise UserError(
            f"config: autointerp.llm.annotators: {min(reserved)!r} means other labels: give the "
            "annotator another name"
        )
    live = llm if config.autointerp.annotator == "llm" and llm and llm.mode == "live" else None
    unpriced = {a.model for a in live.annotators.values()} - live.prices.keys() if live else ()
    if live and live.max_cost is not None and unpriced:
        raise UserError(
            f"config: autointerp.llm.max_cost cannot hold without the price of {min(unpriced)}: "
            "add it to autointerp.llm.prices"
        )
    kinds = {source.kind for source in config.text.sources.values()}
    if config.autointerp.annotator == "none" and "generator" not in kinds:
        raise UserError(
            "config: autointerp.annotator is none, but no text has a known category: "
            "use lexical, or a source of kind generator"
        )


def check_results(config: Config) -> None:
    """Check that the results folder can be written to."""
    folder = Path("results", config.run)
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"the results folder {folder} cannot be written to ({error.strerror}): "
            "fix its permissions or run elsewhere with --directory"
        ) from None


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_models,
    check_text,
    check_labellers,
    check_splits,
    check_layers,
    check_folders,
    check_fits,
    check_comparisons,
    check_names,
    check_taxonomy,
    check_annotator,
    check_paper,
    check_results,
)
