"""Signals of the providers with a form of their own: one table and one reader each.

Sources: anthropic 2.12 (Messages), google-genai 3.4 (GenerateContentResponse) and the Gemini REST names, botocore 1.44 (Bedrock Runtime
Converse, ConverseStream, ApplyGuardrail), the Cohere v1 and v2 chat responses, Mistral's moderation endpoint and guardrails. Ollama
declares nothing (its `done_reason` is "stop" or "length").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..foreign import field, first, is_a, items, pairs, word
from .signal import Signal, blocked, filtered, flagged, refusal

_GEMINI_FILTERS = frozenset(
    {
        "SAFETY",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "RECITATION",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "ESCALATION",
    }
)
_GEMINI_NO_BLOCK = frozenset({"BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})
_ASSESSMENT_DEPTH = 8  # a guardrail's trace nests policy, list and finding; what is deeper is none


def anthropic(body: Any) -> Iterator[Signal | None]:
    """Yield the signal of a message, or of a stream's `message_delta` event."""
    for message in (body, field(body, "delta"), field(body, "message")):
        if word(field(message, "stop_reason")) == "refusal":
            details = field(message, "stop_details")
            yield refusal("anthropic", category=word(field(details, "category")), explanation=word(field(details, "explanation")))


def gemini(body: Any) -> Iterator[Signal | None]:
    """Yield the signals of a response or of a chunk; a blocked prompt is in the first chunk alone."""
    feedback = first(body, "prompt_feedback", "promptFeedback")
    reason = word(first(feedback, "block_reason", "blockReason"))
    if reason and reason not in _GEMINI_NO_BLOCK:
        message = word(first(feedback, "block_reason_message", "blockReasonMessage"))
        yield blocked("gemini", category=reason, explanation=message)
    candidates = [_candidate(candidate) for candidate in items(body, "candidates")]
    yield candidates[0] if candidates and all(candidates) else None
    yield _candidate(body)


def _candidate(candidate: Any) -> Signal | None:
    reason = word(first(candidate, "finish_reason", "finishReason"))
    if reason not in _GEMINI_FILTERS:
        return None
    ratings = first(candidate, "safety_ratings", "safetyRatings")
    hit = [word(field(rating, "category")) for rating in items(ratings) if field(rating, "blocked") is True]
    names = [name for name in hit if name] or [str(reason)]
    return filtered("gemini", category=", ".join(names), explanation=word(first(candidate, "finish_message", "finishMessage")))


def bedrock(body: Any) -> Iterator[Signal | None]:
    """Yield the signal of a Converse answer, of a ConverseStream event, or of ApplyGuardrail."""
    stop = word(field(body, "stopReason")) or word(field(body, "messageStop", "stopReason"))
    trace = next((found for owner in (body, field(body, "metadata")) if (found := field(owner, "trace", "guardrail")) is not None), None)
    explanation = word(field(trace, "actionReason"))
    if stop == "content_filtered":
        yield filtered("bedrock", explanation=explanation)
    elif stop == "guardrail_intervened" or stop is None:  # a stream tells the trace after the stop, in an event of its own
        yield _intervention(trace, assume_filtered=stop is not None, explanation=explanation)
    if word(field(body, "action")) == "GUARDRAIL_INTERVENED":
        category = ", ".join(_findings(field(body, "assessments"), "BLOCKED")) or None
        yield blocked("bedrock", category=category, explanation=word(field(body, "actionReason")))


def _intervention(trace: Any, *, assume_filtered: bool, explanation: str | None) -> Signal | None:
    """Return what a guardrail did: its trace tells prompt from answer, and taking away from masking; without a trace it is the answer."""
    prompt, answer = field(trace, "inputAssessment"), field(trace, "outputAssessments")
    if names := _findings(prompt, "BLOCKED"):
        return blocked("bedrock", category=", ".join(names), explanation=explanation)
    if names := _findings(answer, "BLOCKED"):
        return filtered("bedrock", category=", ".join(names), explanation=explanation)
    if names := _findings(prompt, "ANONYMIZED"):
        return flagged("bedrock", "input", category=", ".join(names))
    if names := _findings(answer, "ANONYMIZED"):
        return flagged("bedrock", "output", category=", ".join(names))
    return filtered("bedrock", explanation=explanation) if assume_filtered else None


def _findings(assessment: Any, action: str, depth: int = 0) -> list[str]:
    """Return the categories of the findings with an action, anywhere in an assessment; the text they match is not read."""
    if depth > _ASSESSMENT_DEPTH:
        return []
    nested = items(assessment) or [value for _, value in pairs(assessment)]
    found = [name for inner in nested if is_a(inner, list, tuple, dict) for name in _findings(inner, action, depth + 1)]
    if word(field(assessment, "action")) == action:
        found.append(word(field(assessment, "name")) or word(field(assessment, "type")) or "word")
    return found


def cohere(body: Any) -> Iterator[Signal | None]:
    """Yield the signal of a v1 chat or generation, or of a stream's last event; v2 only knows COMPLETE, MAX_TOKENS, ERROR and the like."""
    for answer in (body, field(body, "response"), *items(body, "generations")):
        if word(field(answer, "finish_reason")) == "ERROR_TOXIC":
            yield filtered("cohere", category="ERROR_TOXIC")


def mistral(body: Any) -> Iterator[Signal | None]:
    """Yield what a moderation endpoint flagged, Mistral's form (categories alone) or OpenAI's (`flagged`)."""
    for result in items(body, "results"):
        names = [name for name, value in pairs(field(result, "categories")) if value is True]
        if names:
            yield flagged("mistral" if field(result, "flagged") is None else "openai", "input", category=", ".join(names))
