"""Grammars of chat whose answers obey a form: instructions, structured output, labels."""

from __future__ import annotations

from workflow_scripts.dataset.generator.grammar import Recipe, Sampler, capitalised

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


# --- query classification: the label follows from the message ----------------------------------

_INTENTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "refund_request": (
        "billing",
        (
            "I was charged twice",
            "send my money back",
            "the invoice is wrong",
            "cancel and reimburse me",
        ),
        ("charged", "money", "reimbursement", "invoice"),
    ),
    "password_reset": (
        "access",
        ("I forgot my password", "my login fails", "the code never arrived", "I'm locked out"),
        ("login", "password", "locked", "code"),
    ),
    "delivery_tracking": (
        "shipping",
        ("where is my parcel", "the courier is late", "my package got lost", "track my shipment"),
        ("parcel", "courier", "shipment", "package"),
    ),
    "bug_report": (
        "technical",
        ("the app crashes", "the screen freezes", "the button does nothing", "it shows error 500"),
        ("crash", "freeze", "button", "error code"),
    ),
    "sales_inquiry": (
        "commerce",
        (
            "do you offer discounts",
            "how much is the premium plan",
            "can I get a quote",
            "is there a trial",
        ),
        ("discount", "plan", "quote", "trial"),
    ),
    "praise": (
        "feedback",
        (
            "your team was great",
            "I love the update",
            "five stars from me",
            "thanks for the fast reply",
        ),
        ("love", "thanks", "stars", "great"),
    ),
    "small_talk": (
        "chitchat",
        ("what's up", "how was your weekend", "nice weather, huh", "hello there, bot"),
        ("greeting", "weekend", "weather", "hello"),
    ),
}
_CLASSIFY_PROMPTS = (
    "classify the query: '{message}'.",
    "which intent fits '{message}'?",
    "assign a label to this message: '{message}'.",
    "route the incoming query '{message}' to a queue.",
    "'{message}' - detect intent and topic.",
    "label: '{message}'. pick one of {labels}.",
    "intent detection. input: '{message}'.",
    "tag the utterance '{message}' with one of {labels}.",
)
_CLASSIFY = Recipe(
    slots={
        "signal": ("cue", "trigger", "keyword", "signal", "marker"),
        "level": ("0.71", "0.78", "0.84", "0.89", "0.93", "0.97"),
        "urgency": ("low", "normal", "urgent"),
        "tone": ("neutral", "annoyed", "cheerful", "impatient"),
        "queue": ("tier one", "tier two", "self-service", "escalation"),
        "label": ("{label}",),
        "topic": ("{topic}",),
        "cue": ("{cue}",),
        "other": ("{other}",),
    },
    groups=(
        (
            "intent: <label>.",
            "label = <label>.",
            "this query falls under <label>.",
            "predicted class: <label> (<topic>).",
            "<label>, score <level>.",
            "topic <topic>, intent <label>.",
            "I would tag it <label>.",
            "best match: <label>; runner-up: <other>.",
            "category <topic> -> <label>.",
        ),
        (
            "the <signal> '<cue>' points to <topic>.",
            "runner-up <other> scored lower than <level>.",
            "ruled out: <other>, because no <signal> for it occurs.",
            "tone: <tone>; urgency: <urgency>.",
            "<signal> words such as '<cue>' separate <label> from <other>.",
            "detected <signal>: <cue>.",
            "probability <level> for <label>.",
            "the utterance sounds <tone>, urgency <urgency>.",
            "topic cluster: <topic>.",
            "not <other>, since '<cue>' is typical of <topic>.",
        ),
        (
            "route to <queue>.",
            "queue: <topic>, <queue>.",
            "priority <urgency>.",
            "forward to the <topic> desk.",
            "certainty <level>.",
            "needs review: [no|yes].",
            "secondary label: none.",
        ),
    ),
    plans=(
        (0, 1, 1, 2),
        (0, 1, 1, 1),
        (0, 1, 1, 2, 2),
        (0, 1, 1, 1, 2),
        (1, 0, 1, 2),
        (0, 2, 1, 1),
        (1, 0, 1, 2),
    ),
)


def write_query_classification(sampler: Sampler) -> tuple[str, str]:
    """Write a message to label and the label that belongs to it, with its cue."""
    label, other, third = sampler.several(tuple(_INTENTS), 3)
    topic, messages, cues = _INTENTS[label]
    which = sampler.below(len(messages))
    labels = ", ".join(sorted((label, other, third)))
    prompt = sampler.pick(_CLASSIFY_PROMPTS).format(message=messages[which], labels=labels)
    extra = sampler.pick(("", "", " Be brief.", " Explain your label.", " Name the cue."))
    sampler.slots = _CLASSIFY.slots
    answer = _CLASSIFY.write(sampler).format(
        label=label, topic=topic, cue=sampler.pick(cues), other=other
    )
    return capitalised(prompt) + extra, capitalised(answer)
