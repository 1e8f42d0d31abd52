"""Where an artifact came from: code, libraries, device and the facts of its step."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = "workflow_scripts"
ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "h5py", "pandas", "scipy", "openai")


def provenance(file: str, **facts: object) -> dict[str, object]:
    """Return code digest, libraries, platform and hardware, with the step's own ``facts``.

    ``file`` is the step's ``__file__``, facts are JSON values.
    """
    module = ".".join(Path(file).resolve().relative_to(ROOT).with_suffix("").parts)
    return {
        "code": code_digest(module),
        "libraries": library_versions(),
        "platform": platform.machine(),
        "hardware": hardware(),
        **facts,
    }


@cache
def hardware() -> dict[str, object]:
    """Return the processor, its cores, and the GPUs that torch sees where the step uses it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    torch = sys.modules.get("torch")
    gpus = range(torch.cuda.device_count()) if torch is not None else ()
    return {
        "cpu": next(iter(names), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in gpus] if torch is not None else [],
    }


@cache
def library_versions() -> dict[str, str]:
    """Return the installed version of Python and of each library that shapes results."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


@cache
def code_digest(module: str) -> str:
    """Return a digest of ``module`` and of all it imports from this package, transitively.

    The digest is over syntax trees without docstrings, those of attributes included, so that a
    comment, a blank line or a ``touch`` changes nothing. Of modules named ``settings`` only those
    definitions count that are imported, so that another step's setting changes nothing. Data files
    that stand beside a module are not seen: a step that reads one names it as an input.
    """
    digest = hashlib.sha256()
    for part in sorted(_parts(module)):
        digest.update(" ".join(part).encode())
        digest.update(_syntax(part).encode())
    return digest.hexdigest()[:16]


def closure(module: str) -> frozenset[str]:
    """Return the names of ``module`` and of the in-package modules that it needs."""
    return frozenset(name for name, _ in _parts(module))


Part = tuple[str, str]
"""A module, and a definition in it; an empty name means all of the module."""


def _parts(module: str) -> frozenset[Part]:
    """Return ``module`` and all that it needs from this package."""
    parts: set[Part] = set()
    waiting: list[Part] = [(module, "")]
    while waiting:
        part = waiting.pop()
        if part not in parts:
            parts.add(part)
            waiting.extend(_needs(part))
    return frozenset(parts)


@cache
def _needs(part: Part) -> frozenset[Part]:
    """Return what a part needs: its imports, or the definitions and imports that it uses."""
    module, name = part
    tops = _nodes(part)
    statements = [*tops, *(inner for top in tops for inner in _statements(top))]
    needed = {taken for node in statements for taken in _imported(node).values()}
    if name:
        used = {n.id for top in tops for n in ast.walk(top) if isinstance(n, ast.Name)} | {name}
        imports = (_imported(node) for node in _tree(_source(module)).body)
        needed |= {part for taken in imports for key, part in taken.items() if key in used}
        needed |= {(module, key) for key in used & _definitions(module).keys()}
    parents = {other.rpartition(".")[0] for other, _ in needed}
    return frozenset(needed | {(parent, "") for parent in parents if _is_module(parent)})


def _imported(node: ast.AST) -> dict[str, Part]:
    """Return what an import statement takes from this package, by the name that it gives it."""
    if isinstance(node, ast.Import):
        names = {alias.asname or alias.name: alias.name for alias in node.names}
        return {key: (name, "") for key, name in names.items() if _is_module(name)}
    if not isinstance(node, ast.ImportFrom) or node.level or not _is_module(node.module or ""):
        return {}
    source, imported = str(node.module), dict[str, Part]()
    for alias in node.names:
        inner = f"{source}.{alias.name}"
        if _is_module(inner):
            imported[alias.asname or alias.name] = (inner, "")
        else:
            chosen = alias.name if source.endswith(".settings") else ""
            imported[alias.asname or alias.name] = (source, chosen)
    return imported


@cache
def _definitions(module: str) -> dict[str, list[ast.stmt]]:
    """Return the statements of a module that define its names, imports aside."""
    definitions: dict[str, list[ast.stmt]] = {}
    for node in _tree(_source(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        else:
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            names = [n.id for n in stored if isinstance(n.ctx, ast.Store)]
        for name in names:
            definitions.setdefault(name, []).append(node)
    return definitions


def _nodes(part: Part) -> Sequence[ast.AST]:
    """Return the syntax of a part."""
    module, name = part
    return _definitions(module).get(name, []) if name else [_tree(_source(module))]


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.split(".")[0] == PACKAGE and _source(name).exists()


@cache
def _syntax(part: Part) -> str:
    """Return the syntax of a part as text."""
    return "\n".join(map(ast.dump, _nodes(part)))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements within a module or statement, with handlers and cases."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _statements(child)


@cache
def _tree(path: Path) -> ast.Module:
    """Return a file's syntax without docstrings, of which bare strings are the only form."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in [tree, *_statements(tree)]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [child for child in node.body if not _is_text(child)] or [ast.Pass()]
    return tree


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
