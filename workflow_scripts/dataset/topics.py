"""Topics found in text: words weighted by TF-IDF, a few directions of them, and k-means.

The number of topics is the one with the best silhouette [R]; a topic's name are the words by which
it differs most from the others (class-based TF-IDF [G]). All sums are made in one thread, since
those of several differ in the last digits.

[R] Rousseeuw 1987, Silhouettes. [G] Grootendorst 2022, BERTopic (arXiv 2203.05794).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.characters import is_mark, is_unspaced
from workflow_scripts.dataset.settings import Topics

COUNTS = (4, 6, 8, 11, 16, 22, 30, 40)
"""Numbers of topics that are tried."""
FEWEST = 50
"""Documents with words, below which no topics are looked for."""
PER_TOPIC = 10
"""Documents that a topic has on average, at least."""
FITTED = 20_000
"""Documents on which topics are fitted."""
JUDGED = 5_000
"""Documents whose silhouettes choose the number of topics: the cost grows with the square."""
DIMENSIONS = 30
"""Directions of the words' weights that tell topics apart: with 100, distances say little."""
RESTARTS = 4
VOCABULARY = 50_000
CHARACTERS = 8_000
"""Of a document's start; models read about as much."""
NAME_WORDS, WORDS = 3, 10
LONGEST_WORD = 20
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class TopicModel:
    """Fitted topics: their names and words, and the silhouette of each number that was tried.

    ``centres`` [topics, directions] have unit length.
    """

    weigher: Any
    directions: Any
    centres: Floats
    least_similarity: float
    words: tuple[tuple[str, ...], ...]
    silhouettes: dict[int, float]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each topic: its words; a number tells equal ones apart."""
        joined = [", ".join(words[:NAME_WORDS]) or "no words" for words in self.words]
        repeated = Counter(joined)
        seen = Counter[str]()
        names = []
        for name in joined:
            seen[name] += 1
            names.append(f"{name} ({seen[name]})" if repeated[name] > 1 else name)
        return tuple(names)

    def predict(self, texts: Sequence[str]) -> Numbers:
        """Return the topic of each text; −1 for one that is too far from every topic."""
        with _one_thread():
            reduced = self.directions.transform(self.weigher.transform(texts))
            return _nearest(reduced, self.centres, self.least_similarity)


def fit_topics(texts: Sequence[str], settings: Topics, seed: int) -> TopicModel | None:
    """Return the topics of some texts, or None where they have too few words to tell any apart."""
    from sklearn.decomposition import TruncatedSVD

    weigher = _weigher(len(texts))
    try:
        weights = weigher.fit_transform(texts)
    except ValueError:  # no word is in two documents
        return None
    weights = weights[weights.getnnz(axis=1) > 0]
    if weights.shape[0] < FEWEST or weights.shape[1] <= 2:
        return None
    with _one_thread():
        dimensions = min(DIMENSIONS, weights.shape[1] - 1)
        with np.errstate(invalid="ignore"):  # of equal documents, which share no variance
            directions = TruncatedSVD(dimensions, random_state=seed).fit(weights)
        reduced = directions.transform(weights)
        unit = _unit(reduced)
        counts = _counts(unit, settings.count)
        if not counts:
            return None
        silhouettes = _silhouettes(unit, counts, seed)
        count = max(counts, key=lambda k: silhouettes.get(k, 0.0))
        centres = _centres(unit, count, seed)
        topics = _nearest(reduced, centres, settings.least_similarity)
    words = _telling_words(weights, topics, weigher.get_feature_names_out(), count)
    return TopicModel(weigher, directions, centres, settings.least_similarity, words, silhouettes)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, without numbers and signs.

    Where a script puts no blanks between words, they are pairs of neighbouring characters.
    """
    lowered = unicodedata.normalize("NFC", text[:CHARACTERS]).lower()
    words: list[str] = []
    for spaced, unspaced in _runs_of_letters().findall(lowered):
        if len(spaced) > 1:
            words.append(spaced)
        elif unspaced:
            words.extend(unspaced[i : i + 2] for i in range(max(1, len(unspaced) - 1)))
    return words


