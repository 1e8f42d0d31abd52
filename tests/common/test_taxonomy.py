"""The shipped taxonomy is complete; a broken one is refused with one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from workflow_scripts.common.cli import UserError
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.common.taxonomy import Taxonomy, load_taxonomy

SHIPPED = ROOT / "config" / "taxonomy.yaml"
_STUDY = (
    "safety_refusal multilingual instruction_following self_reference hallucination_management "
    "factual_verification query_classification structured_output code_generation"
)
_GENERATOR = (
    "narrative source_code arithmetic encyclopedic news procedures safety_refusal "
    "instruction_following multilingual self_reference hallucination_management structured_output "
    "query_classification factual_verification creative_writing summarization emotional_support "
    "advice"
)
STUDY, GENERATOR = _STUDY.split(), _GENERATOR.split()


def test_shipped_taxonomy_holds_the_study_and_the_generator() -> None:
    taxonomy = load_taxonomy(SHIPPED)
    assert set(STUDY) | set(GENERATOR) <= set(taxonomy.ids)
    assert "technical" in taxonomy.classes
    assert len(taxonomy.classes) == 7
    assert len(taxonomy.categories) == 30
    assert {category.class_ for category in taxonomy.categories} == set(taxonomy.classes)
    for category in taxonomy.categories:
        assert len(category.positive) >= 2, category.id
        assert len(category.negative) >= 2, category.id


def test_digest_ignores_comments_and_sees_content(tmp_path: Path) -> None:
    text = SHIPPED.read_text()
    commented, changed = tmp_path / "a.yaml", tmp_path / "b.yaml"
    commented.write_text("# a comment\n" + text)
    changed.write_text(text.replace('version: "1.0"', 'version: "1.1"'))
    digest = load_taxonomy(SHIPPED).digest
    assert load_taxonomy(commented).digest == digest
    assert load_taxonomy(changed).digest != digest


def _content() -> dict[str, object]:
    category = {"class": "c", "definition": "d", "positive": ["p"], "negative": ["n"]}
    return {
        "version": "1",
        "classes": {"c": "a class"},
        "categories": [{"id": "one", **category}, {"id": "two", **category}],
    }


@pytest.mark.parametrize(
    ("path", "value", "needle"),
    [
        (("categories", 0, "id"), "unassigned", "reserved id 'unassigned'"),
        (("categories", 0, "id"), "not_judged", "reserved id 'not_judged'"),
        (("categories", 1, "id"), "one", "'one' twice"),
        (("categories", 0, "class"), "nowhere", "unknown class 'nowhere'"),
        (("categories", 0, "id"), "Bad Id", "categories / Bad Id / id"),
        (("categories", 0, "lexicon"), {"patterns": ["("]}, "no regular expression"),
        (("categories", 0, "lexicon"), {"detectors": ["psychic"]}, "no detector 'psychic'"),
        (("categories", 0, "colour"), "red", "one / colour"),
        (("classes",), {"c": "x", "B C": "y"}, "the class 'B C'"),
    ],
)
def test_broken_taxonomies_are_refused(
    tmp_path: Path, path: tuple[str | int, ...], value: object, needle: str
) -> None:
    content = _content()
    place: object = content
    for key in path[:-1]:
        place = place[key]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    file = tmp_path / "taxonomy.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="taxonomy") as caught:
        load_taxonomy(file)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_taxonomy(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load_taxonomy(tmp_path / "bad.yaml")


def test_names_that_are_no_categories_are_their_own_class() -> None:
    taxonomy = Taxonomy.model_validate(_content())
    assert taxonomy.class_of("one") == "c"
    assert taxonomy.class_of("unassigned") == "unassigned"
