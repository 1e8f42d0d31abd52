"""What changes the digest of a step's code, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workflow_scripts.common import provenance
from workflow_scripts.common.provenance import closure, code_digest

FILES = {
    "common/settings.py": """
        class Settings:
            pass

        Count = int
        Share = float
    """,
    "fit/settings.py": """
        from workflow_scripts.common.settings import Count, Settings, Share

        Kind = str

        class Training(Settings):
            k: Count = 8
            kind: Kind = "topk"

        class Fit(Training):
            loss: Share = 0.5

        class Other(Settings):
            n: Count = 1
    """,
    "fit/helper.py": "def help() -> None:\n    return",
    "fit/fit_model.py": """
        from workflow_scripts.fit.helper import help
        from workflow_scripts.fit.settings import Fit

        def fit_model(settings: Fit) -> None:
            help()
    """,
    "fit/other.py": "from workflow_scripts.fit.settings import Other",
}


def dedented(text: str) -> str:
    """Return text without the margin of this file."""
    return "\n".join(line.removeprefix("        ") for line in text.splitlines())


Edit = Callable[[str, str, str], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """A package of its own, and how to replace some text in one of its files."""
    root = tmp_path / "workflow_scripts"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedented(text))
    for folder in (root, root / "common", root / "fit"):
        (folder / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def forget() -> None:
        for function in ("code_digest", "_needs", "_definitions", "_syntax", "_tree"):
            getattr(provenance, function).cache_clear()

    def replace(name: str, old: str, new: str) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))
        forget()

    forget()
    yield replace
    forget()


def digest() -> str:
    return code_digest("workflow_scripts.fit.fit_model")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fit/helper.py", "return", "print()"),
        ("fit/fit_model.py", "help()\n", "help(), help()\n"),
        ("fit/settings.py", "loss: Share = 0.5", "loss: Share = 0.4"),
        ("fit/settings.py", "k: Count = 8", "k: Count = 9"),  # of a base
        ("fit/settings.py", "Kind = str", "Kind = bytes"),  # a name that it uses
        ("common/settings.py", "Share = float", "Share = int"),
        ("common/settings.py", "pass", "frozen = True"),
    ],
)
def test_what_a_step_uses_changes_its_digest(edit: Edit, file: str, old: str, new: str) -> None:
    before = digest()
    edit(file, old, new)
    assert digest() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fit/helper.py", "return", '"""Help."""\n    return'),
        ("fit/helper.py", "def", "# help\n\n\ndef"),
        ("fit/settings.py", "k: Count = 8", 'k: Count = 8\n    """latents per token"""'),
        ("fit/settings.py", "Kind = str", 'Kind = str\n"""a kind of rule"""'),
        ("fit/settings.py", "n: Count = 1", "n: Count = 2"),  # another step's setting
        ("fit/settings.py", "class Other", "class New(Settings):\n    m: int = 1\n\nclass Other"),
        ("common/settings.py", "Share = float", "Share = float\nName = str"),
        ("fit/settings.py", "import Count,", "import Count, Name,"),  # for another step's setting
    ],
)
def test_nothing_else_does(edit: Edit, file: str, old: str, new: str) -> None:
    before = digest()
    edit(file, old, new)
    assert digest() == before


def test_a_module_is_known_by_all_that_it_imports(edit: Edit) -> None:
    names = {"common", "common.settings", "fit", "fit.settings", "fit.helper", "fit.fit_model"}
    found = closure("workflow_scripts.fit.fit_model")
    assert found == {f"workflow_scripts.{name}" for name in names}


def test_settings_that_are_taken_over_from_another_module_count(edit: Edit) -> None:
    edit("fit/fit_model.py", "import Fit", "import Count as Fit")
    before = digest()
    edit("common/settings.py", "Count = int", "Count = float")
    assert digest() != before
