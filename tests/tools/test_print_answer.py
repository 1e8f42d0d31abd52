"""The last lines of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow_scripts.common import files
from workflow_scripts.tools import print_answer

TRUE = {"sentence": "By known categories.", "labeller": "true"}
TOPICS = {"sentence": "By topics.", "labeller": "topics"}
LOST = "Not all of the text was read."


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        ({**TRUE, "by_labeller": {"topics": TOPICS, "true": TRUE}}, [TRUE, TOPICS]),
        ({**TRUE, "by_labeller": {"true": TRUE}}, [TRUE]),
        ({**TOPICS, "by_labeller": {"topics": TOPICS}}, [TOPICS]),
        ({**TRUE, "text": {"warning": LOST}}, [TRUE, {"sentence": LOST}]),
        ({**TRUE, "text": {"warning": ""}}, [TRUE]),
    ],
)
def test_a_line_per_kind_of_labels_then_the_report(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer: dict[str, object],
    lines: list[dict[str, str]],
) -> None:
    files.write_json(tmp_path / "comparison/answer.json", answer)
    assert print_answer.main([str(tmp_path)]) == 0
    expected = [line["sentence"] for line in lines]
    assert capsys.readouterr().out.splitlines() == expected
    files.write_text(tmp_path / "report/index.html", "page")
    assert print_answer.main([str(tmp_path)]) == 0
    report = f"report: {tmp_path / 'report/index.html'}"
    assert capsys.readouterr().out.splitlines() == [*expected, report]


def test_an_imported_crosscoder_in_doubt_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_json(tmp_path / "comparison/answer.json", {**TRUE, "by_labeller": {"true": TRUE}})
    for fit, warning in (("good", ""), ("theirs", "it explains little at layer 3")):
        path = tmp_path / "crosscoder" / fit / "seed0/evaluation.json"
        files.write_json(path, {"fve": {}, "warning": warning})
    files.write_json(tmp_path / "crosscoder/older/seed0/evaluation.json", {"fve": {}})
    assert print_answer.main([str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "warning: fit theirs: it explains little at layer 3"
