"""What counts as a latent's category, and what as a missing answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.comparison.run_folder import Run, make_run
from workflow_scripts.common import files
from workflow_scripts.common.artifacts import SeedFiles, read_labelled_latents
from workflow_scripts.common.taxonomy import NOT_JUDGED, UNASSIGNED, WITHOUT_CATEGORY

STATUSES = ["ok", "repaired", "reasked", "refused", "transport_failed", "insufficient_examples"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), seeds=(0,))


def _categories(
    run: Run, folder: Path, answers: dict[int, list[tuple[str, str]]]
) -> pd.Series[str]:
    """Return the category by latent, of answers (status, category) per latent's place."""
    place = run.root / "latents/it_simpo/seed0"
    latents = pd.read_parquet(place / "sampled.parquet")["latent"].tolist()
    rows = [
        {"latent": latents[number], "annotator": "one", "status": status, "category": category}
        for number, given in answers.items()
        for status, category in given
    ]
    files.write_parquet(folder / "labels.parquet", pd.DataFrame(rows))
    source = SeedFiles(
        latents=place / "latents.parquet",
        selection=place / "selection.parquet",
        sampled=place / "sampled.parquet",
        labels=(folder / "labels.parquet",),
    )
    frame = read_labelled_latents(("it", "simpo"), source, str)["one"].frame.set_index("latent")
    return frame["category"].reindex(latents).reset_index(drop=True)


def test_a_failed_answer_is_no_category_and_has_no_say(run: Run, tmp_path: Path) -> None:
    found = _categories(
        run,
        tmp_path,
        {
            0: [("ok", "advice")],
            1: [("refused", ""), ("transport_failed", ""), ("repaired", "advice")],
            2: [("refused", "")],
            3: [("ok", "advice"), ("ok", "poetry")],
            4: [("ok", UNASSIGNED), ("reasked", UNASSIGNED), ("ok", "poetry")],
            5: [("insufficient_examples", UNASSIGNED)],
        },
    )
    assert found[:6].tolist() == [
        *("advice", "advice", NOT_JUDGED),
        *(UNASSIGNED, UNASSIGNED, NOT_JUDGED),
    ]
    assert set(found[6:]) == {NOT_JUDGED}  # never asked


@pytest.mark.parametrize("status", STATUSES)
def test_only_an_answer_names(run: Run, tmp_path: Path, status: str) -> None:
    # The category is set whatever the status, as no step of this workflow would write it.
    found = _categories(run, tmp_path, {0: [(status, "advice")]})[0]
    assert (found in WITHOUT_CATEGORY) == (status not in ("ok", "repaired", "reasked"))
