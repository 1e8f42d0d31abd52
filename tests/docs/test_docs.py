"""The documentation is correct: links, errors and tables; its commands are run or marked."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import MARK, MY_MODELS, PAGES, TUTORIAL, commands, unmarked
from tests.workflow import running
from tests.workflow.test_own_models import write_models, write_notes
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.tools import document_power, document_resources

ELSEWHERE = {
    "make test": ".ci/run runs it",
    "make quickstart": "the smoke config runs the same rules; tests/workflow/test_smoke.py",
    ".venv/bin/python -m tests.workflow.check_run results/quickstart": "test_check_run.py",
    "python -m tests.paper.substitutes": "tests/paper/test_reproduce_paper.py",
    "snakemake --cores 2 --configfile config/paper_smoke.yaml reproduce_paper": "there too",
    "DELETE=yes snakemake --cores 1 --quiet all --configfile my_models.yaml -- clean_store": (
        "tests/tools/test_inspect_store.py"
    ),
    "snakemake --cores all --configfile my_models.yaml -n": "as in the tutorial",
    "snakemake --cores all --configfile my_models.yaml": "as in the tutorial",
    'python -m workflow_scripts.tools.fire results/quickstart it_simpo "Dear diary, what a day."': (
        "tests/diffscope/test_open_run.py"
    ),
    "python -m workflow_scripts.tools.export results/quickstart it_simpo --to my_crosscoder": (
        "tests/tools/test_export.py"
    ),
    "python -m workflow_scripts.tools.export_latents results/quickstart it_simpo --to my_latents": (
        "tests/tools/test_export.py"
    ),
}
"""Commands without a mark that other tests run, and where."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_run_or_says_what_it_needs(page: Path) -> None:
    run_here = set(TUTORIAL) | set(HELPS) | set(PLANS)
    for command in unmarked(page):
        assert command in run_here or command in ELSEWHERE, command


def test_marks_of_what_cannot_be_run_are_known() -> None:
    for page in PAGES:
        for line in commands(page):
            if " # needs" in line or " # takes" in line:
                assert MARK.search(line), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_errors_of_the_faq_are_in_the_code() -> None:
    code = " ".join(
        path.read_text(encoding="utf-8")
        for folder in ("workflow_scripts", "rules")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".smk")
    )
    joined = re.sub(r'"\s+f?"', "", code)  # a sentence over several lines
    headings = re.findall(r'^### "(.+)"$', (ROOT / "docs/faq.md").read_text(), re.M)
    assert len(headings) >= 15
    for words in headings:
        assert words in joined, words


def test_tables_follow_the_code() -> None:
    for module in (document_power, document_resources):
        written = {document_power: "document_power", document_resources: "document_resources"}
        text = getattr(module, written[module])()
        assert text == module.TARGET.read_text(encoding="utf-8"), (
            f"run python -m workflow_scripts.tools.{written[module]}"
        )


def test_stages_and_pages_are_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT)})" in readme, page.name


HELPS = [
    command
    for page in PAGES
    for command in unmarked(page)
    if command.startswith("python -m workflow_scripts.") and command.endswith("--help")
]


@pytest.mark.parametrize("command", sorted(set(HELPS)))
def test_help_of_a_step(command: str) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=ROOT,
        env=running.environment(),
        capture_output=True,
        check=True,
        text=True,
    )
    assert "usage:" in done.stdout.lower()


PLANS = sorted(
    {
        command
        for page in PAGES
        for command in unmarked(page)
        if command.startswith("snakemake") and command not in (*TUTORIAL, *ELSEWHERE)
    }
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with what the tutorial starts from."""
    folder = running.copy_tree(tmp_path_factory.mktemp("docs"))
    write_models(folder / "models", write_notes(folder / "notes.jsonl"))
    (folder / "my_models.yaml").write_text(MY_MODELS, encoding="utf-8")
    return folder


@pytest.mark.workflow
@pytest.mark.parametrize("command", PLANS)
def test_other_commands(tree: Path, command: str) -> None:
    running.snakemake(tree, *shlex.split(command)[1:])
