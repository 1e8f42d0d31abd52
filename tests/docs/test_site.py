"""The site: every page of the documentation is in its navigation, and every link stays in it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.docs.pages import PAGES
from workflow_scripts.common.provenance import ROOT
from workflow_scripts.tools import build_site


class Loader(yaml.SafeLoader):
    """Reads the names of Python objects that mkdocs takes as text."""


def name_of(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> str:
    return suffix


Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", name_of)


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    entries = [next(iter(e.values())) if isinstance(e, dict) else e for e in config["nav"]]
    assert len(entries) == len(set(entries))
    assert {str(page.relative_to(ROOT)) for page in PAGES} <= set(entries)
    assert {Path(entry) for entry in entries} <= set(build_site.pages())


def test_links_stay_in_the_site(tmp_path: Path) -> None:
    build_site.stage(tmp_path / "site")
    for page in (tmp_path / "site").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
