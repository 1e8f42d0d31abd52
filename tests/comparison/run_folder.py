"""A small made-up run folder in the form that the stages above leave, with planted changes.

Two anchored fits (pt, it) and (pt, simpo) and a direct one (it, simpo), about 200 latents each.
Categories gained and lost have many unique latents in the direct fit, the others few.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workflow_scripts.common import files
from workflow_scripts.comparison.score_recovery import PLANTED_COLUMNS

CHAT = ("multilingual", "advice", "summarization", "structured_output", "creative_writing")
PLAIN = ("narrative", "arithmetic")
LOST = ("hallucination_management", "self_reference")
GAINED = ("safety_refusal", "instruction_following")
CATEGORIES = (*CHAT, *PLAIN, *LOST, *GAINED)
CLASSES = {
    "multilingual": "language",
    "advice": "interaction",
    "summarization": "creative",
    "structured_output": "technical",
    "creative_writing": "creative",
    "narrative": "creative",
    "arithmetic": "technical",
    "hallucination_management": "reliability",
    "self_reference": "interaction",
    "safety_refusal": "safety",
    "instruction_following": "interaction",
}
FITS = {"pt_it": ("pt", "it"), "pt_simpo": ("pt", "simpo"), "it_simpo": ("it", "simpo")}
COMPARISONS: dict[str, dict[str, Any]] = {
    "anchored": {
        "baseline": {"fit": "pt_it", "model": "it"},
        "candidate": {"fit": "pt_simpo", "model": "simpo"},
    },
    "direct": {
        "baseline": {"fit": "it_simpo", "model": "it"},
        "candidate": {"fit": "it_simpo", "model": "simpo"},
        "anchored": "anchored",
    },
}
LATENTS = 220
DOCUMENTS = 40  # of each category
TOKENS = 20  # answer tokens of each document
PIECES = ("<bos>", "I", " cannot", " help", " with", " that", ".", "\n")


@dataclass
class Run:
    """The folder of the made-up run, and what steps are given of it."""

    root: Path
    taxonomy: Path
    seeds: tuple[int, ...] = (0,)
    comparisons: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(COMPARISONS))
    fits: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(FITS))

    @property
    def losses(self) -> Path:
        """How well each model predicts documents."""
        return self.root / "comparison/losses.parquet"

    @property
    def divergences(self) -> Path:
        """How differently models predict documents."""
        return self.root / "comparison/divergences.parquet"

    @property
    def labels(self) -> Path:
        """Labels of the documents."""
        return self.root / "dataset/labels.parquet"

    @property
    def planted(self) -> Path:
        """Planted table."""
        return self.root / "models/planted.csv"

    def fits_json(self) -> str:
        """Return the flag ``--fits``."""
        return json.dumps(
            {
                fit: {
                    "models": list(models),
                    "seeds": {str(seed): self.seed_files(fit, seed) for seed in self.seeds},
                }
                for fit, models in self.fits.items()
            }
        )

    def seed_files(self, fit: str, seed: int) -> dict[str, object]:
        """Return the artifacts of one crosscoder."""
        latents = self.root / f"latents/{fit}/seed{seed}"
        named = self.root / f"autointerp/{fit}/seed{seed}"
        return {
            "latents": str(latents / "latents.parquet"),
            "selection": str(latents / "selection.parquet"),
            "sampled": str(latents / "sampled.parquet"),
            "examples": str(latents / "examples.parquet"),
            "labels": [str(named / "labels.parquet")],
        }

    def compare_flags(self, output: Path) -> list[str]:
        """Return the command line of ``compare_categories``."""
        return [
            "--fits",
            self.fits_json(),
            "--comparisons",
            json.dumps(self.comparisons),
            "--taxonomy",
            str(self.taxonomy),
            "--margin",
            "0.05",
            "--output",
            str(output),
        ]

    def weighed(self, comparison: str, seed: int) -> Path:
        """Return the weighed documents of a comparison."""
        return self.root / f"comparison/documents/{comparison}_seed{seed}.parquet"

    def judge_flags(self, output: Path) -> list[str]:
        """Return the command line of ``judge_changes``."""
        pairs = {
            name: {
                "baseline": sides["baseline"]["model"],
                "candidate": sides["candidate"]["model"],
                "documents": {
                    str(seed): str(self.weighed(name, seed))
                    for seed in self.seeds
                    if self.weighed(name, seed).exists()
                },
            }
            for name, sides in self.comparisons.items()
        }
        flags = [f"--pairs={json.dumps(pairs)}", f"--labels={self.labels}"]
        flags += [f"--losses={self.losses}", f"--divergences={self.divergences}", "--seed=0"]
        return [*flags, f"--output={output}"]

    def recovery_flags(self, recovery: Path, answer: Path) -> list[str]:
        """Return the command line of ``score_recovery``."""
        folder = self.root / "comparison"
        flags = [f"--categories={folder / 'categories.csv'}"]
        flags += [f"--changes={folder / 'changes.csv'}", f"--labels={self.labels}"]
        flags.append(f"--text={self.root / 'dataset/manifest.json'}")
        flags += [f"--usual={labeller}" for labeller in ("true", "source", "topics")]
        return [*flags, f"--recovery={recovery}", f"--answer={answer}"]


def write_text_manifest(path: Path) -> None:
    """Write the manifest of a text of which a tenth of the documents was left out."""
    source = {"documents": 900, "empty": 60, "duplicates": 7, "bad_rows": {"unknown role": 40}}
    tokens = {"documents": 900, "rows": 900, "read": 900, "dropped": {}, "tokens": 9000}
    tokens |= {"tokens_whole": 9100, "tokens_wanted": 9000, "short": False, "rows_per_document": 1}
    files.write_json(path, {"documents": {"sources": {"own": source}}, "tokens": tokens})


def make_run(
    root: Path,
    seeds: Sequence[int] = (0,),
    pieces: Sequence[str] = PIECES,
    explanation: str = "[lexical, no LLM] fires on: sorry, cannot",
) -> Run:
    """Write a run folder and return its handle."""
    run = Run(root, root / "taxonomy.yaml", tuple(seeds))
    write_taxonomy(run.taxonomy)
    for fit, models in FITS.items():
        for seed in seeds:
            rng = np.random.default_rng([seed, *map(ord, fit)])
            write_fit(run, fit, models, seed, rng, pieces, explanation)
    write_planted(run.planted)
    write_text_manifest(run.root / "dataset/manifest.json")
    write_losses(run)
    for seed in seeds:
        write_weights(run, "direct", seed)
    return run


def write_taxonomy(path: Path) -> None:
    """Write classes and categories."""
    texts = {"definition": "what it is", "positive": ["yes"], "negative": ["no"]}
    categories = [{"id": name, "class": c, **texts} for name, c in CLASSES.items()]
    classes = dict.fromkeys(CLASSES.values(), "what they share")
    files.write_json(path, {"version": "1", "classes": classes, "categories": categories})


def write_planted(path: Path) -> None:
    """Write the planted table."""
    rows = [
        ("it", "simpo", c, CLASSES[c], 1000 * (c not in GAINED), 1000 * (c not in LOST), word)
        for word, names in (("lost", LOST), ("gained", GAINED), ("unchanged", CHAT))
        for c in names
    ]
    columns = list(PLANTED_COLUMNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def write_losses(run: Run) -> None:
    """Write how well models predict documents: each is better at what it was taught.

    Topics name the same text otherwise, and leave a document of each category out.
    """
    rng = np.random.default_rng(1)
    names = np.repeat(CATEGORIES, DOCUMENTS)
    true = pd.DataFrame({"document": np.arange(len(names)), "labeller": "true", "label": names})
    topics = true.assign(labeller="topics", label="words of " + true["label"])
    topics = topics[topics["document"] % DOCUMENTS > 0]
    files.write_parquet(run.labels, pd.concat([topics, true], ignore_index=True))
    hardness = rng.normal(2.0, 1.0, (len(names), TOKENS))
    parts = []
    for model, taught in (("pt", ()), ("it", LOST), ("simpo", GAINED)):
        losses = hardness + rng.normal(0, 0.05, hardness.shape)
        losses -= 0.5 * np.isin(names, taught)[:, None]
        rows = {"document": true["document"], "model": model, "tokens": TOKENS}
        parts.append(pd.DataFrame({**rows, "losses": list(losses.astype(np.float32))}))
    files.write_parquet(run.losses, pd.concat(parts, ignore_index=True))
    write_divergences(
        run.divergences, true["document"].to_numpy(), np.isin(names, (*LOST, *GAINED))
    )


def write_divergences(path: Path, documents: NDArray[np.int64], changed: NDArray[np.bool_]) -> None:
    """Write how differently `it` and `simpo` predict documents: more, where something changed."""
    part = np.where(changed, 0.4, 0.01)
    table = pd.DataFrame({"document": documents, "baseline": "it", "candidate": "simpo"})
    files.write_parquet(path, table.assign(divergence=part))


def write_weights(run: Run, comparison: str, seed: int) -> None:
    """Write weighed documents of a direct comparison: far apart where one model was taught."""
    rng = np.random.default_rng([2, seed])
    names = np.repeat(CATEGORIES, DOCUMENTS)
    sign = np.isin(names, GAINED) * 1.0 - np.isin(names, LOST)
    energy = rng.gamma(40, 10, len(names))
    part = np.where(sign != 0, 0.8, 0.1) * rng.gamma(50, 1 / 50, len(names))
    weights = pd.DataFrame({"document": np.arange(len(names)), "tokens": TOKENS})
    weights["difference"], weights["energy"] = part * energy, energy
    weights["signed"] = 0.1 * sign * energy
    weights["unique_baseline"] = np.where(sign < 0, 0.3, 0.02) * energy
    weights["unique_candidate"] = np.where(sign > 0, 0.3, 0.02) * energy
    weights["total"] = 0.9 * energy
    weights["delta_norm"] = 0.5 + 0.05 * sign + rng.normal(0, 0.01, len(names))
    files.write_parquet(run.weighed(comparison, seed), weights)


def unique_rates(fit: str, category: str) -> Mapping[str, float]:
    """Return the probability that a latent is unique to each model of a fit."""
    if fit == "it_simpo":
        changed = category in (*LOST, *GAINED)
        return {"it": 0.25 if changed else 0.02, "simpo": 0.25 if changed else 0.02}
    own = fit.removeprefix("pt_")
    taught = category in CHAT or category in (LOST if own == "it" else GAINED)
    return {"pt": 0.03, own: 0.4 if taught else 0.05}


def write_fit(
    run: Run,
    fit: str,
    models: tuple[str, ...],
    seed: int,
    rng: np.random.Generator,
    pieces: Sequence[str],
    explanation: str,
) -> None:
    """Write all artifacts of one crosscoder."""
    latents = run.root / f"latents/{fit}/seed{seed}"
    category = np.array([(*CATEGORIES, "none")[i % (len(CATEGORIES) + 1)] for i in range(LATENTS)])
    live = np.arange(LATENTS) < LATENTS - 10
    owner = np.array([draw_owner(fit, c, rng) for c in category])
    table = latent_table(models, category, live, owner, rng)
    files.write_parquet(latents / "latents.parquet", table)
    selection = pd.DataFrame({"latent": np.flatnonzero(live), "unique_to": owner[live]})
    for own, other in permutations(models, 2):
        selection[f"unique_{own}_vs_{other}"] = owner[live] == own
    files.write_parquet(latents / "selection.parquet", selection)
    shown = write_examples(latents / "examples.parquet", selection, rng, pieces)
    named = run.root / f"autointerp/{fit}/seed{seed}"
    write_autointerp(named, shown, category, rng, explanation)
    write_training(run.root / f"crosscoder/{fit}/seed{seed}", models)


def draw_owner(fit: str, category: str, rng: np.random.Generator) -> str:
    """Draw the model to which a latent is unique, or none."""
    rates = unique_rates(fit, category)
    names = [*rates, ""]
    return str(rng.choice(names, p=[*rates.values(), 1 - sum(rates.values())]))


def latent_table(
    models: tuple[str, ...],
    category: np.ndarray,
    live: np.ndarray,
    owner: np.ndarray,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return ``latents.parquet`` of one crosscoder."""
    first, second = models
    count = len(category)
    tilt = np.select([np.isin(category, LOST), np.isin(category, GAINED)], [-0.05, 0.05], 0.0)
    tilt = tilt if models == ("it", "simpo") else np.zeros(count)
    delta = 0.5 + tilt + 0.1 * ((owner == second) * 1.0 - (owner == first)) * 0.5
    delta = np.clip(delta + rng.normal(0, 0.02, count), 0, 1)
    table = pd.DataFrame(
        {
            "latent": np.arange(count),
            "live": live,
            "firing_rate": np.where(live, 10 ** rng.normal(-2.3, 0.5, count), 0.0),
            "documents": np.where(live, rng.integers(10, 400, count), 0),
            "activation_mean": rng.gamma(2, 1, count),
            "activation_max": rng.gamma(6, 1, count),
            "template_share": rng.beta(1, 8, count),
            f"decoder_norm_{first}": 1 - np.maximum(delta - 0.5, 0),
            f"decoder_norm_{second}": 1 - np.maximum(0.5 - delta, 0),
            f"delta_norm_{first}_{second}": delta,
            f"cosine_{first}_{second}": rng.beta(8, 2, count),
            "true_category": np.where(live, category, "none"),
            "true_share": rng.uniform(0.5, 1, count),
        }
    )
    for own, other in permutations(models, 2):
        unique = owner == own
        pair = f"{own}_vs_{other}"
        nu_r = np.where(unique, rng.uniform(0, 0.45, count), rng.normal(1, 0.12, count))
        nu_e = np.where(unique, rng.uniform(-0.05, 0.18, count), rng.normal(0.95, 0.12, count))
        for name, values in (("nu_r", nu_r), ("nu_e", nu_e)):
            table[f"{name}_{pair}"] = np.where(live, values, np.nan)
            table[f"{name}_{pair}_se"] = np.where(live, 0.03, np.nan)
        table[f"p_{pair}"] = table[f"q_{pair}"] = np.where(
            live, np.where(unique, 1e-4, 0.9), np.nan
        )
        table[f"status_{pair}"] = np.where(live, "ok", "dead")
    return table