@cache
def _runs_of_letters() -> re.Pattern[str]:
    """Return the expression of a run of letters with their marks, spaced or unspaced.

    Python's ``\\w`` leaves out the vowel signs of Indic scripts, which are marks.
    """
    marks = _characters(lambda n: is_mark(chr(n)))
    spaced = _characters(lambda n: _is_letter(n) and not is_unspaced(chr(n)))
    unspaced = _characters(lambda n: _is_letter(n) and is_unspaced(chr(n)))
    return re.compile(f"([{spaced}][{spaced}{marks}]*)|([{unspaced}][{unspaced}{marks}]*)")


def _is_letter(number: int) -> bool:
    return unicodedata.category(chr(number))[0] == "L"


def _characters(wanted: Callable[[int], bool]) -> str:
    """Return the ranges of characters of a kind, as a class of a regular expression has them."""
    numbers = [number for number in range(0x30000) if wanted(number)]
    inside = set(numbers)
    firsts = (number for number in numbers if number - 1 not in inside)
    lasts = (number for number in numbers if number + 1 not in inside)
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(firsts, lasts, strict=True))


def _weigher(documents: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer=words_of,
        sublinear_tf=True,
        min_df=max(2, documents // 4000),
        max_features=VOCABULARY,
        dtype=np.float32,
    )


def _one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _unit(vectors: Floats) -> Floats:
    """Return rows of unit length; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def _counts(unit: Floats, wanted: int | None) -> list[int]:
    """Return the numbers of topics to try: no more than there are different documents."""
    different = len(np.unique(unit, axis=0))
    if wanted is not None:
        return [min(wanted, different)]
    most = min(different - 1, len(unit) // PER_TOPIC)
    return [count for count in COUNTS if count <= most]


def _silhouettes(unit: Floats, counts: Sequence[int], seed: int) -> dict[int, float]:
    """Return the mean silhouette of each number of topics, on some of the documents."""
    from sklearn.metrics import silhouette_score

    if len(counts) == 1:
        return {}
    chosen = np.random.default_rng(seed).permutation(len(unit))[:JUDGED]
    sample = unit[np.sort(chosen)]
    scores = {}
    for count in counts:
        topics = (sample @ _centres(sample, count, seed).T).argmax(axis=1)
        several = len(np.unique(topics)) > 1
        scores[count] = float(silhouette_score(sample, topics)) if several else 0.0
    return scores


def _centres(unit: Floats, count: int, seed: int) -> Floats:
    """Return the directions of the means of k-means, [topics, directions]."""
    from sklearn.cluster import KMeans

    means = KMeans(count, n_init=RESTARTS, random_state=seed).fit(unit)
    return _unit(means.cluster_centers_)


def _nearest(reduced: Floats, centres: Floats, least: float) -> Numbers:
    """Return the nearest topic of each document, −1 where the cosine to its centre is too small.

    The cosine is that of all its words: ``reduced`` is the part of its vector of unit length that
    lies in the topics' directions. That part alone would be near some centre for any nonsense.
    """
    similarity = reduced @ centres.T
    nearest = similarity.argmax(axis=1).astype(np.int64)
    return np.where(similarity.max(axis=1) < max(least, np.finfo(np.float32).eps), -1, nearest)


def _telling_words(
    weights: Any, topics: Numbers, vocabulary: Sequence[str], count: int
) -> tuple[tuple[str, ...], ...]:
    """Return the words of each topic by class-based TF-IDF, over the share of documents with it.

    A word counts once per document, so that no single document makes a name.
    """
    present = weights.astype(bool).astype(np.float64)
    shares = np.vstack([_shares(present[topics == topic]) for topic in range(count)])
    scores = shares * np.log(count / np.maximum(shares.sum(axis=0), 1e-12))
    nameable = np.array([1 < len(word) <= LONGEST_WORD for word in vocabulary])
    scores[:, ~nameable] = 0
    best = np.argsort(-scores, axis=1, kind="stable")[:, :WORDS]
    return tuple(
        tuple(str(vocabulary[i]) for i in row if scores[topic, i] > 0)
        for topic, row in enumerate(best)
    )


def _shares(present: Any) -> NDArray[np.float64]:
    """Return the share of documents with each word."""
    shares: NDArray[np.float64] = np.asarray(present.sum(axis=0)).ravel() / max(present.shape[0], 1)
    return shares
