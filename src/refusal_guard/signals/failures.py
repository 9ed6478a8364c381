"""Signals in errors: exceptions of SDKs and HTTP clients, error bodies, and answers with status 200 that hold an error.

Exceptions are told by their class's name and by the fields SDKs give them (`code`, `status_code`, `body`, `response`), so that none
is imported. A prompt that an error quotes (OpenRouter's `flagged_input`) is never read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..foreign import field, is_a, items, word
from .openai import failure
from .signal import Signal, blocked, filtered, not_run, refusal

_FORBIDDEN = 403
_LITELLM_POLICY = "ContentPolicyViolationError"
_FAILURE_WORDS = ("error", "failed", "unavailable", "timeout", "timed out")
# Exceptions that stand for an answer: openai's parse helpers, pydantic-ai, langchain-core.
_OUTPUT_ERRORS = {
    "ContentFilterFinishReasonError": ("openai", filtered),
    "ContentFilterError": ("pydantic_ai", filtered),
    "ModelRefusalError": ("langchain", refusal),
}


def of_exception(error: BaseException) -> Iterator[Signal | None]:
    """Yield what an exception declares."""
    names = {kind.__name__ for kind in type(error).__mro__}
    yield next((make(provider) for name, (provider, make) in _OUTPUT_ERRORS.items() if name in names), None)
    for body in (_parsed(field(error, "body")), _parsed(field(error, "response", "content")), error):
        yield from of_body(body, status=field(error, "status_code"))
    if _LITELLM_POLICY in names:
        yield blocked("litellm", category=word(field(error, "code")))


def of_body(body: Any, status: Any = None) -> Iterator[Signal | None]:
    """Yield what an error body declares: the object itself, or what it holds under `error`."""
    for error in (field(body, "error"), body):
        yield failure(error)
        yield _openrouter(error)
        yield _litellm(error)
        if any(is_a(code, int) and code == _FORBIDDEN for code in (status, field(error, "code"))):
            yield _mistral(error)
    yield from (_openrouter(field(choice, "error")) for choice in items(body, "choices"))


def _parsed(body: Any) -> Any:
    """Return a body as an object: some clients leave it as the JSON text it came in."""
    if not is_a(body, str, bytes):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _openrouter(error: Any) -> Signal | None:
    metadata = field(error, "metadata")
    reasons = [reason for reason in map(word, items(metadata, "reasons")) if reason]
    if not reasons and word(field(metadata, "flagged_input")) is None:
        return None
    return blocked("openrouter", category=", ".join(reasons) or None, explanation=word(field(error, "message")))


def _litellm(error: Any) -> Signal | None:
    """Return the signal of a LiteLLM proxy's error: it knows the kind by the class's name in its message."""
    message = word(field(error, "message")) or ""
    return blocked("litellm") if f"litellm.{_LITELLM_POLICY}" in message else None


def _mistral(error: Any) -> Signal | None:
    """Return the signal of a guardrail's 403.

    Mistral answers so when a guardrail blocks, and with `block_on_error` when the guardrail itself fails. The wording of the body is not
    documented: it is taken for a failure when it speaks of one.
    """
    text = " ".join(filter(None, (word(field(error, name)) for name in ("type", "message", "detail")))).lower()
    if "guardrail" not in text and "moderation" not in text:
        return None
    return not_run("mistral") if any(sign in text for sign in _FAILURE_WORDS) else blocked("mistral")
