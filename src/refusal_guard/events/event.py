"""The event: what is told of one judged response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..signals import WITHHELD, Stage
from ..verdict import Label, Probability, Reason, Threshold

Action = Literal["scanned", "answered", "flagged", "retried", "fell_back", "replaced", "raised", "failed"]
EventSignal = Literal["refusal", "filtered", "blocked", "flagged", "not_run", "empty", "tool_call"]

Moderation = Literal["flagged", "blocked", "error"]
RetryOutcome = Literal["answered", "refused", "failed"]
_MODERATION: dict[str, Moderation] = {"flagged": "flagged", "blocked": "blocked", "not_run": "error"}


def encodable(text: str) -> str:
    """Return a text with "?" for lone surrogates, which no exporter can write."""
    return text if text.isascii() else text.encode(errors="replace").decode()


Text = Annotated[str, AfterValidator(encodable)]


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
    provider: Text | None = None
    category: Text | None = None
    stage: Stage = "output"
    model: Text | None = None
    route: Text | None = None
    attempt: int = Field(default=1, ge=1)
    action: Action = "scanned"
    latency: float = Field(default=0.0, ge=0.0)
    conversation_id: Text | None = None
    error: Text | None = None
    prompt: Text | None = Field(default=None, repr=False)
    response: Text | None = Field(default=None, repr=False)

    @property
    def not_run(self) -> bool:
        """Whether the guard or a moderation did not run, so that the response was not checked by it."""
        return self.error is not None or self.signal == "not_run"

    @property
    def detected(self) -> bool:
        """Whether a detector gave the score."""
        return self.label is not Label.UNKNOWN and self.signal not in WITHHELD

    @property
    def moderation(self) -> Moderation | None:
        """What a provider's moderation did: it flagged the prompt or the answer, blocked the prompt, or failed."""
        return _MODERATION.get(self.signal or "")

    @property
    def retry(self) -> RetryOutcome | None:
        """How a further attempt came out; None for a first one."""
        if self.attempt == 1:
            return None
        return "failed" if self.action == "failed" else "refused" if self.refused else "answered"


Hook = Callable[[ScanEvent], object]
