"""The layout: stages in order, imports that go one way, a command line for every step."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import Counter
from functools import cache
from typing import get_type_hints

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workflow_scripts.common.provenance import PACKAGE, ROOT
from workflow_scripts.run import store_keys
from workflow_scripts.run.settings import Config
from workflow_scripts.tools.document_config import sections

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
"""From the bottom up: a folder imports from itself and from lower ones only."""
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
STEPS = store_keys.steps()
CONFIGURED = [group for group, _ in sections(Config, "")]
"""The groups of which the config consists."""
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


def test_a_name_means_one_thing() -> None:
    names = [module.rpartition(".")[2] for module in dotted()]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    assert doubled == ["settings"]
    classes = [
        node.name
        for path in MODULES
        for node in ast.parse((ROOT / path).with_suffix(".py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name, count in Counter(classes).items() if count > 1] == []


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
            assert own_defaults(hint) == {}, name
        else:
            assert parameter.default in (inspect.Parameter.empty, None, False, ()), name


def own_defaults(group: type[BaseModel]) -> dict[str, object]:
    """Return the defaults of a step's group that differ from the config's for a setting so named.

    What no config holds, for use by hand, is declared in the group alone.
    """
    configured: dict[str, list[object]] = {}
    for settings in CONFIGURED:
        for name, field in fields_of(settings):
            configured.setdefault(name, []).append(field.get_default(call_default_factory=True))
    own = {name: f.get_default(call_default_factory=True) for name, f in fields_of(group)}
    return {n: value for n, value in own.items() if value not in configured.get(n, [value])}


def fields_of(group: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields of a group that have a default."""
    return [(name, f) for name, f in group.model_fields.items() if not f.is_required()]
