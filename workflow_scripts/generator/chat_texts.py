"""Grammars of chat about given texts: summaries, and verdicts on claims."""

from __future__ import annotations

from workflow_scripts.generator.grammar import ChatRecipe, Recipe, Sampler

SUMMARIZATION = ChatRecipe(
    prompts=(
        "summarize: <@actor> met about <@matter>; after hours they chose to <@outcome>.",
        "give the gist: on <@matter>, <@actor> disagreed, then agreed to <@outcome>.",
        "condense this memo: <@actor> reviewed <@matter>. result: <@outcome>.",
        "tl;dr of the minutes? <@actor> presented <@matter>, and many spoke. decision: <@outcome>.",
        "shorten the following: <@actor>, worried by <@matter>, wish to <@outcome>.",
        "what are the key points here: <@matter>, raised by <@actor>, led them to <@outcome>?",
        "boil it down. <@actor> studied <@matter> for months and want to <@outcome>.",
        "write an abstract: <@matter> was examined by <@actor>, who will <@outcome>.",
    ),
    answer=Recipe(
        slots={
            "actor": (
                "the sales staff",
                "the architects",
                "the nurses",
                "the auditors",
                "the editors",
                "the shareholders",
                "the librarians",
                "the engineers on site",
            ),
            "matter": (
                "late deliveries",
                "the website redesign",
                "overtime rules",
                "the annual audit",
                "office relocation",
                "customer complaints",
                "the parking shortage",
            ),
            "outcome": (
                "hire two managers",
                "delay the launch",
                "switch suppliers",
                "run a pilot",
                "cut the agenda",
                "sign a contract",
                "extend the deadline",
                "open a branch",
            ),
            "brief": ("in brief", "overall", "in essence", "to sum up", "in a nutshell"),
            "part": (
                "main point",
                "takeaway",
                "core message",
                "central theme",
                "upshot",
                "headline",
            ),
            "minor": ("background", "repetition", "side remarks", "minor figures", "anecdotes"),
        },
        groups=(
            (
                "<brief>, <@actor> will <@outcome>.",
                "the <part>: <@actor> dealt with <@matter> and will <@outcome>.",
                "<@actor> considered <@matter> and settled on one thing, to <@outcome>.",
                "<@matter> prompted <@actor> to <@outcome>.",
                "the <part> is <@matter>.",
                "summary: <@matter>, <@actor>, decision to <@outcome>.",
                "faced with <@matter>, <@actor> decided to <@outcome>.",
                "the passage reports on <@matter> as seen by <@actor>.",
                "condensed to one line: <@actor> plan to <@outcome>.",
            ),
            (
                "the <part> concerns <@matter>; the rest is <minor>.",
                "opinions among <@actor> differed before they agreed.",
                "most of the text covers <@matter> and some <minor>.",
                "the cause was <@matter>, the consequence to <@outcome>.",
                "the <part> for readers: expect <@actor> to <@outcome>.",
                "omitted here are <minor> and <minor>.",
                "a second <part> is that <@matter> took time to resolve.",
                "the discussion moved from <@matter> to the proposal to <@outcome>.",
                "no date was fixed for it.",
                "responsibility rests with <@actor>.",
            ),
            (
                "<brief>: <@matter> solved, work goes on.",
                "everything else is <minor>.",
                "that is the <part> of the original.",
                "the text closes with the intention to <@outcome>.",
                "<brief>, <@matter> ended in a clear decision.",
                "details such as <minor> were left out.",
            ),
        ),
        plans=((0, 1, 2), (0, 1, 1), (0, 1, 1, 2), (0, 0, 1, 2), (0, 1, 1, 1), (1, 0, 1, 2)),
    ),
)

