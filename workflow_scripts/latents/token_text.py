"""The text of windows of tokens, in pieces that hold whole characters.

A token may hold a part of a character: one of its bytes (byte-level BPE, byte fallback), or a
vowel without its consonant. So the bytes of a window are put together before they are read, and
tokens that share a character form one piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, AnyStr

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int, Shaped

from workflow_scripts.common.characters import is_one_character
from workflow_scripts.common.runs import Numbers, number_runs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE_POINTS = 0x110000
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Pieces:
    """Windows as the shortest runs of tokens that hold whole characters."""

    texts: list[str]
    """Distinct texts."""
    text: Int[np.ndarray, " pieces"]
    """Index into ``texts``."""
    runs: Int[np.ndarray, " runs"]
    """Where runs of tokens begin that are pieces or, at an edge, a part of a character."""
    whole: Bool[np.ndarray, " runs"]
    """Which runs are pieces."""

    def first(self, values: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " pieces"]:
        """Return, of values of all tokens, that of each piece's first one."""
        first: Shaped[np.ndarray, " pieces"] = values[self.runs[self.whole]]
        return first

    def largest(self, values: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " pieces"]:
        """Return, of values of all tokens, the largest of each piece."""
        largest: Float32[np.ndarray, " runs"] = np.maximum.reduceat(values, self.runs)
        own: Float32[np.ndarray, " pieces"] = largest[self.whole]
        return own


def token_bytes(tokenizer: PreTrainedTokenizerBase, ids: Int[np.ndarray, " ids"]) -> list[bytes]:
    """Return the UTF-8 bytes that each token id adds to a text, special tokens shown.

    Each id is decoded behind an anchor, because some tokenizers strip a leading blank.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    decode = partial(
        tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    prefix = len(decode(anchor))
    parts = []
    for i in ids.tolist():
        text = str(decode([*anchor, i]))[prefix:]
        if "\ufffd" not in text:
            parts.append(text.encode())
        else:
            parts.append(_partial_bytes(tokenizer.convert_ids_to_tokens([i])[0], text))
    return parts


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Int[np.ndarray, "N n"]) -> list[list[str]]:
    """Return the text of each token by itself; what is no whole character as escaped bytes."""
    distinct, number = np.unique(ids, return_inverse=True)
    raw = token_bytes(tokenizer, distinct)
    words = np.array([part.decode(errors="backslashreplace") for part in raw], dtype=object)
    texts: list[list[str]] = words[number].reshape(ids.shape).tolist()
    return texts


def _partial_bytes(token: str | bytes, text: str) -> bytes:
    """Return the bytes of a token that is no text by itself, from its name in the vocabulary."""
    if isinstance(token, bytes):
        return token
    if single := _BYTE.fullmatch(token):
        return bytes.fromhex(single[1])
    known = _byte_alphabet()
    if all(character in known for character in token):
        return bytes(known[character] for character in token)
    return text.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """Return the byte for which each character stands in a byte-level BPE (as in GPT-2)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in shown)
    return {chr(byte): byte for byte in shown} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


def whole_pieces(
    tokenizer: PreTrainedTokenizerBase,
    ids: Int[np.ndarray, " n"],
    starts: Int[np.ndarray, " windows"],
    apart: Bool[np.ndarray, " n"],
) -> Pieces:
    """Return windows of tokens, laid end to end from their ``starts`` on, in pieces.

    Nothing is joined across the edge of a window nor with the token before one that stands
    ``apart``. What an edge leaves of a character that it cuts is dropped.
    """
    apart = apart.copy()
    apart[starts] = True
    distinct, number = np.unique(ids, return_inverse=True)
    raw = token_bytes(tokenizer, distinct)
    continues = np.array([b"\x80" <= part[:1] < b"\xc0" for part in raw], dtype=bool)
    runs = np.flatnonzero(apart | ~continues[number])
    # What is no whole character is at the edge of a window: the tokens are those of a text.
    characters, number = _join(raw, number, runs)
    texts = [character.decode("utf-8", errors="ignore") for character in characters]
    begins = apart[runs] | ~_one_with_previous(texts, number)
    first = np.flatnonzero(begins)
    texts, number = _join(texts, number, first)
    whole = np.array([text != "" for text in texts], dtype=bool)[number]
    return Pieces(texts, number[whole], runs[first], whole)


def _join(parts: list[AnyStr], number: Numbers, starts: Numbers) -> tuple[list[AnyStr], Numbers]:
    """Return the distinct joined runs of ``parts``, and the index of each run."""
    index, first = number_runs(number, starts)
    ends = np.append(starts, len(number))
    runs = [[parts[i] for i in number[ends[run] : ends[run + 1]].tolist()] for run in first]
    return [run[0][:0].join(run) for run in runs], index


def _one_with_previous(texts: list[str], number: Numbers) -> Bool[np.ndarray, " n"]:
    """Return whether each text is read as one character with the end of the text before it."""
    heads = np.array([ord(text[0]) if text else 0 for text in texts], dtype=np.int64)
    tails = np.array([ord(text[-1]) if text else 0 for text in texts], dtype=np.int64)
    pairs = tails[number[:-1]] * CODE_POINTS + heads[number[1:]]
    pair, distinct = pd.factorize(pairs)
    joins = [is_one_character(*map(chr, divmod(both, CODE_POINTS))) for both in distinct.tolist()]
    one = np.zeros(len(number), dtype=bool)
    one[1:] = np.array(joins, dtype=bool)[pair]
    return one