def write_examples(
    path: Path, selection: pd.DataFrame, rng: np.random.Generator, pieces: Sequence[str]
) -> np.ndarray:
    """Write contexts of the unique latents and a third of the others; return their latents."""
    unique = (selection["unique_to"] != "").to_numpy()
    others = np.flatnonzero(~unique)
    sampled = np.sort(rng.permutation(others)[: max(len(others) // 3, 1)])
    weight = len(others) / len(sampled)
    rows = []
    for index in np.sort(np.concatenate([np.flatnonzero(unique), sampled])):
        latent, owner = selection.iloc[index][["latent", "unique_to"]]
        maximum = float(rng.uniform(2, 9))
        for number in range(4):
            values = rng.uniform(0, maximum, len(pieces)) * (rng.random(len(pieces)) < 0.4)
            positive = number < 3
            values = values if positive else np.zeros(len(pieces))
            rows.append(
                {
                    "latent": int(latent),
                    "unique_to": owner,
                    "sample_weight": 1.0 if unique[index] else weight,
                    "split": "explain" if number % 2 else "verify",
                    "kind": "positive" if positive else "random_negative",
                    "stratum": "top" if positive else "none",
                    "document": int(rng.integers(0, 500)),
                    "pieces": list(pieces),
                    "activations": values.astype(np.float32).tolist(),
                    "template": [i == 0 for i in range(len(pieces))],
                    "role": [0] * len(pieces),
                    "peak": int(values.argmax()),
                    "max_activation": float(values.max()),
                    "latent_max": maximum,
                }
            )
    contexts = pd.DataFrame(rows)
    files.write_parquet(path, contexts)
    sample = contexts.rename(columns={"sample_weight": "weight"})[["latent", "weight"]]
    files.write_parquet(path.with_name("sampled.parquet"), sample.drop_duplicates())
    return np.array(sorted({row["latent"] for row in rows}))


def write_autointerp(
    folder: Path,
    latents: np.ndarray,
    category: np.ndarray,
    rng: np.random.Generator,
    explanation: str,
) -> None:
    """Write the lexical annotator's tables: four of five labels are right, the rest missing."""
    named = np.where(rng.random(len(latents)) < 0.8, category[latents], "unassigned")
    named = np.where(named == "none", "unassigned", named)
    common = pd.DataFrame(
        {
            "latent": latents,
            "annotator": "lexical",
            "annotator_kind": "lexical",
            "llm_used": False,
            "replicate": 0,
            "status": "ok",
        }
    )
    files.write_parquet(
        folder / "explanations.parquet", common.assign(explanation=explanation, terms="{}")
    )
    files.write_parquet(
        folder / "labels.parquet",
        common.assign(
            category=named,
            **{"class": [CLASSES.get(c, c) for c in named]},
            score=rng.random(len(latents)),
            margin=rng.random(len(latents)),
        ),
    )
    files.write_parquet(
        folder / "scores.parquet",
        common.assign(
            balanced_accuracy=0.8,
            auroc=0.85,
            auroc_low=0.75,
            auroc_high=0.92,
            null_auroc=0.5,
            gate_passed=True,
        ),
    )


def write_training(folder: Path, models: tuple[str, ...]) -> None:
    """Write training log and evaluation of one crosscoder."""
    steps = np.arange(0, 1000, 25)
    fall = np.exp(-steps / 200)
    table = pd.DataFrame({"step": steps, "tokens": steps * 1024, "loss": 0.05 + fall})
    for i, model in enumerate(models):
        table[f"loss_{model}"] = (0.05 + fall) / 2
        table[f"fve_{model}"] = 0.99 - 0.01 * i - 0.9 * fall
    table = table.assign(
        l0=12 + fall, dead_share=0.05 * (1 - fall), learning_rate=1e-3, auxk_loss=fall
    ).assign(tokens_per_second=20000.0)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "training.csv", index=False)
    fve = {m: 0.98 - 0.01 * i for i, m in enumerate(models)}
    files.write_json(
        folder / "evaluation.json",
        {
            "split": "score",
            "rows": 40000,
            "k": 12,
            "fve": fve,
            "fve_training": fve,
            "l0_threshold": 12.1,
            "l0_training": 12.0,
            "dead_share": 0.04,
            "dropped": {"first_token": 300, "norm": 0},
        },
    )
