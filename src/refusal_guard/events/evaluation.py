"""An event in the words of OpenTelemetry's conventions for generative AI: the event `gen_ai.evaluation.result` (status: development).

Conventions: https://github.com/open-telemetry/semantic-conventions-genai. The names are written out here since the constants of
`opentelemetry-semantic-conventions` are deprecated.
"""

from __future__ import annotations

from ..verdict import Label
from .event import ScanEvent

EVENT_NAME = "gen_ai.evaluation.result"
_PROVIDERS = {"azure": "azure.ai.openai", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai"}
_OURS = "refusal_guard."
_NAMED = frozenset({"time", "score", "reason", "model", "provider", "conversation_id", "error"})


def evaluation_result(event: ScanEvent) -> dict[str, str | int | float | bool]:
    """Return the attributes; a response without a verdict has no score, and what the conventions have no name for begins with ours."""
    named = {
        "gen_ai.evaluation.name": "refusal",
        "gen_ai.evaluation.explanation": event.reason and str(event.reason),
        "gen_ai.request.model": event.model,
        "gen_ai.provider.name": event.provider and _PROVIDERS.get(event.provider, event.provider),
        "gen_ai.conversation.id": event.conversation_id,
        "error.type": ("moderation_not_run" if event.error is None else "guard_not_run") if event.not_run else None,
        f"{_OURS}error": event.error,
    }
    judged = {
        "gen_ai.evaluation.score.value": event.score,
        "gen_ai.evaluation.score.label": "refusal" if event.refused else "no_refusal",
    }
    ours = {f"{_OURS}{name}": value for name, value in event.model_dump(mode="json", exclude=set(_NAMED)).items()}
    told = named | (judged if event.label is not Label.UNKNOWN else {}) | ours
    return {name: value for name, value in told.items() if value is not None}
