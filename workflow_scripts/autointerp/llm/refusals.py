"""Sentences with cause and remedy for what an endpoint refuses. Pure."""

from __future__ import annotations

import re
from collections import Counter

from workflow_scripts.autointerp.llm.endpoint import Reply
from workflow_scripts.autointerp.llm.requests import Request

KEPT = "what was answered is kept"
TOO_MANY = 429
SET_RATE = "set autointerp.llm.requests_per_minute to what the endpoint allows"
SLOWER = (
    "raise autointerp.llm.deadline, or lower autointerp.llm.concurrency to the calls that the "
    "server works on at once"
)
MORE_OUTPUT = (
    "raise autointerp.llm.max_output (thoughts count), or let the model think less by an "
    "annotator's extra_body, such as {reasoning_effort: low} or "
    "{chat_template_kwargs: {enable_thinking: false}}"
)
REMEDIES = {
    "truncated": MORE_OUTPUT,
    "empty": MORE_OUTPUT,
    "invalid": "try a larger model, or another autointerp.llm.response_format",
    "transport_failed": "check the endpoint and its log",
}
"""What helps against the commonest failure."""


def retry_remedy(reply: Reply) -> str:
    """Return what helps where calls fail for a time."""
    if reply.timed_out:
        return SLOWER
    return SET_RATE if reply.status == TOO_MANY else "check the endpoint"


def explain_refusal(reply: Reply, request: Request, where: str, key_env: str) -> str:
    """Return why an endpoint at ``where`` refuses what it will refuse again, and the remedy."""
    if reply.status in (401, 403):
        return (
            f"{where} refuses the key (HTTP {reply.status}): check the environment variable "
            f"{key_env or 'of autointerp.llm.key_env'}; {KEPT}"
        )
    if reply.status == 404:
        return (
            f"{where} knows no such path or model (HTTP 404): check autointerp.llm.base_url "
            f"and the model {request.model!r}; {KEPT}"
        )
    if 300 <= reply.status < 400:
        return (
            f"{where} redirects elsewhere (HTTP {reply.status}), and texts are not sent on: "
            f"set autointerp.llm.base_url to the final address; {KEPT}"
        )
    if "quota" in reply.reason:
        return f"{where}: {reply.reason}: top up the account and run again; {KEPT}"
    said = f"{where} rejects the request (HTTP {reply.status}: {reply.reason})"
    if re.search(r"context (?:length|size|window)|too (?:long|large)", reply.reason.lower()):
        return (
            f"{said}: give the model a longer context, or send less "
            f"(autointerp.contexts, items_per_prompt, max_output); {KEPT}"
        )
    named = [name for name in request.extra if name in reply.reason]
    if named:
        return (
            f"{said}: take {named[0]} out of extra_body of the annotator {request.annotator!r}; "
            f"{KEPT}"
        )
    return f"{said}: check the model and autointerp.llm.response_format; {KEPT}"


def explain_failures(purpose: str, failed: Counter[str], total: int, limit: str) -> str:
    """Return how many requests have no good answer, and what helps against most of them."""
    remedy = REMEDIES.get(failed.most_common(1)[0][0], "change the prompt or the model")
    return (
        f"{purpose}: {failed.total()} of {total} answers failed ({_listed(failed)}), more than "
        f"autointerp.llm.{limit} allows: {remedy}; then run again (good answers are kept, only "
        "the others are requested), or raise the limit"
    )


def explain_gaps(purpose: str, failed: Counter[str], total: int, limit: str) -> str:
    """Return how many requests have no good answer where that many are allowed."""
    lack = "latents stay without an explanation"
    if purpose != "explain":
        lack = "requests stay without an answer"
    return (
        f"{purpose}: {failed.total()} of {total} {lack} ({_listed(failed)}), "
        f"which autointerp.llm.{limit} allows"
    )


def _listed(failed: Counter[str]) -> str:
    return ", ".join(f"{n} {status}" for status, n in sorted(failed.items()) if n)
