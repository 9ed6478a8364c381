"""The event: what is told of one judged response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..signals import Stage
from ..verdict import Label, Probability, Reason, Threshold

Action = Literal["scanned", "answered", "flagged", "retried", "fell_back", "replaced", "raised", "failed"]
EventSignal = Literal["refusal", "filtered", "blocked", "flagged", "not_run", "empty", "tool_call"]


class ScanEvent(BaseModel):
    """One judged response, or one that could not be judged.

    `time` is when it was judged, in seconds since 1970 (UTC). `label`, `score`, `threshold`, `refused`, `detector`, `reason` and `error`
    are the verdict's; an `error` says that the guard did not run. `signal` is what decided without a detector, as in the verdict, or else
    what the provider declared of an answer that it let pass: "flagged", or "not_run", when its moderation failed. `provider` and
    `category` are the provider's words for it, and `stage` says what it is about: the prompt ("input"), the answer ("output"), or the
    "guard" or moderation that did not run.

    `model` is the one that answered, where it is known, and `route` and `conversation_id` are what the app says (see `tagged`). `attempt`
    counts the calls of a guarded call from 1. `action` is what was done: a plain scan "scanned" only; a guarded call handed the response
    over ("answered", or "flagged" when it is a refusal), "retried", "fell_back" to another model, "replaced" it or "raised" for the
    refusal; "failed" when an error of the guard or the moderation went to the caller. `latency` is how many seconds judging took, the
    response's share of it where several were judged together.

    `prompt` and `response` are None unless the guard was made with `include_text=True`.
    """

    model_config = ConfigDict(frozen=True)

    time: float
    label: Label
    score: Probability
    threshold: Threshold
    refused: bool
    detector: str
    reason: Reason | None = None
    signal: EventSignal | None = None
    provider: str | None = None
    category: str | None = None
    stage: Stage = "output"
    model: str | None = None
    route: str | None = None
    attempt: int = Field(default=1, ge=1)
    action: Action = "scanned"
    latency: float = Field(default=0.0, ge=0.0)
    conversation_id: str | None = None
    error: str | None = None
    prompt: str | None = Field(default=None, repr=False)
    response: str | None = Field(default=None, repr=False)


Hook = Callable[[ScanEvent], object]
