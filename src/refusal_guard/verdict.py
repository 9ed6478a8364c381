"""What one detector says of a response, and what the guard decides."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Part = Literal["turns", "prompt", "response"]
Threshold = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]


def is_threshold(value: object) -> bool:
    """Return whether a value is a number between 0 and 1, both excluded; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value < 1.0


class Label(StrEnum):
    """What the response does with the user's last request."""

    REFUSAL = "refusal"
    PARTIAL = "partial"
    COMPLIANCE = "compliance"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why it refuses: it should not (policy, safety, law, privacy, ethics) or cannot (capability, access, missing information).

    The two families of "Cannot or Should Not?", von Recum et al. 2024, arXiv 2412.16974.
    """

    SHOULD_NOT = "should_not"
    CANNOT = "cannot"


class Span(NamedTuple):
    """Characters [start, end) of the response as it was handed over."""

    start: int
    end: int


class Detection(BaseModel):
    """What one detector says of one response: nothing is decided yet.

    `score` is P(refusal or partial). `label` tells refusal and partial apart where the detector can. `evidence` is the part of the
    response that speaks most for a refusal; a detector that reads a response in several windows gives the one with the greatest score.
    `truncated` names what was too long to be read whole: earlier "turns", the "prompt", the "response"; empty when nothing was.
    """

    model_config = ConfigDict(frozen=True)

    score: Probability
    detector: str
    label: Label | None = None
    reason: Reason | None = None
    evidence: Span | None = None
    truncated: tuple[Part, ...] = ()


class Verdict(BaseModel):
    """What the guard decided about one response.

    `refused` is `score >= threshold`, unless a `signal` decided: the provider's "refusal", "filtered" (it took the answer away) or
    "blocked" (it did not take the prompt), or else "empty" (no text to judge) or "tool_call" (a tool call instead of text). `error` names
    what failed when the guard did not run. `truncated` names what the detector did not read whole ("turns", "prompt", "response").
    """

    model_config = ConfigDict(frozen=True)

    label: Label
    score: Probability
    threshold: Threshold
    refused: bool
    detector: str
    reason: Reason | None = None
    evidence: Span | None = None
    truncated: tuple[Part, ...] = ()
    signal: str | None = None
    error: str | None = None