_CLAIM_PROMPTS = (
    "true or false: <@claim>?",
    "fact-check this claim: <@claim>.",
    "my uncle insists that <@claim>. is he right?",
    "verify the statement '<@claim>'.",
    "I read in a forum that <@claim>. correct?",
    "is there proof that <@claim>?",
    "myth or fact: <@claim>?",
    "rate the accuracy of: <@claim>.",
    "a textbook states that <@claim>. does the evidence agree?",
)
_CLAIM_SLOTS = {
    "claim": ("<@thing> <@property>",),
    "thing": (
        "gold",
        "mercury",
        "the Nile",
        "lightning",
        "the liver",
        "bamboo",
        "an octopus",
        "Antarctica",
        "honey",
        "Jupiter",
        "granite",
        "a penguin",
    ),
    "property": (
        "never decays",
        "conducts electricity",
        "is older than iron",
        "contains carbon",
        "weighs more than lead",
        "floats on seawater",
        "has three hearts",
        "reflects infrared",
        "doubles every decade",
        "dissolves in vinegar",
        "survives a vacuum",
    ),
    "true": ("true", "accurate", "correct", "confirmed", "well established"),
    "false": ("false", "inaccurate", "a myth", "refuted", "mistaken"),
    "proof": (
        "laboratory measurements",
        "satellite surveys",
        "peer-reviewed studies",
        "spectral analysis",
        "controlled trials",
        "isotope dating",
        "dissection",
    ),
    "field": ("physicists", "biologists", "geologists", "chemists", "astronomers"),
    "shown": ("demonstrated", "measured", "replicated", "documented", "disproved"),
    "rate": ("high", "moderate", "strong", "robust"),
}
_CLAIM_GROUPS = (
    (
        "verdict: <true>. <proof> show that <@thing> <@property>.",
        "this is <true>; <field> have <shown> it with <proof>.",
        "the statement holds: <@thing> <@property>, as <proof> indicate.",
        "<true>, with <rate> evidence from <proof>.",
        "rating: <true>, backed by <field>.",
    ),
    (
        "verdict: <false>. <proof> contradict the notion that <@thing> <@property>.",
        "the statement is <false>, since <field> <shown> the opposite.",
        "<false>: <proof> rule out that <@thing> <@property>.",
        "rating: <false>, as <field> pointed out.",
        "evidence against it is <rate>, so the claim is <false>.",
    ),
    (
        "<field> <shown> this repeatedly by means of <proof>.",
        "the <rate> agreement between <proof> and <proof> supports the verdict.",
        "among <field>, consensus is <rate>.",
        "data from <proof> on <@thing> leave little doubt.",
        "the best evidence comes from <proof>.",
        "earlier tests of <@thing> used <proof> and agreed.",
        "confusion arises because <thing> does behave that way.",
        "compare <thing>, for which <field> <shown> a different outcome.",
    ),
    (
        "confidence: <rate>.",
        "sources: <proof>, <proof>.",
        "strength of evidence: <rate>.",
        "reviewed by <field>.",
        "no credible <field> dispute this.",
        "last examined through <proof>.",
    ),
)
_TRUE = ChatRecipe(
    _CLAIM_PROMPTS,
    Recipe(
        _CLAIM_SLOTS,
        _CLAIM_GROUPS,
        ((0, 2, 2, 3), (0, 2, 2), (0, 2, 3, 3), (2, 0, 2, 3), (2, 0, 2)),
    ),
)
_FALSE = ChatRecipe(
    _CLAIM_PROMPTS,
    Recipe(
        _CLAIM_SLOTS,
        _CLAIM_GROUPS,
        ((1, 2, 2, 3), (1, 2, 2), (1, 2, 3, 3), (2, 1, 2, 3), (2, 1, 2)),
    ),
)


def write_factual_verification(sampler: Sampler) -> tuple[str, str]:
    """Write a claim and its verdict; whether a claim is true never varies between documents."""
    sampler.slots = _CLAIM_SLOTS
    thing = _CLAIM_SLOTS["thing"].index(sampler.recall("thing"))
    quality = _CLAIM_SLOTS["property"].index(sampler.recall("property"))
    return (_TRUE if (thing * 5 + quality * 3) % 7 < 4 else _FALSE).write(sampler)
