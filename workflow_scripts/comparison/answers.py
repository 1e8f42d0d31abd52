"""The sentences of ``answer.json``: what the run answers, what topics alone say, what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow_scripts.common.labellers import TOPICS


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """Return the sentence that answers the run; where other labels do, also that by topics.

    The last one says how much of the text was not read, where that is much.
    """
    by_topics = answer.get("by_labeller", {}).get(TOPICS)
    also = by_topics is not None and answer["labeller"] != TOPICS
    lost = str(answer.get("text", {}).get("warning", ""))
    return [
        str(answer["sentence"]),
        *([str(by_topics["sentence"])] if also else []),
        *([lost] if lost else []),
    ]
