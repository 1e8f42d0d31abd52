"""The house: floors one above the other, imports that go one way, a command line for every step."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from workflow_scripts.common.provenance import PACKAGE, ROOT
from workflow_scripts.run import store_keys

FLOORS = (
    ("common", "generator"),
    ("dataset",),
    ("models",),
    ("activations",),
    ("crosscoder",),
    ("latents",),
    ("interventions",),
    ("autointerp",),
    ("comparison",),
    ("figures",),
    ("paper",),
    ("run",),
    ("tools",),
)
"""From the ground up: a floor imports its own rooms and those of lower floors."""
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
STEPS = store_keys.steps()
MODULES = [
    path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / PACKAGE).rglob("*.py"))
]


@cache
def imports(module: str) -> frozenset[str]:
    """Return the in-package modules that a module names in its imports, in functions too."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports by a relative name"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.startswith(f"{PACKAGE}."))


def dotted() -> list[str]:
    """Return every module of the package but the roots of folders."""
    return [".".join(path.parts) for path in MODULES if path.name != "__init__"]


def test_no_module_stands_at_the_root() -> None:
    assert [path.name for path in (ROOT / PACKAGE).glob("*.py")] == ["__init__.py"]
    folders = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(LEVEL)


@pytest.mark.parametrize("module", dotted())
def test_imports_go_down(module: str) -> None:
    own = module.split(".")[1]
    up = [name for name in imports(module) if LEVEL[name.split(".")[1]] > LEVEL[own]]
    assert not up


def test_no_circle() -> None:
    known = set(dotted())
    waiting = {module: set(imports(module)) & known - {module} for module in known}
    while ready := {module for module, needed in waiting.items() if not needed}:
        waiting = {m: needed - ready for m, needed in waiting.items() if m not in ready}
    assert waiting == {}


def test_a_floor_takes_libraries_of_others_not_their_steps() -> None:
    steps = {f"{PACKAGE}.{step}" for step in STEPS}
    taken = [
        (module, name)
        for module in dotted()
        if not module.startswith((f"{PACKAGE}.run.", f"{PACKAGE}.tools."))
        for name in imports(module) & steps
        if name.split(".")[1] != module.split(".")[1]
    ]
    assert taken == []


@pytest.mark.parametrize("step", STEPS)
def test_no_step_has_a_default_of_its_own(step: str) -> None:
    """Every default of a command line is that of a group of settings: the config's."""
    module = importlib.import_module(f"{PACKAGE}.{step}")
    function = module.main.step
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            assert parameter.default is inspect.Parameter.empty, name
        else:
            assert parameter.default in (inspect.Parameter.empty, None, False, ()), name
