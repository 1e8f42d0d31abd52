"""Do the models' tokenizers agree? One text must give one sequence of ids for all of them.

A tokenizer may know more tokens than another (chat fine-tunes add turn tokens), but what two of
them share must be equal: every id, every token, and the ids of probe texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.common.cli import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "  two blanks,\ttab\nline\n\nblank line ",
    "Größe, naïve, señor, Ελλάδα, 日本語, 🙂👩‍👩‍👧",
    "def f(x):\n    return x ** 2  # 12345.678e-9",
    "I'm can't won't 'quoted' \"double\" (a) [b] {c}",
    "1234567890 0x1F 3.14159 1,000,000",
    "http://example.org/path?query=1&other=2",
)
REMEDY = "use models with one tokenizer"


def check_agreement(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], texts: Sequence[str] = ()
) -> None:
    """Compare each pair of tokenizers on vocabulary, added tokens, probes and ``texts``.

    Raises
    ------
    UserError
        Naming the first difference (lowest id, or first probe) and both models.
    """
    names = list(tokenizers)
    vocabularies = {name: tokenizers[name].get_vocab() for name in names}
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            _compare_vocabularies(first, vocabularies[first], second, vocabularies[second])
            shared = set(vocabularies[first].values()) & set(vocabularies[second].values())
            _compare_special(first, tokenizers[first], second, tokenizers[second])
            for text in (*PROBES, *texts):
                _compare_ids(text, first, tokenizers[first], second, tokenizers[second], shared)


def _compare_vocabularies(
    first: str, left: Mapping[str, int], second: str, right: Mapping[str, int]
) -> None:
    if left == right:
        return
    tokens = {identifier: token for token, identifier in right.items()}
    for token, identifier in sorted(left.items(), key=lambda item: item[1]):
        other = tokens.get(identifier)
        if other is not None and other != token:
            raise UserError(
                f"the tokenizers of {first} and {second} conflict: id {identifier} is {token!r} "
                f"in {first} and {other!r} in {second}: {REMEDY}"
            )
        if right.get(token, identifier) != identifier:
            raise UserError(
                f"the tokenizers of {first} and {second} conflict: {token!r} has id {identifier} "
                f"in {first} and {right[token]} in {second}: {REMEDY}"
            )


def _compare_special(
    first: str, left: PreTrainedTokenizerBase, second: str, right: PreTrainedTokenizerBase
) -> None:
    if left.bos_token_id != right.bos_token_id:
        raise UserError(
            f"the tokenizers of {first} and {second} conflict: BOS is id {left.bos_token_id} in "
            f"{first} and {right.bos_token_id} in {second}: {REMEDY}"
        )


def _compare_ids(
    text: str,
    first: str,
    left: PreTrainedTokenizerBase,
    second: str,
    right: PreTrainedTokenizerBase,
    shared: set[int],
) -> None:
    ours, theirs = encode(left, text), encode(right, text)
    if ours == theirs or not (shared.issuperset(ours) and shared.issuperset(theirs)):
        return
    pairs = zip(ours, theirs, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    raise UserError(
        f"the tokenizers of {first} and {second} conflict: they cut {text[:40]!r} differently, "
        f"first at token {place} ({_piece(left, ours, place)} in {first}, "
        f"{_piece(right, theirs, place)} in {second}): {REMEDY}"
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text without any token added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _piece(tokenizer: PreTrainedTokenizerBase, ids: list[int], place: int) -> str:
    return repr(tokenizer.convert_ids_to_tokens(ids[place])) if place < len(ids) else "the end"


def control_ids(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Return the ids that steer a model (turn markers, padding …), sorted; not that of unknowns."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return np.array(sorted(added - {tokenizer.unk_token_id}), dtype=np.int64)


def known_ids(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], sizes: Mapping[str, int]
) -> NDArray[np.bool_]:
    """Return which ids every model knows, bool [largest id + 1].

    ``sizes`` gives the rows of a model's embedding where they are known: an id beyond them is
    unknown to the model, whatever its tokenizer says.
    """
    vocabularies = [set(tokenizer.get_vocab().values()) for tokenizer in tokenizers.values()]
    known = np.zeros(max(max(ids) for ids in vocabularies) + 1, dtype=np.bool_)
    common = np.array(sorted(set.intersection(*vocabularies)), dtype=np.int64)
    known[common] = True
    known[min(sizes.values(), default=len(known)) :] = False
    return known
