"""Whether an endpoint reads prompts whole, by the tokens that it counts in them."""

from __future__ import annotations

import json
from functools import lru_cache

from workflow_scripts.autointerp.llm.conversation import Conversation
from workflow_scripts.autointerp.llm.cost import MESSAGE_TOKENS, estimate_tokens

ENOUGH = 3
"""Prompts that must have lost tokens before a run stops: tokenizers differ."""
NEAR, HALF = 0.99, 0.6
"""Cut prompts have about the same length, the context's, or lack nearly half of their tokens; where
neither holds the tokenizer is thrifty."""
FIRST, THEN = 50, 20
"""So many answers are checked, and then one in so many: estimates take time."""


class PromptCheck:
    """Compares the tokens that an endpoint counts in prompts with their estimates."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._seen = 0
        self._short: list[tuple[int, int]] = []
        self.suspects: list[Conversation] = []
        """Those whose prompts seem to have been cut."""

    def add(self, conversation: Conversation, body: bytes, counted: int) -> None:
        """Take in the tokens that were counted in a conversation's first prompt."""
        self._seen += 1
        if not self._least or (self._seen > FIRST and self._seen % THEN):
            return
        messages = json.loads(body)["messages"]
        estimate = sum(_estimate(message["content"]) + MESSAGE_TOKENS for message in messages)
        if counted < self._least * estimate:
            self._short.append((estimate, counted))
            self.suspects.append(conversation)

    def complaint(self, least: int = ENOUGH) -> str | None:
        """Return a sentence with the remedy, once so many prompts are seen to be cut."""
        if len(self._short) < least:
            return None
        longest = max(counted for _, counted in self._short)
        alike = sum(counted >= NEAR * longest for _, counted in self._short)
        far = sum(counted < HALF * estimate for estimate, counted in self._short)
        if 2 * max(alike, far) < len(self._short):
            return None
        estimate, counted = max(self._short)
        return (
            f"the endpoint counts {counted} tokens in a prompt of about {estimate}: it cuts "
            "prompts, and answers another question than was asked. Give it a longer context "
            "(Ollama: num_ctx or OLLAMA_CONTEXT_LENGTH; llama.cpp: --ctx-size; vLLM: "
            "--max-model-len) and run again; if its tokenizer is just thrifty, lower "
            "autointerp.llm.least_prompt"
        )


@lru_cache(maxsize=64)
def _estimate(text: str) -> int:
    return estimate_tokens(text)
