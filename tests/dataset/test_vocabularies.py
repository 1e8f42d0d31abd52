"""Which tokenizers agree, and how a conflict is reported."""

from __future__ import annotations

import json

import pytest
from transformers import PreTrainedTokenizerFast

from tests.dataset.conftest import TURNS, trained, wrap
from workflow_scripts.common.cli import UserError
from workflow_scripts.dataset.vocabularies import check_agreement, known_ids


def swapped(text: str, left: str, right: str) -> str:
    value = json.loads(text)
    vocabulary = value["model"]["vocab"]
    vocabulary[left], vocabulary[right] = vocabulary[right], vocabulary[left]
    return json.dumps(value)


def superset() -> PreTrainedTokenizerFast:
    tokenizer = wrap(trained(TURNS))
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    return tokenizer


def test_equal_tokenizers_and_supersets_agree(tokenizer: PreTrainedTokenizerFast) -> None:
    check_agreement({"pt": tokenizer, "it": wrap(trained(TURNS))}, ["more text <end_of_turn>"])
    check_agreement({"pt": tokenizer, "it": superset()}, ["a <tool> call"])
    check_agreement({"it": superset(), "pt": tokenizer}, ["a <tool> call"])


def test_an_id_with_two_tokens_is_a_conflict(tokenizer: PreTrainedTokenizerFast) -> None:
    other = wrap(swapped(trained(TURNS), "a", "b"))
    place = tokenizer.get_vocab()["a"]
    with pytest.raises(UserError, match=f"of pt and it conflict: id {place} is 'a' in pt and 'b'"):
        check_agreement({"pt": tokenizer, "it": other})


def test_a_token_with_two_ids_is_a_conflict(tokenizer: PreTrainedTokenizerFast) -> None:
    value = json.loads(trained(TURNS))
    value["model"]["vocab"]["zz9"] = 5000
    left = wrap(json.dumps(value))
    value["model"]["vocab"]["zz9"] = 5001
    right = wrap(json.dumps(value))
    with pytest.raises(UserError, match="'zz9' has id 5000 in pt and 5001 in it"):
        check_agreement({"pt": left, "base": tokenizer, "it": right})


def test_one_vocabulary_with_other_merges_is_a_conflict(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    value = json.loads(trained(TURNS))
    value["model"]["merges"] = value["model"]["merges"][:50]
    other = wrap(json.dumps(value))
    with pytest.raises(UserError, match=r"pt and it conflict: they cut .* first at token"):
        check_agreement({"pt": tokenizer, "it": other})


def test_another_bos_is_a_conflict(tokenizer: PreTrainedTokenizerFast) -> None:
    other = wrap(trained(TURNS))
    other.bos_token = "<eos>"
    with pytest.raises(UserError, match="BOS is id 2 in pt and 1 in it"):
        check_agreement({"pt": tokenizer, "it": other})


def test_known_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    known = known_ids({"pt": tokenizer, "it": superset()}, {})
    assert len(known) == len(tokenizer) + 1
    assert known[:-1].all()
    assert not known[-1]
    assert known_ids({"pt": tokenizer}, {"pt": 100}).sum() == 100
