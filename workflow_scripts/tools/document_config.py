"""Write config/README.md from the typed settings.

``python -m workflow_scripts.tools.document_config``

A test fails when the file and the settings differ.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from workflow_scripts.common.provenance import ROOT
from workflow_scripts.common.settings import Settings
from workflow_scripts.run.settings import Config

TARGET = ROOT / "config" / "README.md"
HEAD = """\
# Settings

Generated from the stages' `workflow_scripts/<stage>/settings.py` by
`python -m workflow_scripts.tools.document_config`.

- `config.yaml`: the offline quickstart, used when no other config is named.
- `smoke.yaml`: the tests' run. `recovery.yaml`: the long scientific checks (`make validate`).
- `paper.yaml`, `minder.yaml`: published studies, with their numbers in `published/`.
  `paper_smoke.yaml`: the first one at small size.
- `real.yaml`: what a few hundred documents changed in a real model (`make real`). `smollm2.yaml`,
  `gemma3.yaml`: base models against their chat fine-tunes; they need a network, and a night.
- `taxonomy.yaml`: classes and categories. `taxonomy_gold.yaml`: contexts that test its lexicon.

Another config replaces the quickstart's as a whole: `snakemake --cores all --configfile my.yaml`.
A config for two models of your own is short:

```yaml
run: my_run
models:
  base: path/to/base            # folders in Hugging Face format, {hub: id, revision: commit},
  tuned: path/to/tuned          # or GGUF files: path/to/tuned.gguf
text:
  sources:
    chats: {kind: jsonl, path: chats.jsonl}    # lines with `messages` or `text`
layers:
  middle: [6]
```

Names match `[a-z0-9_]+`. A setting that is unknown, has a wrong type, or conflicts with another one
is refused with one sentence before any work.
"""


def document_config() -> str:
    """Return the text of config/README.md."""
    parts = [HEAD]
    groups = list(sections(Config, ""))
    described = {group for group, _ in groups}
    for group, path in groups:
        title = f"`{path}`" if path else "The file"
        doc = re.sub(r"\s+", " ", group.__doc__ or "").strip()
        parts.append(f"## {title}\n\n{doc}\n\n{table(group, described)}")
    return "\n".join(parts)


def sections(group: type[Settings], path: str) -> Iterator[tuple[type[Settings], str]]:
    """Yield each group of settings once, with the place where it first stands."""
    seen: set[type[Settings]] = set()
    waiting = [(group, path)]
    while waiting:
        group, path = waiting.pop(0)
        if group in seen:
            continue
        seen.add(group)
        yield group, path
        below = []
        for name, field in group.model_fields.items():
            for inner, suffix in groups_in(field.annotation, ""):
                below.append((inner, f"{path}.{name}{suffix}".lstrip(".")))
        waiting = below + waiting


def groups_in(annotation: object, suffix: str) -> Iterator[tuple[type[Settings], str]]:
    """Yield the groups of settings that a type mentions; ``.<name>`` marks the keys of a map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield typing.cast(type[Settings], annotation), suffix
        return
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        arguments, suffix = arguments[1:], f"{suffix}.<name>"
    for argument in arguments:
        yield from groups_in(argument, suffix)


def table(group: type[Settings], described: set[type[Settings]]) -> str:
    """Return the Markdown table of one group, without what it inherits from ``described`` ones."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in group.model_fields.items():
        bases = described & set(group.__bases__)
        if any(name in base.model_fields for base in bases):
            continue
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        # What may be left out is filled in before the settings are checked.
        filled = field.is_required() and "; none: " in meaning
        default = "none" if filled else default_of(field)
        lines.append(f"| `{name}` | {type_of(field)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def default_of(field: FieldInfo) -> str:
    """Return a field's default in words."""
    if field.default_factory is not None:
        return "`{}`"
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        fields = type(field.default).model_fields
        needed = [name for name, inner in fields.items() if inner.is_required()]
        words = ", ".join(f"{name}: {getattr(field.default, name)}" for name in needed)
        return f"`{{{words}}}`" if words else "see there"
    return "none" if field.default is None else f"`{field.default}`"


def type_of(field: FieldInfo) -> str:
    """Return a field's type in words."""
    bounds = [str(m) for m in field.metadata]
    low = next((b for b in bounds if b.startswith(("Ge", "Gt"))), "")
    return _type_name(field.annotation) + (f" {_bound(low)}" if low else "")


def _bound(text: str) -> str:
    sign = "≥" if text.startswith("Ge") else ">"
    return f"{sign} {re.sub('[^0-9.]', '', text)}"


def _type_name(annotation: object) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(_type_name(a) for a in arguments if a is not type(None))
        return " or ".join(words)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"{_type_name(arguments[0])}: {_type_name(arguments[1])}"
    if annotation in names:
        return names[annotation]
    return "group"


def main() -> int:
    """Write the file."""
    TARGET.write_text(document_config(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
