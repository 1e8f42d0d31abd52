"""Do the models' tokenizers agree? One text must give one sequence of ids for all of them.

A tokenizer may know more tokens than another (chat fine-tunes add turn tokens), but what two of
them share must be equal: every id, every token, and the ids of probe texts. Control tokens (BOS,
turn markers) may differ where the setting ``text.control_tokens`` says whose the text gets: without
it a run would choose silently what a model reads at the start of every document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
CHOOSE = "set text.control_tokens to the model whose control tokens the text is to have"


def check_agreement(
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    texts: Sequence[str] = (),
    control_tokens: str | None = None,
) -> None:
    """Compare each pair of tokenizers on vocabulary, added tokens, probes and ``texts``.

    Control tokens may differ where ``control_tokens`` names the model whose the text gets.

    Raises
    ------
    UserError
        Naming the first difference (lowest id, or first probe) and both models.
    """
    names = list(tokenizers)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            left, right = tokenizers[first], tokenizers[second]
            for conflict in conflicts(left, right):
                if not conflict.control or control_tokens is None:
                    raise UserError(
                        f"the tokenizers of {first} and {second} conflict: "
                        f"{conflict.told(first, second)}: {CHOOSE if conflict.control else REMEDY}"
                    )
            if control_tokens is None:
                _compare_special(first, left, second, right)
            shared = set(same_ids([left, right]).tolist())
            for text in (*PROBES, *texts):
                _compare_ids(text, first, left, second, right, shared)
    if control_tokens is not None:
        _check_bos(tokenizers, control_tokens)


@dataclass(frozen=True)
class Conflict:
    """An id with two tokens, or a token with two ids: what each of two tokenizers has."""

    key: int | str
    values: tuple[str | int, str | int]
    control: bool
    """Whether one of them is a control token or another that was added to the vocabulary."""

    def told(self, first: str, second: str) -> str:
        """Return the conflict in words."""
        ours, theirs = self.values
        if isinstance(self.key, int):
            return f"id {self.key} is {ours!r} in {first} and {theirs!r} in {second}"
        return f"{self.key!r} has id {ours} in {first} and {theirs} in {second}"


def conflicts(left: PreTrainedTokenizerBase, right: PreTrainedTokenizerBase) -> list[Conflict]:
    """Return where two vocabularies differ, those of ordinary tokens first, then by id."""
    ours, theirs = left.get_vocab(), right.get_vocab()
    if ours == theirs:
        return []
    tokens = {identifier: token for token, identifier in theirs.items()}
    added = left.get_added_vocab().keys() | right.get_added_vocab().keys()
    found = []
    for token, identifier in sorted(ours.items(), key=lambda item: item[1]):
        other = tokens.get(identifier, token)
        if other != token:
            found.append(Conflict(identifier, (token, other), bool({token, other} & added)))
        elif (place := theirs.get(token, identifier)) != identifier:
            found.append(Conflict(token, (identifier, place), token in added))
    return sorted(found, key=lambda conflict: conflict.control)


def _compare_special(
    first: str, left: PreTrainedTokenizerBase, second: str, right: PreTrainedTokenizerBase
) -> None:
    if left.bos_token_id != right.bos_token_id:
        raise UserError(
            f"the tokenizers of {first} and {second} conflict: BOS is id {left.bos_token_id} in "
            f"{first} and {right.bos_token_id} in {second}: {CHOOSE}"
        )


def _check_bos(tokenizers: Mapping[str, PreTrainedTokenizerBase], chosen: str) -> None:
    """Refuse a BOS that another model does not know: it would stand before every document."""
    bos, token = tokenizers[chosen].bos_token_id, tokenizers[chosen].bos_token
    for name, tokenizer in tokenizers.items():
        if bos is not None and tokenizer.get_vocab().get(token) != bos:
            others = sorted(tokenizers.keys() - {chosen})
            raise UserError(
                f"text.control_tokens is {chosen}, whose BOS {token!r} (id {bos}) would stand "
                f"before every document, but {name} does not know it: name {' or '.join(others)}"
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


def same_ids(tokenizers: Sequence[PreTrainedTokenizerBase]) -> NDArray[np.int64]:
    """Return the ids that stand for the same token in each tokenizer, sorted."""
    pairs = set.intersection(*(set(tokenizer.get_vocab().items()) for tokenizer in tokenizers))
    return np.array(sorted({identifier for _, identifier in pairs}), dtype=np.int64)


def known_ids(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], sizes: Mapping[str, int]
) -> NDArray[np.bool_]:
    """Return which ids every model knows as the same token, bool [largest id + 1].

    ``sizes`` gives the rows of a model's embedding where they are known: an id beyond them is
    unknown to the model, whatever its tokenizer says.
    """
    largest = max(max(tokenizer.get_vocab().values()) for tokenizer in tokenizers.values())
    known = np.zeros(largest + 1, dtype=np.bool_)
    known[same_ids(list(tokenizers.values()))] = True
    known[min(sizes.values(), default=len(known)) :] = False
    return known


def foreign_tokens(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], encoder: str
) -> tuple[str, ...]:
    """Return the added tokens of other models that the encoding one does not have.

    In a chat template it would read them as ordinary characters.
    """
    own = tokenizers[encoder].get_vocab()
    added = {token for other in tokenizers.values() for token in other.get_added_vocab()}
    return tuple(sorted(token for token in added if token not in own))
