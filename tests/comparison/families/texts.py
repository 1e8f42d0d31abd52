"""Three kinds of text by category: the generator's, invented languages, and installed packages.

The first is what the quickstart uses. The others occur in no word list and in no other test: an
invented language is a vocabulary of made-up words and the order in which they follow each other;
packages of this environment give docstrings, code, licences and descriptions.
"""

from __future__ import annotations

import ast
import hashlib
import os
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from pydoc_data import topics

from workflow_scripts.generator import CHAT_CATEGORIES, PLAIN_CATEGORIES, generate

SITE = Path(sysconfig.get_paths()["purelib"])
STANDARD = Path(os.__file__).parent
SHORTEST, LONGEST = 120, 320  # characters of a passage
MOST = 6000  # passages of a kind
HELD_OUT = 999  # seed of generated text that no model was taught
CONSONANTS = (
    "b",
    "d",
    "f",
    "g",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "sh",
    "tr",
    "kl",
)
VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
SYLLABLES = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]


def generator(*keys: object) -> random.Random:
    """Return a random number generator for some keys, the same in every process."""
    return random.Random(hashlib.sha256(repr(keys).encode()).hexdigest())


def generated(category: str, count: int, seed: int | str) -> list[str]:
    """Return documents of the built-in generator; roles of chat are plain markers."""
    documents = (
        generate(category, index, HELD_OUT if seed == "eval" else int(seed))
        for index in range(count)
    )
    return [
        d.text
        if d.kind == "plain"
        else "".join(f"<|{role}|>\n{text}\n" for role, text in d.messages)
        for d in documents
    ]


@cache
def language(name: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the words of an invented language, a fifth of them common, and what follows each."""
    rng = generator("lex", name)
    common = ["".join(generator("sh", i).choices(SYLLABLES, k=1 + i % 2)) for i in range(25)]
    own = ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(90)]
    words = common + own
    return words, {word: rng.sample(words, 6) for word in words}


def spoken(name: str, count: int, seed: int | str) -> list[str]:
    """Return documents of an invented language; a third of the languages is question and answer."""
    words, follow = language(name)
    chat = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0
    documents = []
    for index in range(count):
        rng = generator(name, index, HELD_OUT if seed == "eval" else seed)
        sentences = []
        for _ in range(rng.randint(2, 5)):
            sentence = [rng.choice(words)]
            for _ in range(rng.randint(4, 9)):
                sentence += rng.choices(follow[sentence[-1]], weights=(8, 4, 2, 2, 1, 1))
            sentences.append(" ".join(sentence).capitalize() + rng.choice(".?!."))
        rest = " ".join(sentences[1:])
        documents.append(f"Q: {sentences[0]}\nA: {rest}" if chat else f"{sentences[0]} {rest}")
    return documents


def passages(text: str) -> list[str]:
    """Return a text cut at blank lines into passages of a few hundred characters."""
    found, held = [], ""
    for line in text.split("\n"):
        if len(held) > SHORTEST and (not line.strip() or len(held) + len(line) > LONGEST):
            found.append(held.strip())
            held = ""
        held += line + "\n"
    if len(held) > SHORTEST:
        found.append(held.strip())
    return [passage[:LONGEST] for passage in found]


def sources(folder: Path) -> Iterator[str]:
    """Yield the Python files of a folder, without tests."""
    for path in sorted(folder.rglob("*.py")):
        if "test" not in str(path.relative_to(folder)):
            yield path.read_text(encoding="utf-8", errors="ignore")


def docstrings(*folders: str) -> list[str]:
    """Return passages of the docstrings of packages."""
    found: list[str] = []
    for source in (text for folder in folders for text in sources(SITE / folder)):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                found += passages(text) if len(text) > 150 else []
        if len(found) > MOST:
            break
    return found


def code(*folders: Path) -> list[str]:
    """Return passages of code without docstrings."""
    found: list[str] = []
    for source in (text for folder in folders for text in sources(folder)):
        found += passages(re.sub(r'"""[\s\S]*?"""', "", source)) if len(source) < 200_000 else []
        if len(found) > MOST:
            break
    return found


def described(pattern: str) -> list[str]:
    """Return passages of files beside installed packages."""
    found: list[str] = []
    for path in sorted(path for path in SITE.glob(pattern) if path.is_file()):
        found += passages(path.read_text(encoding="utf-8", errors="ignore"))
        if len(found) > MOST:
            break
    return found


REAL: dict[str, Callable[[], list[str]]] = {
    "torch_docs": lambda: docstrings("torch/nn"),
    "pandas_docs": lambda: docstrings("pandas/core"),
    "numpy_docs": lambda: docstrings("numpy/lib"),
    "scipy_stats_docs": lambda: docstrings("scipy/stats"),
    "transformers_code": lambda: code(SITE / "transformers/models"),
    "stdlib_code": lambda: code(*(STANDARD / name for name in ("asyncio", "email", "unittest"))),
    "licences": lambda: described("*.dist-info/**/LICEN*"),
    "readmes": lambda: described("*.dist-info/METADATA"),
    "sklearn_docs": lambda: docstrings(
        "sklearn/linear_model", "sklearn/cluster", "sklearn/ensemble"
    ),
    "matplotlib_docs": lambda: docstrings("matplotlib/axes"),
    "language_help": lambda: [p for text in topics.topics.values() for p in passages(text)],
    "snakemake_code": lambda: code(SITE / "snakemake"),
}


@cache
def real(kind: str) -> list[str]:
    """Return all passages of a kind of real text, in random order, each once."""
    found = list(dict.fromkeys(REAL[kind]()))
    generator("order", kind).shuffle(found)
    return found


def installed(kind: str, count: int, seed: int | str) -> list[str]:
    """Return passages of a kind of real text: two thirds are for training, the rest is held out."""
    found = real(kind)
    taught = 2 * len(found) // 3
    return (found[taught:] if seed == "eval" else found[:taught])[:count]


WRITERS = {"generated": generated, "invented": spoken, "real": installed}
CATEGORIES = {
    "generated": [*PLAIN_CATEGORIES, *CHAT_CATEGORIES],
    "invented": [f"tongue{index}" for index in range(40)],
    "real": list(REAL),
}
