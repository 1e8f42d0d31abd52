"""Grammars of chat whose answers have a given form: instructions and structured output."""

from __future__ import annotations

from workflow_scripts.generator.grammar import Sampler

# --- instruction following: an explicit constraint in the prompt, obeyed by the answer ----------

_SUBJECTS = (
    "bicycles",
    "coffee",
    "chess",
    "volcanoes",
    "camping",
    "sleep",
    "elephants",
    "trains",
    "yoga",
    "umbrellas",
    "museums",
    "sailing",
)
_NUMBERS = ("three", "four", "five")
_INSTRUCTION_SLOTS = {
    "subject": _SUBJECTS,
    "noun": (
        "comfort",
        "history",
        "cost",
        "design",
        "popularity",
        "safety",
        "speed",
        "weight",
        "care",
        "variety",
        "durability",
    ),
    "adj": ("simple", "affordable", "reliable", "pleasant", "versatile", "durable", "practical"),
    "verb": ("requires", "rewards", "attracts", "offers", "deserves", "combines", "improves"),
    "whom": ("beginners", "families", "tourists", "professionals", "collectors", "pensioners"),
    "often": ("usually", "rarely", "always", "frequently", "seldom"),
    "tag": ("NOTE", "POINT", "FACT", "ITEM", "LINE"),
    "end": ("OVER", "DONE", "STOP", "FINIS"),
}
_STATEMENTS = (
    "<adj> <noun> <verb> <whom>",
    "<whom> <often> praise the <noun>",
    "<noun> and <noun> matter to <whom>",
    "<often> <adj>, thanks to <noun>",
    "no <noun> without <noun>",
    "<adj> for <whom>, <adj> for <whom>",
    "<noun> <often> <verb> attention",
    "the <noun> is <often> <adj>",
    "<whom> compare <noun> with <noun>",
    "good <noun> <verb> <adj> habits",
    "<whom> pay for <noun>",
    "watch the <noun>, check the <noun>",
    "the <noun> of <@subject> is <adj>",
    "<whom> <often> discuss <@subject>",
    "in <@subject>, <noun> beats <noun>",
    "think of <@subject> as <adj>",
)


def write_instruction_following(sampler: Sampler) -> tuple[str, str]:
    """Write a constrained task and an answer that obeys it."""
    sampler.slots = _INSTRUCTION_SLOTS
    task = sampler.pick(
        (_bullets, _prefixed, _numbered, _upper, _ending, _sandwich, _alternate, _separated)
    )
    return task(sampler)


def _lines(sampler: Sampler, count: int) -> list[str]:
    texts = [sampler.say(frame) for frame in sampler.several(_STATEMENTS, count)]
    return [text[:1].upper() + text[1:] for text in texts]


def _count(sampler: Sampler) -> tuple[str, int]:
    index = sampler.below(len(_NUMBERS))
    return _NUMBERS[index], index + 3


def _bullets(sampler: Sampler) -> tuple[str, str]:
    word, count = _count(sampler)
    prompt = sampler.sentence(
        (
            f"describe <@subject> in exactly {word} bullet points.",
            f"use {word} bullets, no more and no less, to present <@subject>.",
            f"exactly {word} dashes, please: <@subject>.",
        )
    )
    return prompt, "\n".join(f"- {line}." for line in _lines(sampler, count))


def _prefixed(sampler: Sampler) -> tuple[str, str]:
    word, count = _count(sampler)
    prompt = sampler.sentence(
        (
            f"begin every line with <@tag> and write {word} lines on <@subject>.",
            f"{word} lines about <@subject>, each starting with the word <@tag>.",
            f"each of your {word} lines must open with <@tag>. theme: <@subject>.",
        )
    )
    tag = sampler.recall("tag")
    return prompt, "\n".join(f"{tag}: {line}." for line in _lines(sampler, count))


def _numbered(sampler: Sampler) -> tuple[str, str]:
    word, count = _count(sampler)
    prompt = sampler.sentence(
        (
            f"give {word} numbered remarks about <@subject>.",
            f"number your {word} remarks; the theme is <@subject>.",
            f"rank {word} aspects of <@subject> from 1 to {count}.",
        )
    )
    lines = _lines(sampler, count)
    return prompt, "\n".join(f"{number}) {line}." for number, line in enumerate(lines, 1))


def _upper(sampler: Sampler) -> tuple[str, str]:
    word, count = _count(sampler)
    prompt = sampler.sentence(
        (
            f"write {word} short lines about <@subject>, and no capital letters at all.",
            f"lowercase only: {word} lines on <@subject>.",
            f"avoid capitals and full stops. {word} lines, theme <@subject>.",
        )
    )
    return prompt, "\n".join(line.lower() for line in _lines(sampler, count))


def _ending(sampler: Sampler) -> tuple[str, str]:
    prompt = sampler.sentence(
        (
            "comment on <@subject> and finish with the word <@end>.",
            "your last word must be <@end>. theme: <@subject>.",
            "say something on <@subject>; close with <@end>.",
        )
    )
    lines = _lines(sampler, 4 + sampler.below(3))
    return prompt, f"{'. '.join(lines)}. {sampler.recall('end')}"


def _sandwich(sampler: Sampler) -> tuple[str, str]:
    prompt = sampler.sentence(
        (
            "put <@subject> in the first and last line, with remarks in between.",
            "start and end with the word <@subject>, nothing else on those lines.",
            "frame your remarks by <@subject> above and below.",
        )
    )
    subject = sampler.recall("subject").capitalize()
    return prompt, "\n".join(
        [subject, *(f"{x}." for x in _lines(sampler, 3 + sampler.below(2))), subject]
    )


