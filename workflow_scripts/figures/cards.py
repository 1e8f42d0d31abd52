"""The answer on a page of Markdown: for a pull request, a model card or an appendix.

``card.md.j2`` beside this file is its template.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workflow_scripts.common.characters import hidden
from workflow_scripts.figures.report_tables import Table
from workflow_scripts.figures.verdict_rows import QUIET
from workflow_scripts.figures.verdict_table import FirstTable, Line

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
SHOWN = 10
"""Latents, and documents, that the card shows."""
PICTURES = 3
MARKS = re.compile(r"([\\`*_\[\]|~$])")
"""Signs that mean something within a line of Markdown."""

LINKS = re.compile(r"@|#(?=\d)|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
"""Signs that make mentions, references and links of plain text."""


def card(
    answer: Mapping[str, Any],
    sentences: Sequence[str],
    lines: FirstTable,
    pictures: Mapping[str, Path],
    crosscoders: Table,
    provenance: Mapping[str, Any],
    warnings: Sequence[str],
    folder: Path,
) -> str:
    """Return the card; pictures are linked from ``folder``, in which it lies."""
    changed = [line for line in lines.shown if line.verdict not in QUIET]
    relative = {
        name: Path(os.path.relpath(file, folder)).as_posix()
        for name, file in islice(pictures.items(), PICTURES)
    }
    return (
        environment()
        .get_template("card.md.j2")
        .render(
            answer=answer,
            sentences=sentences,
            warnings=warnings,
            lines=lines.lines,
            pictures=relative,
            latents=_foremost([(line, line.latents) for line in changed]),
            documents=_foremost([(line, line.excerpts) for line in changed]),
            facts=list(_facts(answer, crosscoders, provenance)),
        )
    )


def _foremost(lines: Sequence[tuple[Line, Sequence[T]]]) -> list[tuple[Line, T]]:
    """Return what to show of the lines, line by line: the first of each, then the second …"""
    ranked = [
        (rank, place, line, item)
        for place, (line, items) in enumerate(lines)
        for rank, item in enumerate(items)
    ]
    foremost = sorted(ranked, key=lambda entry: entry[:2])[:SHOWN]
    return [(line, item) for _, _, line, item in sorted(foremost, key=lambda entry: entry[1])]


def _facts(
    answer: Mapping[str, Any], crosscoders: Table, provenance: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield models, text, crosscoders, settings and versions."""
    yield from model_facts(provenance.get("models", {}))
    yield "text", str(answer["text"]["description"])
    for row in crosscoders.rows:
        named = zip(crosscoders.header[1:], row[1:], strict=True)
        yield f"crosscoder {row[0]}", "; ".join(f"{name} {value}" for name, value in named)
    yield from version_facts(provenance)


def model_facts(models: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each model's name with its source, revision and architecture, by their manifests."""
    for name, model in models.items():
        source = " ".join(filter(None, (model.get("hub"), model.get("revision"))))
        described = source or str(model.get("kind", "unknown"))
        yield f"model {name}", f"{described} ({model.get('architecture', 'unknown')})"


def version_facts(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the versions of libraries, and the digest by which the settings are known."""
    libraries = provenance.get("libraries", {})
    yield "libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())
    yield "settings (SHA-256)", str(provenance.get("settings_sha256", "unknown"))


def environment(folder: Path = HERE) -> Environment:
    """Return the environment of a card's template: what it writes is text, never markup."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=False,  # HTML's signs are escaped below, with Markdown's
        undefined=StrictUndefined,
        finalize=plain,
        keep_trailing_newline=True,
    )


def plain(value: object) -> str:
    """Return a value as text that Markdown shows as it is, on one line."""
    if isinstance(value, Markup):
        return str(value)
    text = hidden().sub(lambda match: f"U+{ord(match[0]):04X}", " ".join(str(value).split()))
    text = MARKS.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return LINKS.sub(lambda match: f"&#{ord(match[0])};", text)
