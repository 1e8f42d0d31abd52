"""Worse answers for preference pairs: padded, rambling and evasive, whatever the question."""

from __future__ import annotations

from workflow_scripts.dataset.generator.grammar import Sampler

_SLOTS = {
    "vague": ("various things", "a number of aspects", "many sides", "all kinds of factors"),
    "filler": ("basically", "so to speak", "as it were", "you know", "in a manner of speaking"),
    "people": ("some people", "others", "everyone", "somebody"),
}
_FRAMES = (
    "well, <filler>, that is a question with <vague>.",
    "there are <vague> to consider, and <vague> as well.",
    "<people> would say one thing and <people> another.",
    "it is what it is, <filler>.",
    "as mentioned above, <vague> are, <filler>, <vague>.",
    "anyway, where was I, <filler>, yes, <vague>.",
    "let me repeat that, <filler>, let me repeat that.",
    "this could go on and on, and on, because of <vague>.",
    "I could say more, or less, or the same, <filler>.",
    "maybe, maybe not, <filler>.",
    "in any case, and in every case, <vague> and so on and so forth.",
    "great question, really, truly a great, great question.",
)


def write_rejected(sampler: Sampler, answer: str) -> str:
    """Write a worse answer: in half of the cases it starts as ``answer`` does, then rambles."""
    sampler.slots = _SLOTS
    frames = sampler.several(_FRAMES, 3 + sampler.below(3))
    lines = [sampler.sentence((frame,)) for frame in frames]
    if sampler.below(2) == 0:
        words = answer.split(" ")
        lines.insert(0, " ".join(words[: 4 + sampler.below(6)]))
    return " ".join(lines)
