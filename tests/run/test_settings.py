"""Settings: short forms, and one clear sentence for each mistake."""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from pydantic import BaseModel
from safetensors.numpy import save_file

from tests.run.rule_files import read_rules, step_of
from workflow_scripts.autointerp.settings import Autointerp
from workflow_scripts.common.cli import UserError
from workflow_scripts.common.provenance import PACKAGE, ROOT, closure
from workflow_scripts.run import store_keys
from workflow_scripts.run.load import load
from workflow_scripts.run.preflight import check_cap
from workflow_scripts.tools.document_config import TARGET, document_config
from workflow_scripts.tools.write_environments import COMMON, ENVIRONMENTS, write_environments

Raw = dict[str, object]
SMOKE = ROOT / "config" / "smoke.yaml"
SHORT = """\
run: mine
models:
  base: models/base
  tuned: models/tuned
text:
  sources:
    chats: {kind: jsonl, path: chats.jsonl}
layers:
  middle: [2]
"""


def smoke() -> Raw:
    """Return the smoke run's settings as read from YAML."""
    raw: Raw = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    return raw


def put(raw: Raw, place: str, value: object) -> Raw:
    """Return a copy of ``raw`` with the setting at a dotted place replaced; None deletes it."""
    changed = copy.deepcopy(raw)
    *above, last = place.split(".")
    group: Raw = changed
    for key in above:
        below = group.setdefault(key, {})
        assert isinstance(below, dict)
        group = below
    if value is None:
        del group[last]
    else:
        group[last] = value
    return changed


def write_described(folder: Path, value: float = 0) -> None:
    """Write the files by which a model of four layers is known when a run is planned."""
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 4}))
    (folder / "tokenizer.json").write_text("{}")
    tensors = {f"layers.{layer}.weight": np.full(1, value, np.float32) for layer in range(4)}
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two model folders of four layers and a file of chats, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "tuned"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        write_described(folder)
    (tmp_path / "chats.jsonl").write_text('{"text": "hello"}\n')
    return tmp_path


