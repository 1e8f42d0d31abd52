"""How reliable the names of latents and an LLM's labels of documents are.

For latents: answers, detection, the lexical baseline, agreement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.figures.report_tables import Table, number
from workflow_scripts.figures.style import readable

Numbers = Mapping[str, Any]
DETECTION = {
    "all": "auroc_median",
    "hard": "auroc_hard_median",
    "strong": "auroc_top_median",
    "weaker": "auroc_quantile_median",
    "null": "null_auroc_mean",
}
AGREEMENT = ("Krippendorff's α", "reliable", "pairs")
TOKENS = ("token_f1_median", "simulation_r_median")
VERDICTS = {True: "better", False: "worse", None: "cannot be told"}


def annotator_table(fits: Mapping[str, FitFiles]) -> Table | None:
    """Return a row per crosscoder and annotator; None where there was no annotator."""
    rows = [
        [place, *_annotator(name, annotator, summary["floor"].get(name))]
        for place, summary in _summaries(fits)
        for name, annotator in sorted(
            summary["annotators"].items(), key=lambda item: bool(item[1]["llm_used"])
        )
    ]
    header = ["crosscoder", "annotator", "answers", "named", "passed the gate"]
    header += ["AUROC", "on tokens: F1, r", "lead over counting words"]
    caption = (
        "Annotators: how many latents they name, and how well their explanations tell on which "
        "unseen contexts a latent fires (median AUROC, chance is 0.50; hard: against lexically "
        "near contexts only; strong and weaker: of those in which it fires; null: explanations of "
        "other latents) and, for counted words, on which of their tokens (medians of F1 and of "
        "Pearson's r with the activation; about 0 for terms that say nothing)"
    )
    return Table(caption, header, rows) if rows else None


def _annotator(name: str, annotator: Numbers, floor: Numbers | None) -> list[str]:
    counts = sorted(annotator["statuses"].items(), key=lambda item: -int(item[1]))
    statuses = "\n".join(f"{count} {readable(str(name))}" for name, count in counts)
    counted = not annotator["llm_used"]
    return [
        f"{name}\n{'no LLM' if counted else 'LLM'}",
        statuses,
        _share(annotator["coverage"]),
        _share(annotator["gate_passed"]),
        "\n".join(f"{name} {_number(annotator[figure])}" for name, figure in DETECTION.items()),
        ", ".join(_number(annotator[figure]) for figure in TOKENS) if counted else "not measured",
        _lead(floor) if floor else "is the floor",
    ]


def _lead(floor: Numbers) -> str:
    if floor["lead"] is None:
        return "cannot be told"
    bounds = f"{_number(floor['low'], sign=True)} … {_number(floor['high'], sign=True)}"
    return f"{_number(floor['lead'], sign=True)} ({bounds})\n{_verdict(floor)}"


def _verdict(floor: Numbers) -> str:
    """Return whether the interval of the lead lies above 0, below it, or around it."""
    if floor["low"] is None or floor["low"] <= 0 <= floor["high"]:
        return VERDICTS[None]
    return VERDICTS[bool(floor["low"] > 0)]


def agreement_table(fits: Mapping[str, FitFiles]) -> Table | None:
    """Return a row per crosscoder whose annotators can be compared; None where none can."""
    rows = []
    for place, agreement in _agreements(fits):
        group = agreement["llm"]
        alpha = group["alpha"]
        if alpha["value"] is None:
            continue
        cells = [place, str(group["labels"]), str(group["missing"])]
        rows.append([*cells, *_agreement(group, agreement)])
    header = ["crosscoder", "labels", "missing", *AGREEMENT]
    caption = "Agreement of the LLM's annotators on categories, before the gate"
    return Table(caption, header, rows) if rows else None


def _agreement(group: Numbers, facts: Numbers) -> list[str]:
    """Return the cells on alpha, on what it allows, and on pairs of raters."""
    alpha, reliable = group["alpha"], "cannot be told"
    if facts["reliable"] is not None:
        reliable = "yes" if facts["reliable"] else f"no: below {facts['reliable_from']}"
    pairs = [
        f"{' and '.join(pair['raters'])}: κ {_number(pair['kappa'])},"
        f" the same for {_share(pair['agreement'])}"
        for pair in group["pairs"]
    ]
    bounds = f"{_number(alpha['low'])} … {_number(alpha['high'])}"
    return [f"{_number(alpha['value'])} ({bounds})", reliable, "\n".join(pairs)]


def labelling_tables(facts: Numbers | None) -> list[Table]:
    """Return how an LLM's annotators labelled documents: in all, and label by label."""
    if facts is None:
        return []
    counts = ("documents", "labelled", "unassigned", "disagreed", "unanswered")
    cells = [str(facts[name]) for name in counts]
    total = Table(
        "The LLM's labels of documents: a label counts where more than half of the answers give it",
        [*counts, *AGREEMENT],
        [[*cells, *_agreement(facts["agreement"], facts)]],
    )
    rows = [
        [
            name,
            str(facts["labels"].get(name, 0)),
            str(category["named"]),
            _number(category["alpha"]),
            _number(category["kappa"]),
        ]
        for name, category in sorted(facts["agreement"]["categories"].items())
    ]
    header = ["label", "documents", "answers", "α of naming it or not", "mean κ of pairs"]
    return [total, Table("Agreement on documents, by label", header, rows)]


