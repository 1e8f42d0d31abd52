"""The generator: reproducible, varied, and true to the form that each prompt asks for."""

from __future__ import annotations

import json
import re
import time
from collections import Counter

import pytest

from workflow_scripts.generator import (
    CHAT_CATEGORIES,
    PLAIN_CATEGORIES,
    GeneratedDocument,
    generate,
)
from workflow_scripts.generator.grammar import Sampler

ALL = PLAIN_CATEGORIES + CHAT_CATEGORIES
FUNCTION_WORDS = (
    "a an and are as at be but by do for from has have i if in is it its me my no not of on or "
    "so such than that the then there this to was what when who will with would you your can "
    "la le les de en es el un una y è e si il per se et der die das ist für du und sie"
)


def answer(document: GeneratedDocument) -> str:
    return document.text or document.messages[1][1]


def test_generate_is_a_function_of_its_arguments() -> None:
    for category in ALL:
        assert generate(category, 3, 1) == generate(category, 3, 1)
        assert generate(category, 3, 1) != generate(category, 4, 1)
        assert generate(category, 3, 1) != generate(category, 3, 2)


def test_generate_has_not_changed() -> None:
    assert answer(generate("advice", 0, 0)) == (
        "Be wary of overspending, a common pitfall. I would hold off until you track your "
        "spending. If it doesn't work after a year, track your spending."
    )


@pytest.mark.parametrize("category", ALL)
def test_generate_is_varied(category: str) -> None:
    documents = [generate(category, index, 0) for index in range(1500)]
    assert len(set(documents)) > 1490
    bodies = [answer(document) for document in documents]
    openings = Counter(" ".join(body.split()[:2]) for body in bodies)
    assert openings.most_common(1)[0][1] < 0.25 * len(bodies)
    words = Counter(w for body in bodies for w in set(re.findall(r"\w+", body.lower())))
    common = {word for word, count in words.items() if count > 0.6 * len(bodies)}
    if category not in ("arithmetic", "source_code"):
        assert not common - set(FUNCTION_WORDS.split())


@pytest.mark.parametrize("category", ALL)
def test_generate_leaves_no_grammar_notation(category: str) -> None:
    for index in range(300):
        document = generate(category, index, 3)
        text = document.text or "\n".join(content for _, content in document.messages)
        assert "^" not in text
        assert "<@" not in text
        if category not in ("structured_output", "source_code"):
            assert not re.search(r"[<\[{][a-z@]", text)


def test_kinds_and_roles() -> None:
    for category in ALL:
        document = generate(category, 0, 0)
        assert document.kind == ("plain" if category in PLAIN_CATEGORIES else "chat")
        assert [role for role, _ in document.messages] == (
            [] if document.kind == "plain" else ["user", "assistant"]
        )
        assert bool(document.text) == (document.kind == "plain")


def test_answers_obey_their_prompts() -> None:
    counts = {"three": 3, "four": 4, "five": 5}
    checked = 0
    for index in range(400):
        (_, prompt), (_, text) = generate("instruction_following", index, 0).messages
        bullets = re.search(r"exactly (\w+) bullet", prompt)
        if bullets:
            assert text.count("- ") == len(text.splitlines()) == counts[bullets[1]]
            checked += 1
        tag = re.search(r"[Bb]egin every line with (\w+)", prompt)
        if tag:
            assert all(line.startswith(tag[1]) for line in text.splitlines())
            checked += 1
    assert checked > 20


def test_structured_output_echoes_the_keys() -> None:
    checked = 0
    for index in range(300):
        (_, prompt), (_, text) = generate("structured_output", index, 0).messages
        match = re.match(r"Return JSON for one \w+ with the fields (.*)\.", prompt)
        if match:
            json.loads(text)
            assert all(f'"{key}"' in text for key in match[1].split(", "))
            checked += 1
    assert checked


def test_a_claim_is_always_true_or_always_false() -> None:
    verdicts: dict[str, set[bool]] = {}
    for index in range(2000):
        (_, prompt), (_, text) = generate("factual_verification", index, 0).messages
        match = re.match(r"Verify the statement '(.*)'", prompt)
        false = re.search(
            r"false|inaccurate|a myth|refuted|mistaken|contradict|rule out", text, re.I
        )
        if match:
            verdicts.setdefault(match[1], set()).add(bool(false))
    assert verdicts
    assert all(len(found) == 1 for found in verdicts.values())


def test_unknown_category_is_refused() -> None:
    with pytest.raises(KeyError):
        generate("cooking", 0, 0)


def test_grammar_remembers_and_chooses() -> None:
    import random

    sampler = Sampler(random.Random(0), {"fruit": ("apple", "pear")})
    first, again, other = sampler.say("<@fruit> <@fruit> <@fruit.b>").split()
    assert first == again != other
    assert sampler.say("a^ [apple|orange]").startswith("an ")
    assert sampler.say("a^ pear") == "a pear"


def test_generate_is_fast() -> None:
    start = time.process_time()
    for index in range(300):
        for category in ALL:
            generate(category, index, 9)
    assert 300 * len(ALL) / (time.process_time() - start) > 5000
