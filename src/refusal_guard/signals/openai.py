"""Signals in OpenAI's form: Chat Completions, Responses, inline moderation, and what Azure adds.

Forms as of openai-python 3.54 and Azure OpenAI's content filter annotations. Servers that speak the protocol (OpenRouter, LiteLLM,
vLLM) use the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..foreign import field, items, pairs, word
from .signal import Signal, Stage, blocked, filtered, flagged, not_run, refusal

_PROVIDER, _AZURE = "openai", "azure"
# What `error.code` says when it was the prompt that was not taken.
BLOCKED_CODES = {
    "content_policy_violation": _PROVIDER,
    "invalid_prompt": _PROVIDER,
    "bio_policy": _PROVIDER,
    "misalignment_policy_violation": _PROVIDER,
    "image_content_policy_violation": _PROVIDER,
    "content_filter": _AZURE,
    "ResponsibleAIPolicyViolation": _AZURE,
}


def signals(body: Any) -> Iterator[Signal | None]:
    """Yield what a completion, a response, a choice, or a chunk or event of a stream of either declares."""
    kind = word(field(body, "type")) or ""
    whole = field(body, "response") if kind.startswith("response.") else body
    yield from _chat(body)
    yield from _responses(body, kind, whole)
    yield moderation(field(whole, "moderation", "input"), "input")
    yield moderation(field(whole, "moderation", "output"), "output")
    for prompt in items(body, "prompt_filter_results"):
        yield _annotated(field(prompt, "content_filter_results"), of_prompt=True)


def _chat(body: Any) -> Iterator[Signal | None]:
    choices = [_choice(choice) for choice in items(body, "choices")]
    if choices and all(signal is not None and signal.withheld for signal in choices):
        yield choices[0]
    yield from (signal for signal in choices if signal is not None and not signal.withheld)
    yield _choice(body)


def _choice(choice: Any) -> Signal | None:
    """Return the signal of one choice, whole or streamed, or of a message alone."""
    for message in (field(choice, "message"), field(choice, "delta"), choice):
        declined = word(field(message, "refusal"))
        if declined:
            return refusal(_PROVIDER, explanation=declined)
        if found := _refusal_part(message):
            return found
    annotated = _annotated(field(choice, "content_filter_results"), of_prompt=False)
    if word(field(choice, "finish_reason")) == "content_filter" and not (annotated and annotated.withheld):
        return filtered(_PROVIDER)
    return annotated


def _refusal_part(message: Any) -> Signal | None:
    for part in items(message, "content"):
        if word(field(part, "type")) == "refusal":
            return refusal(_PROVIDER, explanation=word(field(part, "refusal")))
    return None


def _responses(body: Any, kind: str, response: Any) -> Iterator[Signal | None]:
    if kind.startswith("response.refusal."):
        yield refusal(_PROVIDER, explanation=word(field(body, "refusal")) or word(field(body, "delta")))
    yield from (_refusal_part(item) for item in items(response, "output"))
    if word(field(response, "incomplete_details", "reason")) == "content_filter":
        yield filtered(_PROVIDER)
    yield failure(body if kind == "error" else field(response, "error"))


def failure(error: Any) -> Signal | None:
    """Return the signal of an `error` object with one of the codes for a prompt that was not taken."""
    codes = (word(field(error, "code")), word(field(error, "innererror", "code")))
    code = next((code for code in codes if code in BLOCKED_CODES), None)
    if code is None:
        return None
    results = _first_results(error)
    categories = _categories(results, "filtered") or ([code] if code != "content_filter" else [])
    provider = _AZURE if results is not None else BLOCKED_CODES[code]
    return blocked(provider, category=", ".join(categories) or None, explanation=word(field(error, "message")))


def _first_results(error: Any) -> Any:
    inner = field(error, "innererror")
    return next((found for name in ("content_filter_result", "content_filter_results") if (found := field(inner, name)) is not None), None)


def moderation(result: Any, stage: Stage) -> Signal | None:
    """Return what an inline moderation says of the prompt ("input") or the answer ("output"): flagged, failed, or None for clean."""
    if word(field(result, "type")) == "error":
        return not_run(_PROVIDER, category=word(field(result, "code")), explanation=word(field(result, "message")))
    for scored in items(result, "results") or [result]:
        if field(scored, "flagged") is True:
            names = [name for name, value in pairs(field(scored, "categories")) if value is True]
            return flagged(_PROVIDER, stage, category=", ".join(names) or None)
    return None


def _annotated(results: Any, *, of_prompt: bool) -> Signal | None:
    """Return what Azure's annotations say: filtered, only detected, or that the filter did not run."""
    if failed := word(field(results, "error", "code")):
        return not_run(_AZURE, category=failed, explanation=word(field(results, "error", "message")))
    if names := _categories(results, "filtered"):
        return (blocked if of_prompt else filtered)(_AZURE, category=", ".join(names))
    if names := _categories(results, "detected"):
        return flagged(_AZURE, "input" if of_prompt else "output", category=", ".join(names))
    return None


def _categories(results: Any, mark: str) -> list[str]:
    return [name for name, value in pairs(results) if field(value, mark) is True]
