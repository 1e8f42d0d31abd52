"""A step's command line follows from its function; an error is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from workflow_scripts.common import cli
from workflow_scripts.common.settings import Count, Settings

called: list[tuple[object, ...]] = []


class Group(Settings):
    """A group with defaults."""

    k: Count = 16
    """latents per token"""
    files: dict[str, list[Path]] = Field(default={})
    """files by name"""


class Needed(Settings):
    """A group without."""

    layer: int


def step(
    group: Group,
    needed: Needed,
    tables: dict[int, Group],
    names: list[str],
    output: Path,
    threads: int | None = None,
) -> None:
    """Do something.

    Parameters
    ----------
    names
        what to do it to
    """
    called.append((group, needed, tables, names, output, threads))


GIVEN = ["--layer=3", '--tables={"1": {"k": 2}}', "--names", "a", "b", "--output", "with blank"]
main = cli.command(step)


def test_groups_lists_and_structures() -> None:
    called.clear()
    assert main([*GIVEN, "--names=c", "--k=4", '--files={"x": ["[1].txt"]}']) == 0
    group = Group(k=4, files={"x": [Path("[1].txt")]})
    tables = {1: Group(k=2)}
    expected = (group, Needed(layer=3), tables, ["a", "b", "c"], Path("with blank"), None)
    assert called == [expected]


def test_a_long_argument_may_be_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    called.clear()
    path = tmp_path / cli.ARGUMENTS / "files.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"x": ["a", "b"]}', encoding="utf-8")
    tables = GIVEN.index('--tables={"1": {"k": 2}}')
    path.with_name("tables.json").write_text('{"7": {}}', encoding="utf-8")
    flags = [f"--files=@{cli.ARGUMENTS}files.json", "--tables", f"@{cli.ARGUMENTS}tables.json"]
    assert main([*GIVEN[:tables], *GIVEN[tables + 1 :], *flags]) == 0
    assert called[0][0] == Group(files={"x": [Path("a"), Path("b")]})
    assert called[0][2] == {7: Group()}
    assert main([*GIVEN, f"--files=@{cli.ARGUMENTS}nowhere.json"]) == 2
    assert "arguments/nowhere.json cannot be read" in capsys.readouterr().err


def test_what_is_not_given_has_the_default_of_its_group() -> None:
    called.clear()
    assert main(GIVEN) == 0
    assert called[0][0] == Group()


@pytest.mark.parametrize("first", ["[1].json", "[x]", "{1}"])
def test_a_path_is_no_structure(first: str) -> None:
    called.clear()
    assert main([*GIVEN[:2], "--names", first, "b", f"--output={first}"]) == 0
    assert called[0][3:5] == ([first, "b"], Path(first))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--k=0"], "--k is '0'"),
        (["--k=many"], "--k"),
        (["--threads=many"], "--threads is 'many': give a whole number"),
        (["--threads=1.5"], "--threads is '1.5': give a whole number"),
        (["--other=1"], "--other"),
        (['--files={"x": ['], "--files"),
        (["stray"], "stray"),
        (["--names"], "--names"),  # a list holds something
        (['--files={"x": 3}'], "--files.x is 3: Input should be a valid list"),
    ],
)
def test_one_sentence_names_the_flag(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GIVEN, *flags]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_a_structure_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--layer=3", '--tables={"1": {"k": 0}}', "--names=a", "--output=o"]) == 2
    assert "--tables is not valid at 1.k" in capsys.readouterr().err


def test_help_describes_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Do something." in text
    assert all(words in text for words in ("latents per token", "what to do it to", "--output"))


def test_a_positional_parameter_has_no_flag() -> None:
    def show(files: list[Path], /, *, check: bool = False) -> None:
        called.append((files, check))

    called.clear()
    assert cli.command(show)(["a", "b", "--check"]) == 0
    assert called == [([Path("a"), Path("b")], True)]
