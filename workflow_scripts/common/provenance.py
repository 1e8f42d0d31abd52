"""Where an artifact came from: code, libraries, device and the facts of its step."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sys
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

    The digest is over syntax trees without docstrings, so that a comment, a blank line or a
    ``touch`` changes nothing. Data files that stand beside a module are not seen: a step that
    reads one names it as an input.
    """
    digest = hashlib.sha256()
    for name in sorted(closure(module)):
        digest.update(name.encode())
        digest.update(_syntax(name).encode())
    return digest.hexdigest()[:16]


def closure(module: str) -> frozenset[str]:
    """Return the names of ``module`` and of the in-package modules that it needs."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name))
    return frozenset(found)


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_module(name: str) -> bool:
    return name.split(".")[0] == PACKAGE and _source(name).exists()


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module).read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    parents = {name.rsplit(".", 1)[0] for name in found if "." in name}
    return frozenset(name for name in found | parents if _is_module(name))


@cache
def _syntax(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
