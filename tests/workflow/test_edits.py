"""Editing a helper reruns exactly the steps that import it, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow import running
from tests.workflow.running import Run
from workflow_scripts.common.provenance import PACKAGE, closure
from workflow_scripts.run import store_keys

pytestmark = pytest.mark.workflow

PLOTS = {
    "plot_category_changes",
    "plot_category_shares",
    "plot_cause",
    "plot_delta_norm",
    "plot_difference",
    "plot_direct_shares",
    "plot_firing_rates",
    "plot_nu_plane",
    "plot_recovery",
    "plot_seed_stability",
    "plot_training_curves",
    "plot_two_axes",
    "plot_weights",
    "plot_witnesses",
}
FITS = {"fit_crosscoder", "fit_difference"}
SEVERAL = {"fit_crosscoder": FITS}  # step → its rules, where they are not its one namesake
MATCHING = ("match_latents", "pair_mirrors")
PATCHING = ("ablate_categories", "patch_latents", "recover_loss")
# Helper → steps that import it.
IMPORTERS = {
    "dataset/rendering.py": {"tokenize_documents"},
    "models/simpo.py": {"train_organism"},
    "activations/blocks.py": {*PATCHING, "compare_predictions", "dump_activations"},
    "activations/store.py": {
        "collect_examples",
        "evaluate_crosscoder",
        "explain_difference",
        *FITS,
        "fit_normalizer",
        "score_latents",
        "show_carriers",
        "weigh_documents",
        *MATCHING,
        *PATCHING,
    },
    "crosscoder/model.py": {
        "collect_examples",
        "evaluate_crosscoder",
        "explain_difference",
        *FITS,
        "promote_tokens",
        "score_latents",
        "show_carriers",
        "weigh_documents",
        *MATCHING,
        *PATCHING,
    },
    "crosscoder/threshold.py": FITS,
    "latents/scaling.py": {"score_latents"},
    "latents/example_windows.py": {"collect_examples", "show_carriers"},
    "autointerp/lexical/lexicon.py": {"explain_lexical"},
    "comparison/shares.py": {"compare_categories", "vary_decisions"},
    "comparison/what_changed.py": {"score_recovery"},
    "figures/style.py": PLOTS | {"build_report"},
    "figures/report_data.py": {"build_report"},
    "run/checks.py": set(),
}


@pytest.fixture(scope="module")
def tree(smoke_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run in which files are edited."""
    folder = tmp_path_factory.mktemp("edits") / "tree"
    smoke_run.copy(folder)
    return folder


@pytest.fixture(scope="module")
def edges(tree: Path) -> list[tuple[str, str]]:
    """The rule graph."""
    return running.rule_edges(tree)


def planned_with(tree: Path, file: str, addition: str) -> set[str]:
    """Return the rules that would run with ``addition`` at the end of ``file``."""
    path = tree / file
    before = path.read_text(encoding="utf-8")
    path.write_text(before + addition, encoding="utf-8")
    try:
        return running.planned(running.smoke(tree, "-n"))
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize("helper", IMPORTERS)
def test_edit_reruns_importers(tree: Path, edges: list[tuple[str, str]], helper: str) -> None:
    module = f"{PACKAGE}.{helper.removesuffix('.py').replace('/', '.')}"
    modules = (step for step in store_keys.steps() if module in closure(f"{PACKAGE}.{step}"))
    steps = {step.split(".")[1] for step in modules} & {rule for edge in edges for rule in edge}
    importers = {rule for step in steps for rule in SEVERAL.get(step, {step})}
    assert importers == IMPORTERS[helper]
    rules = planned_with(tree, f"{PACKAGE}/{helper}", "\nEDITED = True\n")
    assert rules == running.downstream(edges, importers)


def test_a_new_group_of_settings_reruns_nothing(tree: Path) -> None:
    group = '\n\nclass New(Settings):\n    """A group."""\n\n    n: int = 1\n    """a number"""\n'
    assert planned_with(tree, f"{PACKAGE}/crosscoder/settings.py", group) == set()


def test_setting_reruns_what_it_touches(tree: Path) -> None:
    (tree / "scores.csv").write_text("category,model,score\n", encoding="utf-8")
    rules = planned_with(tree, "config/smoke.yaml", "\ncomparison: {leaderboard: scores.csv}\n")
    assert rules == {"explain_gaps", "plot_behaviour", "build_report", "record_run"}
