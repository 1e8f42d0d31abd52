"""Grammar of query classification: the label follows from the message, the cue from the label."""

from __future__ import annotations

from workflow_scripts.generator.grammar import Recipe, Sampler, capitalised

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
    return capitalised(prompt) + extra, answer
