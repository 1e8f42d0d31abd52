"""Grammars of the formal categories of plain text: source code and arithmetic."""

from __future__ import annotations

from workflow_scripts.generator.grammar import Sampler

VERBS = ("load", "parse", "count", "filter", "merge", "sort", "find", "update", "build", "check")
NOUNS = ("items", "rows", "nodes", "values", "keys", "edges", "users", "files", "tokens", "words")
SINGLES = {noun: noun[:-1] for noun in NOUNS}
FIELDS = ("index", "total", "result", "cache", "limit", "offset", "depth", "queue", "stack")
TYPES = ("int", "str", "float", "bool", "list", "dict")
TESTS = ("is None", "== 0", "> limit", "not in cache", "< 0", "in seen", "!= result")
CALLS = ("append", "add", "remove", "insert", "update", "pop")
PARITY = ("even", "odd")
ERRORS = ("ValueError", "KeyError", "TypeError", "IndexError", "RuntimeError")


def write_code(sampler: Sampler) -> str:
    """Write one or two Python functions whose names and variables agree."""
    blocks = [_function(sampler)]
    while len(blocks) < 3 and len(" ".join(blocks)) < 260:
        blocks.append(sampler.pick((_function, _loop, _class))(sampler))
    if sampler.below(3) == 0:
        module = sampler.pick(("os", "sys", "json", "math", "re", "itertools", "logging"))
        blocks.insert(0, f"import {module}\n")
    return "\n".join(blocks)


def _function(sampler: Sampler) -> str:
    noun = sampler.pick(NOUNS)
    name = f"{sampler.pick(VERBS)}_{noun}"
    field = sampler.pick(FIELDS)
    start = sampler.pick(("0", "[]", "{}", "None", "set()", "1", '""'))
    head = f"def {name}({noun}, {sampler.pick(FIELDS)}={sampler.below(10)}):"
    lines = [head, f"    {field} = {start}", f"    for {SINGLES[noun]} in {noun}:"]
    lines += _body(sampler, SINGLES[noun], field)
    lines.append(f"    return {field}")
    return "\n".join(lines) + "\n"


def _body(sampler: Sampler, item: str, field: str) -> list[str]:
    lines = [f"        if {item} {sampler.pick(TESTS)}:"]
    lines.append(
        sampler.pick(
            (
                "            continue",
                "            break",
                f"            raise {sampler.pick(ERRORS)}({item})",
                f"            {field} = {item}",
                f"            return {field}",
            )
        )
    )
    lines.append(
        sampler.pick(
            (
                f"        {field}.{sampler.pick(CALLS)}({item})",
                f"        {field} += {item}",
                f"        {field}[{item}] = {sampler.pick(FIELDS)}",
                f"        {field} = max({field}, {item})",
                f"        print({field}, {item})",
                f"        {field} = {sampler.pick(VERBS)}({item}, {field})",
            )
        )
    )
    return lines


def _loop(sampler: Sampler) -> str:
    noun, field = sampler.pick(NOUNS), sampler.pick(FIELDS)
    call = f"{sampler.pick(VERBS)}_{noun}"
    return sampler.pick(
        (
            f"while len({noun}) > {sampler.below(10)}:\n    {field} = {noun}.pop()\n"
            f"    {call}({field})\n",
            f"try:\n    {noun} = {call}({field})\nexcept {sampler.pick(ERRORS)} as error:\n"
            f"    print(error)\n",
            f"{field} = [{call}(x) for x in {noun} if x {sampler.pick(TESTS)}]\nprint({field})\n",
            f"with open({field}) as handle:\n    {noun} = handle.read().split()\n",
            f"assert {call}({noun}) == {sampler.below(100)}\n",
            f"{field} = {{key: len(key) for key in {noun}}}\nreturn {field}\n",
        )
    )


def _class(sampler: Sampler) -> str:
    noun, field = sampler.pick(NOUNS), sampler.pick(FIELDS)
    name = SINGLES[noun].capitalize()
    kind = sampler.pick(TYPES)
    return (
        f"class {name}:\n    def __init__(self, {field}: {kind}) -> None:\n"
        f"        self.{field} = {field}\n\n    def {sampler.pick(VERBS)}(self):\n"
        f"        return self.{field}\n"
    )


def write_arithmetic(sampler: Sampler) -> str:
    """Write a few exercises with right answers."""
    lines: list[str] = []
    while len(" ".join(lines)) < 200 + sampler.below(120):
        lines.append(sampler.pick(EXERCISES)(sampler))
    return sampler.pick((" ", "\n")).join(lines)


def _sum(sampler: Sampler) -> str:
    a, b = sampler.below(60) + 2, sampler.below(60) + 2
    return sampler.pick(
        (
            f"{a} + {b} = {a + b}.",
            f"Add {a} and {b} to get {a + b}.",
            f"The sum of {a} and {b} equals {a + b}.",
            f"{a} plus {b} is {a + b}, so {a + b} minus {b} is {a}.",
            f"{a + b} - {b} = {a}.",
            f"Subtracting {a} from {a + b} leaves {b}.",
        )
    )


def _product(sampler: Sampler) -> str:
    a, b = sampler.below(11) + 2, sampler.below(11) + 2
    return sampler.pick(
        (
            f"{a} * {b} = {a * b}.",
            f"{a} times {b} makes {a * b}.",
            f"The product of {a} and {b} equals {a * b}.",
            f"{a * b} divided by {b} gives {a}.",
            f"{a * b} / {a} = {b}.",
            f"Multiply {a} by {b}: {a * b}.",
        )
    )


def _unknown(sampler: Sampler) -> str:
    x, factor, shift = sampler.below(12) + 1, sampler.below(8) + 2, sampler.below(20)
    letter = sampler.pick("xyznk")
    return sampler.pick(
        (
            f"Solve {factor}{letter} + {shift} = {factor * x + shift}: {letter} = {x}.",
            f"If {letter} = {x}, then {factor}{letter} = {factor * x}.",
            f"Let {letter} be {x}. The square of {letter} is {x * x}.",
            f"Since {factor}{letter} = {factor * x}, we have {letter} = {x}.",
        )
    )


def _compare(sampler: Sampler) -> str:
    a, b = sampler.below(90) + 1, sampler.below(90) + 1
    sign = "<" if a < b else ">" if a > b else "="
    whole = (sampler.below(9) + 1) * 20
    return sampler.pick(
        (
            f"{a} {sign} {b}.",
            f"Half of {2 * a} equals {a}.",
            f"{a % 10 * 10 + 10} percent of {whole} is {(a % 10 * 10 + 10) * whole // 100}.",
            f"The remainder of {a + 10} divided by 7 is {(a + 10) % 7}.",
            f"{a} is {PARITY[a % 2]} and {b} is {PARITY[b % 2]}.",
            f"A rectangle of {a} by {b % 9 + 2} has area {a * (b % 9 + 2)}.",
            f"The average of {a} and {a + 2 * (b % 9)} is {a + b % 9}.",
        )
    )


EXERCISES = (_sum, _product, _unknown, _compare)