def _alternate(sampler: Sampler) -> tuple[str, str]:
    first, second = sampler.pick((("PRO", "CON"), ("Q", "A"), ("A", "B"), ("PLUS", "MINUS")))
    prompt = sampler.sentence(
        (
            f"alternate between {first} and {second} on <@subject>, two of each.",
            f"label lines {first}, {second}, {first}, {second}; discuss <@subject>.",
        )
    )
    marks = (first, second, first, second)
    lines = _lines(sampler, 4)
    return prompt, "\n".join(f"{mark}: {x}." for mark, x in zip(marks, lines, strict=True))


def _separated(sampler: Sampler) -> tuple[str, str]:
    mark, name = sampler.pick(
        (("|", "bars"), ("/", "slashes"), ("*", "stars"), ("+", "plus signs"))
    )
    word, count = _count(sampler)
    prompt = sampler.sentence(
        (
            f"{word} remarks about <@subject>, separated by {name}.",
            f"join {word} remarks on <@subject> with {name} instead of full stops.",
        )
    )
    return prompt, f" {mark} ".join(_lines(sampler, count))


# --- structured output: keys echo the fields that the prompt asks for --------------------------

_VALUES: dict[str, tuple[str, ...]] = {
    "id": ("1042", "2077", "3310", "4585", "5921"),
    "name": ("Ann Lee", "Raj Patel", "Olga Berg", "Tom Cruz", "Mei Chan"),
    "email": ("ann@mail.org", "raj@mail.org", "olga@corp.net", "mei@corp.net"),
    "price": ("9.99", "14.50", "24.00", "120.75", "3.20"),
    "status": ("active", "pending", "shipped", "cancelled", "archived"),
    "quantity": ("1", "2", "6", "12", "40"),
    "color": ("red", "navy", "beige", "teal"),
    "date": ("2021-03-14", "2022-11-02", "2023-07-29", "2024-01-05"),
    "country": ("PT", "CA", "IN", "NO", "BR"),
    "category": ("toys", "garden", "office", "audio"),
    "rating": ("1.5", "3.0", "4.2", "4.9"),
    "tags": ("new", "sale", "gift", "eco"),
    "phone": ("555-0101", "555-0144", "555-0190"),
    "role": ("admin", "editor", "viewer", "owner"),
}
_NUMERIC = frozenset({"id", "price", "quantity", "rating"})
_RECORDS = ("order", "customer", "product", "invoice", "employee", "ticket", "account", "parcel")


def write_structured_output(sampler: Sampler) -> tuple[str, str]:
    """Write a request for a record with given fields and the record as JSON, YAML or a table."""
    fields = sampler.several(tuple(_VALUES), 3 + sampler.below(3))
    record = sampler.pick(_RECORDS)
    kind, render = sampler.pick(
        (("JSON", _json), ("YAML", _yaml), ("a table", _table), ("XML", _xml), ("CSV", _csv))
    )
    asked = ", ".join(fields)
    prompt = sampler.pick(
        (
            f"Return {kind} for one {record} with the fields {asked}.",
            f"{record.capitalize()} schema: {asked}. Output as {kind}.",
            f"Format a sample {record} as {kind}. Keys: {asked}.",
            f"I need {kind}: {record} ({asked}).",
            f"Serialize the {record} to {kind}, columns {asked}.",
            f"Please emit {kind} containing {asked} of each {record}.",
        )
    )
    return prompt, render(sampler, record, fields)


def _value(sampler: Sampler, name: str, *, quoted: bool) -> str:
    value = sampler.pick(_VALUES[name])
    return f'"{value}"' if quoted and name not in _NUMERIC else value


def _json(sampler: Sampler, record: str, fields: list[str]) -> str:
    def one() -> str:
        pairs = [f'"{name}": {_value(sampler, name, quoted=True)}' for name in fields]
        return "{" + (",\n  " if spread else ", ").join(pairs) + "}"

    spread = sampler.below(2) == 0
    shape = sampler.below(3)
    if shape == 0:
        return "[" + one() + ",\n" + one() + "]"
    return one() if shape == 1 else f'{{"{record}": {one()}, "valid": true}}'


def _yaml(sampler: Sampler, record: str, fields: list[str]) -> str:
    items = []
    for _ in range(1 + sampler.below(2)):
        pairs = [f"{name}: {_value(sampler, name, quoted=False)}" for name in fields]
        items.append("  - " + "\n    ".join(pairs))
    return f"{record}s:\n" + "\n".join(items)


def _table(sampler: Sampler, record: str, fields: list[str]) -> str:
    rows = [" | ".join(fields), " | ".join("---" for _ in fields)]
    for _ in range(2 + sampler.below(2)):
        rows.append(" | ".join(_value(sampler, name, quoted=False) for name in fields))
    return "\n".join(f"| {row} |" for row in rows)


def _xml(sampler: Sampler, record: str, fields: list[str]) -> str:
    inner = [f"  <{name}>{_value(sampler, name, quoted=False)}</{name}>" for name in fields]
    return f"<{record}>\n" + "\n".join(inner) + f"\n</{record}>"


def _csv(sampler: Sampler, record: str, fields: list[str]) -> str:
    rows = [",".join(fields)]
    for _ in range(3 + sampler.below(2)):
        rows.append(",".join(_value(sampler, name, quoted=False) for name in fields))
    return "\n".join(rows)
