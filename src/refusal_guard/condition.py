"""Conditions: which verdicts a policy is for."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from .errors import InputError
from .verdict import Label, Reason, Verdict

VerdictSignal = Literal["refusal", "filtered", "blocked", "empty", "tool_call"]


@dataclass(frozen=True, slots=True)
class When:
    """A condition on the verdict: all that is named must hold; with nothing named, that it is a refusal.

    `score` is the least score. `signal` is what decided without a detector: "refusal", "filtered" or "blocked" by the provider, "empty"
    or "tool_call"; so `When(signal="empty")` also takes up answers without a text, which are no refusals.
    """

    label: Label | None = None
    reason: Reason | None = None
    signal: VerdictSignal | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no verdict has."""
        for name, value, known in (
            ("label", self.label, tuple(Label)),
            ("reason", self.reason, tuple(Reason)),
            ("signal", self.signal, get_args(VerdictSignal)),
        ):
            if value is not None and value not in known:
                raise InputError(f"the {name} of a condition must be one of {', '.join(known)}")
        if self.score is not None and not (is_number(self.score) and 0.0 <= self.score <= 1.0):
            raise InputError("the score of a condition must be a number from 0 to 1")

    def holds(self, verdict: Verdict) -> bool:
        """Return whether the verdict is of this kind."""
        if self == REFUSED:
            return verdict.refused
        return (
            self.label in (None, verdict.label)
            and self.reason in (None, verdict.reason)
            and self.signal in (None, verdict.signal)
            and (self.score is None or verdict.score >= self.score)
        )


REFUSED = When()


def check_condition(when: object) -> None:
    """Raise InputError for what is no condition."""
    if not isinstance(when, When):
        raise InputError(f"when takes a condition such as When(label=Label.PARTIAL), not {type(when).__name__}")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
