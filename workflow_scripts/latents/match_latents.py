"""Which latents of a fit come back under another seed: ``matches.parquet``, ``stability.parquet``.

Latents i and j of two seeds are alike by the mean of two numbers: the cosine of their concatenated
decoder directions (all models, normalised space) and the correlation of their activations. They
match when each is the other's nearest neighbour and they are alike by at least ``least``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int
from scipy import sparse
from torch import Tensor

from workflow_scripts.activations.controls import StoreInputs
from workflow_scripts.activations.store import ActivationStore
from workflow_scripts.common import cli, files
from workflow_scripts.common.device import Compute
from workflow_scripts.common.tables import write_csv
from workflow_scripts.crosscoder.model import Crosscoder, load_decoder
from workflow_scripts.latents.activity import (
    CPU,
    activity,
    correlations,
    mutual_best,
    sample_rows,
)
from workflow_scripts.latents.settings import Matching

SPLIT = "score"
CANDIDATES = 8  # neighbours by cosine whose activations are compared
BLOCK = 1024
SHORTEST = 1e-12
MATCHES = ("seed_a", "latent_a", "seed_b", "latent_b", "cosine", "correlation", "similarity")
STABILITY = ("seed", "latent", "unique_to", "recurrence", "recurrence_unique", "group")


def live_directions(
    folder: Path, live: Int[np.ndarray, " n"], device: torch.device
) -> Float[Tensor, "n C"]:
    """Return the concatenated decoder directions of live latents, of length 1."""
    directions = load_decoder(folder)[torch.from_numpy(live)].to(device)
    return directions.div_(directions.norm(dim=1, keepdim=True).clamp_min_(SHORTEST))


def candidates(
    one: Float[Tensor, "n C"], other: Float[Tensor, "m C"], count: int
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return pairs (i, j) of rows of length 1 with their cosine, nearest ones only.

    The ``count`` nearest rows of the other for each of one, and the reverse, each pair once.
    """
    keys = []
    for left, right, flip in ((one, other, False), (other, one, True)):
        near = min(count, len(right))
        for first in range(0, len(left), BLOCK):
            nearest = (
                (left[first : first + BLOCK] @ right.T).topk(near, dim=1).indices.cpu().numpy()
            )
            own = np.repeat(np.arange(first, first + len(nearest)), near)
            pair = (nearest.ravel(), own) if flip else (own, nearest.ravel())
            keys.append(pair[0] * len(other) + pair[1])
    unique = np.unique(np.concatenate(keys))
    i, j = unique // len(other), unique % len(other)
    cosine = np.concatenate(
        [
            (one[i[k : k + BLOCK]] * other[j[k : k + BLOCK]]).sum(1).double().cpu().numpy()
            for k in range(0, len(i), BLOCK)
        ]
    )
    return i, j, cosine


def match(
    one: Float[Tensor, "n C"],
    other: Float[Tensor, "m C"],
    f: sparse.csc_array,
    g: sparse.csc_array,
    live: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]],
    least: float,
) -> pd.DataFrame:
    """Return the matched pairs of live latents: ``latent_a``, ``latent_b`` and how alike.

    ``one`` and ``other`` are the directions of the live latents, f and g the activations of all.
    """
    if min(len(live[0]), len(live[1])) == 0:
        return pd.DataFrame(columns=list(MATCHES)).drop(columns=["seed_a", "seed_b"])
    i, j, cosine = candidates(one, other, CANDIDATES)
    i, j = live[0][i], live[1][j]
    correlation = correlations(f, g, i, j)
    similarity = (cosine + correlation) / 2
    best = mutual_best(i, j, similarity, least)
    return pd.DataFrame(
        {
            "latent_a": i[best],
            "latent_b": j[best],
            "cosine": cosine[best],
            "correlation": correlation[best],
            "similarity": similarity[best],
        }
    )


