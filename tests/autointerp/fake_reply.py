"""The body of the fake server's replies: an answer, and the many ways in which it may be none."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

_PIECE = re.compile(r" ?[A-Za-z]{1,7}|\d{1,3}| ?[^\sA-Za-z\d]{1,3}|\s+")


@functools.lru_cache(maxsize=256)
def count_tokens(text: str) -> int:
    """Return the number of tokens, as the server counts them; system prompts come again."""
    return len(_PIECE.findall(text))


def prompt_tokens(body: dict[str, Any], context: int) -> int:
    """Return the tokens of a request's prompt that reach the model."""
    whole = sum(count_tokens(m["content"]) for m in body["messages"]) + 8
    return min(whole, context) if context else whole


Said = str | None
_CUT: dict[str, Callable[[str], Said]] = {
    "length": lambda text: text[:10],
    "empty_length": lambda _: "",
    "null_length": lambda _: None,
    "think_length": lambda text: f"<think>It may be {text} or not, so",
    "repeats": lambda _: '{"explanation": "' + "the word, " * 30,
}
"""Faults with which the reply ends at the output limit."""
_WHOLE: dict[str, Callable[[str], Said]] = {
    "empty": lambda _: "",
    "null_content": lambda _: None,
    "think": lambda text: f'<think>Is it {{"x": 1}}?\nIt is.</think>\n\n{text}',
    "think_end": lambda text: f"It could be {text[:9]}, I think.\n</think>\n{text}",
    "think_open": lambda text: f"<think>It may be {text}",
    "repeated": lambda _: json.dumps({"explanation": "words about the sea, " * 12}),
    "nul": lambda text: text.replace(": ", ": \x00", 1),
}


def chat_completion(
    body: dict[str, Any], said: str, fault: str, model: str, prompt: int
) -> dict[str, Any]:
    """Return a reply to ``body`` whose answer is ``said``, spoilt by ``fault``."""
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    finish: str | None = "stop"
    if fault in _CUT:
        message["content"], finish = _CUT[fault](said), "length"
    elif fault in _WHOLE:
        message["content"] = _WHOLE[fault](said)
    elif fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot do that."}
    elif fault == "filter":
        message["content"], finish = "", "content_filter"
    elif fault == "finish_null":
        finish = None
    elif fault == "error_choice":
        message["content"], finish = said[:5], "error"
    elif fault == "parts":
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
        message["content"] = [thought, {"type": "text", "text": said}]
    if fault in ("reasoning", "empty_length", "null_length"):
        message["reasoning_content"] = 'Perhaps {"explanation": "a draft"}.'
    output = count_tokens(str(message["content"] or ""))
    reply: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": "another-model" if fault == "wrong_model" else model or body["model"],
        "system_fingerprint": "fp_changed" if fault == "fingerprint" else "fp_fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        },
    }
    if fault == "error_choice":
        reply["choices"][0]["error"] = {"code": 502, "message": "upstream failed"}
    if fault == "no_usage":
        del reply["usage"]
    if fault == "empty_choices":
        reply["choices"] = []
    return reply