def no_agreement(fits: Mapping[str, FitFiles]) -> str | None:
    """Return why there is no agreement to show; None where there is some, or no annotator."""
    groups = [agreement["llm"] for _, agreement in _agreements(fits)]
    raters = max((len(group["raters"]) for group in groups), default=0)
    if not raters or any(group["alpha"]["value"] is not None for group in groups):
        return None
    if raters < 2:
        return "Agreement cannot be measured: it takes two annotators of an LLM, or replicates."
    return (
        "Agreement cannot be measured: the annotators have too few answers in common, or gave all "
        "latents one and the same category."
    )


def truth_tables(fits: Mapping[str, FitFiles]) -> list[Table]:
    """Return, per annotator, its categories against the true ones, all crosscoders together."""
    truths = [files.read_json(path)["annotators"] for _, path in _paths(fits, "truth")]
    names = sorted({name for annotators in truths for name in annotators})
    return [_truth_table(name, [a[name] for a in truths if name in a]) for name in names]


def _truth_table(name: str, crosscoders: Sequence[Numbers]) -> Table:
    categories = sorted({category for c in crosscoders for category in c["categories"]})
    rows = []
    for category in categories:
        counts = [c["categories"][category] for c in crosscoders if category in c["categories"]]
        detection = [f["auroc_median"] for f in counts if f["auroc_median"] is not None]
        span = f"{_number(min(detection))} … {_number(max(detection))}" if detection else "n/a"
        cells = [_sum(counts, "recall"), _sum(counts, "precision"), span]
        rows.append([readable(category), *cells])
    assigned, right = _sum(crosscoders, "coverage"), _sum(crosscoders, "accuracy")
    without = _sum(crosscoders, "assigned_without_true_category")
    caption = (
        f"{name} against the true categories: named {assigned} that have one, right {right}; and "
        f"{without} that have none"
    )
    header = ["true category", "found, of all latents of it"]
    header += ["right, of all called so (of no true category included)"]
    header += ["median AUROC, over crosscoders"]
    return Table(caption, header, rows)


def _sum(parts: Sequence[Numbers], name: str) -> str:
    count, total = (sum(int(part[name][key]) for part in parts) for key in ("count", "of"))
    share = f" ({number(100 * count / total, 0)} %)" if total else ""
    return f"{count} of {total}{share}"


def warnings(fits: Mapping[str, FitFiles], labelling: Numbers | None = None) -> list[str]:
    """Return what a reader of an LLM's names and labels must know first, each once."""
    sentences = []
    if labelling is not None and not labelling["reliable"]:
        unknown = labelling["reliable"] is None
        why = "unknown" if unknown else f"below {labelling['reliable_from']}"
        sentences.append(f"the LLM's labels of documents may not be reliable: their alpha is {why}")
    for _, agreement in _agreements(fits):
        if agreement["llm"]["labels"] and agreement["banner"]:
            sentences.append(str(agreement["banner"]))
    for _, summary in _summaries(fits):
        for name, floor in summary["floor"].items():
            if _verdict(floor) != VERDICTS[True]:
                sentences.append(f"{name} is not shown to explain better than counting words does")
    return list(dict.fromkeys(sentences))


def canary_sentence(fits: Mapping[str, FitFiles]) -> str | None:
    """Return how many orders hidden in examples were obeyed; None where none was hidden."""
    canaries = [summary["canaries"] for _, summary in _summaries(fits) if summary.get("canaries")]
    answered, followed = (sum(int(f[name]) for f in canaries) for name in ("answered", "followed"))
    if not answered:
        return None
    return (
        f"Of {answered} answers to examples that hid an order to name another category, {followed} "
        "obeyed it."
    )


def _summaries(fits: Mapping[str, FitFiles]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((place, files.read_json(path)) for place, path in _paths(fits, "annotators"))


def _agreements(fits: Mapping[str, FitFiles]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((place, files.read_json(path)) for place, path in _paths(fits, "agreement"))


def _paths(fits: Mapping[str, FitFiles], name: str) -> Iterator[tuple[str, Path]]:
    for fit, files_of in fits.items():
        for seed, source in files_of.seeds.items():
            path = getattr(source, name)
            if path is not None:
                yield f"{fit}, seed {seed}", path


def _number(value: float | None, sign: bool = False) -> str:
    return number(math.nan if value is None else value, 2, sign)


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{number(100 * value, 0)} %"