def recurrences(selections: Mapping[int, pd.DataFrame], matches: pd.DataFrame) -> pd.DataFrame:
    """Return a row per seed and live latent: in which share of the other seeds it recurs.

    ``recurrence``: it has a match there; ``recurrence_unique``: the match is unique to the same
    model (for a latent that is unique to none: to none, too). ``group`` is the number of the
    latents that matches tie together, −1 for a latent without any.
    """
    both = pd.concat(
        [
            matches,
            matches.rename(
                columns={
                    "seed_a": "seed_b",
                    "latent_a": "latent_b",
                    "seed_b": "seed_a",
                    "latent_b": "latent_a",
                }
            ),
        ]
    )
    table = pd.concat(
        [s[["latent", "unique_to"]].assign(seed=seed) for seed, s in selections.items()],
        ignore_index=True,
    )
    own = table.set_index(["seed", "latent"])["unique_to"]
    first = pd.MultiIndex.from_frame(both[["seed_a", "latent_a"]])
    second = pd.MultiIndex.from_frame(both[["seed_b", "latent_b"]])
    same = own.loc[first].to_numpy() == own.loc[second].to_numpy()
    others = max(len(selections) - 1, 1)
    keys = [both["seed_a"].to_numpy(), both["latent_a"].to_numpy()]
    counts = pd.Series(np.ones(len(both)), index=keys).groupby(level=[0, 1]).sum()
    alike = pd.Series(same.astype(float), index=keys).groupby(level=[0, 1]).sum()
    index = pd.MultiIndex.from_frame(table[["seed", "latent"]])
    table["recurrence"] = counts.reindex(index).fillna(0).to_numpy() / others
    table["recurrence_unique"] = alike.reindex(index).fillna(0).to_numpy() / others
    table["group"] = _groups(index, both)
    return table[list(STABILITY)]


def _groups(index: pd.MultiIndex, both: pd.DataFrame) -> Int[np.ndarray, " latents"]:
    """Return the connected component of each latent under the matches; −1 where it is alone."""
    at = [
        index.get_indexer(pd.MultiIndex.from_frame(both[[f"seed_{s}", f"latent_{s}"]]))
        for s in ("a", "b")
    ]
    graph = sparse.coo_array((np.ones(len(both)), (at[0], at[1])), shape=(len(index),) * 2)
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(component)
    numbers = np.full(len(sizes), -1)
    numbers[sizes > 1] = np.arange(int((sizes > 1).sum()))
    group: Int[np.ndarray, " latents"] = numbers[component]
    return group


def agreed_groups(table: pd.DataFrame, seeds: int) -> pd.DataFrame:
    """Return the groups that are unique to one model in at least half of the seeds.

    Columns ``group``, ``unique_to``, ``seeds`` (in how many) and ``latents`` (``seed:latent`` …).
    """
    unique = table[(table["unique_to"] != "") & (table["group"] >= 0)]
    rows = []
    for (group, owner), members in unique.groupby(["group", "unique_to"]):
        count = members["seed"].nunique()
        if 2 * count >= seeds and count >= 2:
            named = [f"{s}:{j}" for s, j in zip(members["seed"], members["latent"], strict=True)]
            rows.append((group, owner, count, " ".join(named)))
    return pd.DataFrame(rows, columns=["group", "unique_to", "seeds", "latents"])


def match_seeds(
    store: ActivationStore,
    folders: Mapping[int, Path],
    live: Mapping[int, Int[np.ndarray, " live"]],
    rule: Matching,
    seed: int,
    device: torch.device = CPU,
) -> pd.DataFrame:
    """Return the matches of every two seeds of a fit, from up to ``match_tokens`` tokens.

    ``folders`` are those of their crosscoders, of which one is held at a time, or two decoders.
    """
    rows = sample_rows(store, SPLIT, rule.match_tokens, seed)
    fires = {n: activity(store, Crosscoder.load(f).to(device), rows) for n, f in folders.items()}
    parts = []
    for a, b in combinations(sorted(folders), 2):
        cli.log(f"matching seeds {a} and {b}")
        one, other = (live_directions(folders[n], live[n], device) for n in (a, b))
        matches = match(one, other, fires[a], fires[b], (live[a], live[b]), rule.match_least)
        parts.append(matches.assign(seed_a=a, seed_b=b)[list(MATCHES)])
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def match_latents(
    inputs: StoreInputs,
    crosscoders: dict[int, Path],
    selections: dict[int, Path],
    rule: Matching,
    seed: int,
    compute: Compute,
    matches: Path,
    stability: Path,
    consensus: Path,
) -> None:
    """Write which latents of a fit come back under another seed.

    Parameters
    ----------
    crosscoders
        folder of each seed's crosscoder
    selections
        which latents of each seed are unique (Parquet)
    seed
        seed of the sample of tokens
    matches
        table to write, a row per matched pair (Parquet)
    stability
        table to write, a row per seed and live latent (Parquet)
    consensus
        table to write, a row per group of matched latents that most seeds call unique (CSV)
    """
    device = compute.start()
    chosen = {number: files.read_parquet(path) for number, path in selections.items()}
    live = {n: table["latent"].to_numpy(dtype=np.int64) for n, table in chosen.items()}
    pairs = match_seeds(inputs.open(), crosscoders, live, rule, seed, device)
    table = recurrences(chosen, pairs)
    files.write_parquet(matches, pairs)
    files.write_parquet(stability, table)
    write_csv(consensus, agreed_groups(table, len(crosscoders)))


main = cli.command(match_latents)


if __name__ == "__main__":
    raise SystemExit(main())
