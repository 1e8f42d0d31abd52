"""The rules as their files say them."""

from __future__ import annotations

import re

from workflow_scripts.common.provenance import ROOT

HEADER = re.compile(r"^ *(?:rule (\w+)|use rule (\w+) as (\w+) with):\n", re.M)
LOCAL = re.compile(r"^ *localrule:.*\n", re.M)  # it is not inherited
STEP = re.compile(r"\*\*step\(\"([\w.]+)\"\)")


def read_rules() -> dict[str, str]:
    """Return the text of each rule by its name; behind one that takes over another's, the other."""
    rules: dict[str, str] = {}
    for path in sorted((ROOT / "rules").glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        found = list(HEADER.finditer(text))
        ends = [*(match.start() for match in found[1:]), len(text)]
        for match, end in zip(found, ends, strict=False):
            name, base, other = match.groups()
            inherited = LOCAL.sub("", rules[base]) if base else ""
            rules[name or other] = text[match.end() : end] + inherited
    return rules


def step_of(body: str) -> str | None:
    """Return the step that a rule runs, as ``stage.verb_object``; None if it runs none."""
    found = STEP.search(body)
    return found and found[1]