SHIPPED = ("config", "smoke", "paper", "minder", "recovery", "smollm2", "gemma3")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    load(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.mark.usefixtures("folders")
def test_two_models_and_a_file_need_few_lines() -> None:
    assert len(SHORT.splitlines()) <= 15
    config = load(yaml.safe_load(SHORT))
    assert config.fits["base_tuned"].models == ["base", "tuned"]
    assert config.fits["base_tuned"].layer == 2
    comparison = config.comparisons["base_tuned"]
    assert (comparison.baseline.model, comparison.candidate.model) == ("base", "tuned")


def test_fits_inherit_shared_settings() -> None:
    config = load(put(put(smoke(), "crosscoder.k", 5), "fits.pt_it.k", 7))
    assert {name: fit.k for name, fit in config.fits.items()} == {
        "pt_it": 7,
        "pt_simpo": 5,
        "it_simpo": 5,
    }


CAPPED: Raw = {
    "base_url": "http://127.0.0.1:9/v1",
    "annotators": {"a": {"model": "m"}, "b": {"model": "n"}},
    "max_cost": 5,
    "prices": {"m": [1, 1]},
}
DOCUMENTS = "autointerp.llm.documents.categories"
HUB: Raw = {"kind": "huggingface", "path": "a/b", "revision": "0" * 40}
MISTAKES: list[tuple[str, object, str]] = [
    ("text.tokns", 3, "text.tokns is no setting: did you mean tokens?"),
    ("models.pt.organsim", {}, "models.pt.organsim is no setting: did you mean organism?"),
    ("text.control_tokens", "nobody", "names the unknown model nobody: use one of pt, it, simpo"),
    ("text.tokens", "many", "text.tokens is 'many': give a whole number"),
    ("layers", [1], "layers is [1]: give a mapping"),
    ("layers.mid", ["a"], "layers.mid.0 is 'a': give a whole number"),
    ("run", None, "run is missing: set it"),
    ("run", "My run", "run: 'My run' must be of the characters [a-z0-9_] only"),
    ("text.sources.generated.kind", "xml", "text.sources.generated has no known kind"),
    ("text.sources.f", {"kind": "jsonl"}, "text.sources.f.path is missing"),
    ("text.sources.f", {"kind": "jsonl", "path": "no.jsonl"}, "no.jsonl does not exist"),
    ("text.sources.f", {"kind": "jsonl", "path": "."}, ". is a folder: name its files"),
    ("text.sources.f", {**HUB, "category_column": "source"}, "'source' is the name of other"),
    ("text.sources.f", {**HUB, "category_column": ["a", "topics"]}, "f.category_column: 'topics'"),
    ("text.sources.f", {**HUB, "category_column": ["a", "a"]}, "names a category_column twice"),
    ("text.sources.f", {**HUB, "category": " "}, "text.sources.f has a blank category"),
    ("text.sources.generated.category", "x", "text.sources.generated.category is no setting"),
    ("text.topics", {"count": -1}, "text.topics.count is -1"),
    ("text.splits", {"fit": 0.9}, "text.splits sum to 1.3: make them sum to 1"),
    ("text.sources.generated.categories", ["poetry"], "the unknown category poetry"),
    ("models.it.organism.teach.poetry", 5, "names the unknown category poetry"),
    ("models.it.organism.base", "nobody", "base names nobody, which is no organism"),
    ("models.pt.organism.base", "it", "has itself as base"),
    ("models.x", {}, "models.x has no source: give exactly one of path, hub, gguf and organism"),
    ("models.x", {"hub": "a/b"}, "models.x has no revision"),
    ("models.x", "nowhere", "models.x: nowhere does not exist: check the path"),
    ("models.x", {"hub": "a/b", "revision": "0" * 40, "adapter": "c"}, "c is no folder with an"),
    ("models.it.adapter", "c", "models.it has organism and adapter"),
    ("autointerp.llm", {**CAPPED, "prices": {"m": 1}}, "prices.m is 1: give a list of two numbers"),
    ("models.it.adapter_revision", "0" * 40, "adapter_revision only goes with adapter"),
    ("text.sources.f", {"kind": "huggingface", "path": "a/b"}, "text.sources.f has no revision"),
    (
        "models.simpo.organism.simpo.categories",
        ["narrative"],
        "simpo.categories names the unknown category narrative",
    ),
    ("layers.mid", [1, 7], "asks for layer 7, but model pt has 2 layers: use 1 to 2"),
    ("fits.pt_it.models", ["pt", "nobody"], "fits.pt_it names the unknown model nobody"),
    ("fits.pt_it.layer", 2, "which no group in `layers` dumps"),
    ("fits.pt_it.k", 300, "fits.pt_it.k is 300, above dictionary_size 256"),
    ("fits.pt_it.processes", 3, "processes is 3, which does not divide the batch of 512"),
    ("comparison.confidence", 1.0, "comparison.confidence is 1.0: input should be less than 1"),
    ("latents.groups", 1, "latents.groups is 1: input should be greater than or equal to 2"),
    ("comparisons.direct.baseline.fit", "nothing", "names the unknown fit nothing"),
    ("comparisons.direct.baseline.model", "pt", "which fit it_simpo lacks"),
    ("comparisons.direct.anchored", "nope", "names the unknown comparison nope"),
    (
        "comparisons.direct.against",
        "pt",
        "against names pt, which is no other model of fit it_simpo",
    ),
    ("taxonomy", "no.yaml", "no.yaml does not exist: check the path"),
    ("autointerp.annotator", "llm", "autointerp.annotator is llm, but autointerp.llm is missing"),
    (
        "autointerp.llm",
        {"base_url": "http://127.0.0.1:9/v1", "annotators": {"lexical": {"model": "m"}}},
        "autointerp.llm.annotators: 'lexical' means other labels",
    ),
    (
        "autointerp",
        {"annotator": "llm", "llm": CAPPED},
        "autointerp.llm.max_cost cannot hold without the price of n",
    ),
    (
        "autointerp.llm",
        {"base_url": "http://127.0.0.1:9/v1", "annotators": {"llm": {"model": "m"}}},
        "autointerp.llm.annotators: 'llm' means other labels",
    ),
    ("text.sources.f", {**HUB, "category_column": "llm"}, "'llm' is the name of other labels"),
    (
        "comparison.labeller",
        "llm",
        "comparison.labeller: no document has labels by llm: choose from true, source, topics",
    ),
    *(
        ("autointerp.llm", {**CAPPED, "documents": {"categories": categories}}, told)
        for categories, told in (
            (["one"], f"{DOCUMENTS} needs two names or more"),
            ({}, f"{DOCUMENTS} needs two names or more"),
            (["one", "two", "one"], f"{DOCUMENTS} has 'one' twice: name each once"),
            (["one", " two"], f"{DOCUMENTS} has the name ' two': give plain words on one line"),
            (["one", "tw\u202eo"], f"{DOCUMENTS} has the name 'tw\\u202eo': give plain words"),
            (["one", ""], f"{DOCUMENTS} has the name '': give plain words"),
            (["one", "unassigned"], f"{DOCUMENTS} has the reserved name unassigned"),
            (["one", "x" * 65], "shorten it to 64 characters"),
            ([str(n) for n in range(101)], f"{DOCUMENTS} has 101 names, above 100: merge some"),
        )
    ),
]


def test_a_taxonomy_is_read_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "own.yaml"
    broken.write_text("version: '1'\nclasses: {}\ncategories: []\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"own\.yaml is not valid at categories"):
        load(put(smoke(), "taxonomy", str(broken)))


@pytest.mark.parametrize("labeller", ["true", "llm", "source", "topics"])
def test_whoever_labels_documents_can_be_named(labeller: str) -> None:
    llm = {"annotator": "llm", "llm": {**CAPPED, "max_cost": None, "mode": "replay"}}
    load(put(put(smoke(), "autointerp", llm), "comparison", {"labeller": labeller}))


@pytest.mark.parametrize("annotator", ["llm", "lexical"])
def test_a_cap_on_cost_needs_prices_only_where_calls_are_made(annotator: str) -> None:
    llm = {**CAPPED, "mode": "replay" if annotator == "llm" else "live"}
    load(put(smoke(), "autointerp", {"annotator": annotator, "llm": llm}))


def test_very_many_calls_need_a_cap() -> None:
    raw = yaml.safe_load(Path("config/paper.yaml").read_text(encoding="utf-8"))
    check_cap(load(raw))
    del raw["autointerp"]["llm"]["max_requests"]
    with pytest.raises(UserError, match=r"82,000 calls to an LLM and no cap: set autointerp\.llm"):
        check_cap(load(raw))
    raw["autointerp"]["llm"]["mode"] = "replay"
    check_cap(load(raw))


@pytest.mark.parametrize(("place", "value", "told"), MISTAKES)
def test_mistake_is_one_sentence(place: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(put(smoke(), place, value))
    text = str(caught.value)
    assert told in text
    assert "\n" not in text


def test_braces_in_a_path_are_told_as_no_wildcards(tmp_path: Path) -> None:
    (tmp_path / "{a}.jsonl").write_text('{"text": "a"}\n')
    source = {"kind": "jsonl", "path": str(tmp_path / "{a}.jsonl")}
    with pytest.raises(
        UserError, match=r"text\.sources\.f\.path: .*has braces in its name.*rename"
    ):
        load(put(smoke(), "text.sources.f", source))


FILE_MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (lambda at: (at / "chats.jsonl").unlink(), "chats.jsonl does not exist"),
    (lambda at: (at / "chats.jsonl").write_text("\n \n"), "chats.jsonl is empty"),
    (lambda at: (at / "models/tuned/config.json").unlink(), "models/tuned is no folder of"),
    (lambda at: (at / "models/tuned/config.json").write_text("{"), "is not valid JSON"),
    (lambda at: (at / "models/tuned/model.safetensors").unlink(), "holds no safetensors"),
    (
        lambda at: (at / "models/tuned/config.json").write_text('{"num_hidden_layers": 1}'),
        "asks for layer 2, but model tuned has 1 layers",
    ),
    (lambda at: (at / "results").write_text(""), "results folder results cannot be written to"),
]


@pytest.mark.parametrize(("harm", "told"), FILE_MISTAKES)
def test_bad_file_is_one_sentence(harm: Callable[[Path], object], told: str, folders: Path) -> None:
    harm(folders)
    with pytest.raises(UserError, match=told):
        load(yaml.safe_load(SHORT))


def test_documentation_follows_the_settings() -> None:
    assert TARGET.read_text(encoding="utf-8") == document_config(), (
        "run python -m workflow_scripts.tools.document_config"
    )


def test_environments_follow_the_lock() -> None:
    for name, text in write_environments().items():
        assert (ROOT / "envs" / name).read_text(encoding="utf-8") == text, (
            "run python -m workflow_scripts.tools.write_environments"
        )
    assert {path.name for path in (ROOT / "envs").iterdir()} == set(write_environments())


def third_party(step: str) -> set[str]:
    """Return the packages, by import name, that a step needs to start.

    Imports within functions are left out: not every step comes there.
    """
    found: set[str] = set()
    for module in closure(f"{PACKAGE}.{step}"):
        path = ROOT.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {PACKAGE}


def test_environments_hold_what_their_steps_import() -> None:
    packages = metadata.packages_distributions()
    environments = {
        step: re.findall(r"envs/(\w+)\.yaml", body)[0]
        for body in read_rules().values()
        if (step := step_of(body)) is not None
    }
    assert set(environments) == set(store_keys.steps())
    for step, environment in environments.items():
        known = {name.lower() for name in COMMON + ENVIRONMENTS[environment]}
        for name in third_party(step):
            assert {d.lower() for d in packages[name]} & known, f"{step} imports {name}"


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[^\w-]", d)[0].lower().replace("-", "_") for d in project["dependencies"]
    }
    distributions = metadata.packages_distributions()
    imported = set()
    for path in (ROOT / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.split(".")[0] for name in names}
    # pydantic demands its very version of pydantic_core.
    own = {PACKAGE, "diffscope", "pydantic_core", *sys.stdlib_module_names}
    for name in imported - own:
        found = {d.lower().replace("-", "_") for d in distributions[name]}
        assert found & declared, f"pyproject.toml does not declare {name}"


def test_every_setting_that_a_message_names_exists() -> None:
    pattern = re.compile(r"(?<![\w.])autointerp\.([a-z_]+(?:\.[a-z_]+)*)")
    named = {
        (path.name, found)
        for path in (ROOT / "workflow_scripts").rglob("*.py")
        for found in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert [n for n in sorted(named) if not _is_setting(Autointerp, n[1].split("."))] == []


def _is_setting(model: type[BaseModel], path: list[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field is not None
    inner = next(
        (t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)), None
    )
    return inner is not None and issubclass(inner, BaseModel) and _is_setting(inner, path[1:])
