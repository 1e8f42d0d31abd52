"""What no config refers to is listed, and nothing else is ever removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.run.test_settings import Raw, put, smoke
from workflow_scripts.common.cli import UserError
from workflow_scripts.run.flags import Flags
from workflow_scripts.run.load import load
from workflow_scripts.run.paths import Paths
from workflow_scripts.tools.inspect_store import main, read_configs

OTHER = "0123456789abcdef"


def write(path: str | Path, content: str = "x" * 1000) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def write_config(name: str, raw: Raw) -> Path:
    return write(name, yaml.safe_dump(raw))


@pytest.fixture
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config whose text is in the store, beside what no config refers to."""
    monkeypatch.chdir(tmp_path)
    write_config("config/smoke.yaml", smoke())
    write("config/taxonomy.yaml", "version: 1\n")
    for path in Paths(load(smoke())).documents:
        write(path)
    write(f"results/store/{OTHER}/pt/mid/shard000.h5")
    os.utime(f"results/store/{OTHER}/pt/mid/shard000.h5", (86_400 * 365.25 * 40,) * 2)
    write("results/store/notes.txt")
    write("results/store/mine/notes.txt")
    write("results/smoke/report/index.html")


def files() -> set[str]:
    return {str(path) for path in Path("results").rglob("*") if path.is_file()}


@pytest.mark.usefixtures("_store")
def test_what_no_config_refers_to_is_listed_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "configs at hand: those of the runs smoke\n" in told
    assert "refers to: 1, 1 kB\n" in told
    assert f"results/store/{OTHER}      1 kB  last used 2010-01-01  pt\n" in told
    assert "DELETE=yes snakemake clean_store" in told
    assert files() == before


@pytest.mark.usefixtures("_store")
def test_only_entries_without_a_config_are_removed(capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert main(["--remove"]) == 0
    assert before - files() == {f"results/store/{OTHER}/pt/mid/shard000.h5"}
    assert not list(Path("results/store").glob(f"*{OTHER}*"))
    assert main(["--remove"]) == 0
    assert before - files() == {f"results/store/{OTHER}/pt/mid/shard000.h5"}
    assert "refers to: 0, 0 B\n" in capsys.readouterr().out


@pytest.mark.usefixtures("_store")
def test_every_config_at_hand_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """In the working directory, named, or given by its settings; without, entries are unused."""
    raws = [put(smoke(), "seed", seed) for seed in (1, 2, 3)]
    entries = [path for raw in raws for path in Paths(load(raw)).documents]
    for path in entries:
        write(path)
    write_config("mine.yaml", raws[0])
    write_config("elsewhere/theirs.yaml", raws[1])
    settings = load(raws[2]).model_dump_json()
    flags = ["--configs", "elsewhere/theirs.yaml", "--settings", settings, "--remove"]
    assert main(flags) == 0
    assert all(Path(path).exists() for path in entries)
    Path("mine.yaml").unlink()
    assert main(["--remove"]) == 0
    assert not any(Path(path).exists() for path in entries)
    assert all(Path(path).exists() for path in Paths(load(smoke())).documents)


@pytest.mark.usefixtures("_store")
def test_what_a_run_links_to_is_kept() -> None:
    link = Path("results/old/models/pt/model.json")
    link.parent.mkdir(parents=True)
    link.symlink_to(Path(f"../../../store/{OTHER}/pt/mid/shard000.h5"))
    assert main(["--remove"]) == 0
    assert link.exists()


@pytest.mark.usefixtures("_store")
def test_links_out_of_the_store_are_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside/data.h5")
    Path("results/store/fedcba9876543210").symlink_to(outside.parent)
    inside = Path(f"results/store/{OTHER}/link")
    inside.symlink_to(outside.parent)
    assert main(["--remove"]) == 0
    assert outside.exists()
    assert not inside.is_symlink()
    assert Path("results/store/fedcba9876543210").is_symlink()


@pytest.mark.usefixtures("_store")
@pytest.mark.parametrize(
    "text", ["models: [", "models: {a: {no: 1}}", "models: {a: gone}\nrun: made"]
)
def test_a_config_that_cannot_be_read_stops_it(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("config/broken.yaml", text)
    write("results/made/report/index.html")
    before = files()
    assert main(["--remove"]) == 2
    assert files() == before
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: config/broken.yaml cannot be read")
    with pytest.raises(UserError):
        read_configs([Path("config/broken.yaml")])


@pytest.mark.usefixtures("_store")
def test_a_config_whose_files_are_missing_needs_nothing_before_it_has_results() -> None:
    raw = put(smoke(), "models.own", {"path": "gone"})
    write_config("config/own.yaml", {**raw, "run": "own"})
    assert main([]) == 0
    write("results/own/report/index.html")
    assert main([]) == 2


@pytest.mark.usefixtures("_store")
def test_checkpoints_of_no_fit_are_listed_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    flags = Flags(Paths(load(smoke())))
    current = write(flags.checkpoint("pt_it", "0"))
    orphan = write(current.with_name("checkpoint-0000000000000000.safetensors"))
    assert main(["--remove"]) == 0
    told = capsys.readouterr().out
    assert "goes on: 1, 1 kB\n" in told
    assert str(orphan) in told
    assert str(current) not in told
    assert orphan.exists()
