"""What jobs request from a cluster: by the work, equal within a step, as in the Slurm profile."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.run.rule_files import read_rules, step_of
from tests.run.test_settings import put, smoke
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.run.load import load
from workflow_scripts.run.resources import REQUESTS, request, size
from workflow_scripts.run.settings import Config

RULES = read_rules()
PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))


def shipped(name: str) -> Config:
    """Return a shipped config."""
    return load(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_costly_step_asks_and_twice_as_much_when_repeated() -> None:
    asking = {name for name, body in RULES.items() if re.search(r"\*\*(SIZED|ON_GPU),", body)}
    assert asking == set(REQUESTS)
    assert PROFILE["retries"] >= 2


def on_gpu(body: str) -> bool:
    """Return whether a rule may ask for a GPU."""
    return "**ON_GPU," in body or " gpu=" in body


def test_rules_on_a_gpu_ask_for_one_in_the_profile() -> None:
    names = {name for name, body in RULES.items() if on_gpu(body)}
    assert "dump_activations" in names
    asked = PROFILE["set-resources"]
    assert {name for name, wants in asked.items() if wants["gpu"] == 1} == names
    assert all(wants["slurm_partition"] == "gpu" for wants in asked.values())
    assert "gpu" not in PROFILE["resources"]  # Slurm counts them
    assert PROFILE["jobs"] == "unlimited"


def test_models_are_loaded_without_the_hub() -> None:
    loading = 0
    for name, body in RULES.items():
        step = step_of(body)
        if not on_gpu(body) or step is None:
            continue
        stage, _, module = step.partition(".")
        source = (ROOT / "workflow_scripts" / stage / f"{module}.py").read_text(encoding="utf-8")
        if re.search(r"load_model|EditorInputs", source):  # others read activations alone
            assert "HF_HUB_OFFLINE=1 logged" in body, name
            loading += 1
    assert loading == 9


def test_rules_that_need_the_network_run_on_the_login_node() -> None:
    for name in ("resolve_model", "call_llm"):
        assert "localrule: True" in RULES[name]
    assert "localrule: FETCHES_TEXT" in RULES["sample_documents"]


def test_figures_stay_on_the_login_node() -> None:
    local = {name for name, body in RULES.items() if "localrule: True" in body}
    assert {name for name in RULES if name.startswith("plot_")} <= local
    assert not local & set(REQUESTS)


def test_requests_grow_with_the_work() -> None:
    small = load(smoke())
    wider = load(put(smoke(), "crosscoder.dictionary_size", 1 << 22))
    longer = load(put(smoke(), "crosscoder.tokens", 10**13))
    step = "fit_crosscoder"
    assert request(wider, step).mem_mb > 2 * request(small, step).mem_mb
    assert request(longer, step).runtime > 2 * request(small, step).runtime
    assert request(longer, step).mem_mb == request(small, step).mem_mb


def test_sizes_of_hub_models_are_told_by_their_names() -> None:
    paper = shipped("paper")
    assert size(paper, "simpo").parameters == 9e9
    assert 3584 <= size(paper, "simpo").width <= 1.1 * 3584
    assert size(shipped("minder"), "base").width >= 0.95 * 2304
    assert size(shipped("smollm2"), "chat").parameters == 135e6


def test_the_paper_fits_usual_nodes() -> None:
    paper = shipped("paper")
    for step in set(REQUESTS) - {"train_organism", "convert_gguf"}:
        asked = request(paper, step)
        assert asked.mem_mb < 64_000, step
        assert asked.runtime < 24 * 60, step


def test_a_local_folder_is_measured(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"hidden_size": 48, "dtype": "bfloat16"}')
    (tmp_path / "model/tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(984, np.float16)}, tmp_path / "model/model.safetensors")
    raw = put(smoke(), "models.mine", {"path": str(tmp_path / "model")})
    found = size(load(raw), "mine")
    written = (tmp_path / "model/model.safetensors").stat().st_size
    assert (found.parameters, found.width) == (written / 2, 48)
