"""What happened in a guarded call: its attempts, and the report that the response carries."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, computed_field

from .errors import InputError
from .signals import WITHHELD, Signal
from .verdict import Verdict

R = TypeVar("R")
Outcome = Literal["answered", "flagged", "replaced", "raised", "failed"]
_REPORT = "_refusal_guard_report"
_STREAM = "_raw_stream"  # where the openai and anthropic SDKs' helpers keep it


class Stop(StrEnum):
    """Why no further attempt was made; where several reasons hold, the last named here."""

    ANSWERED = "answered"  # the response is no refusal
    UNMATCHED = "unmatched"  # no part of the policy is for a refusal like this one
    POLICY = "policy"  # the policy asks for no further attempt
    EXHAUSTED = "exhausted"  # the attempts that the policy grants are used up
    UNCHANGED = "unchanged"  # the provider declared it, and the policy would send the same again to the same model
    ATTEMPTS = "attempts"  # within(attempts=...) is reached
    RELEASED = "released"  # the text of a stream was out already when it was judged
    DEADLINE = "deadline"  # within(seconds=...) is reached
    ERROR = "error"  # a call raised an error that is no refusal


class Usage(BaseModel):
    """Tokens that a provider counted."""

    model_config = ConfigDict(frozen=True)

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    total_tokens: int = Field(default=0, ge=0)

    def __add__(self, other: Usage) -> Usage:
        """Return the sum, field by field."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


class Attempt(BaseModel):
    """One call and the verdict on it.

    `verdicts` has one for each choice of the response, and `verdict` is the one that counts: of a refused choice when the response counts
    as refused, otherwise of the first that is not. `model` is the one asked for, or else the one the response names. `address` is that of
    the client asked, where it is known. `signal` is the provider's word, also when it withheld nothing (a flag, a moderation that did not
    run). `usage` is None where the response tells none. `seconds` is how long the call took. `step` is the position in the policy of what
    ordered it, -1 for the first call. `raised` names the class of the exception by which the provider refused.
    """

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    verdicts: tuple[Verdict, ...]
    model: str | None = None
    address: str | None = None
    signal: Signal | None = None
    usage: Usage | None = None
    seconds: float = Field(default=0.0, ge=0.0)
    step: int = -1
    raised: str | None = None

    @property
    def declared(self) -> bool:
        """Whether the provider itself refused, in any choice."""
        return any(verdict.signal in WITHHELD for verdict in self.verdicts)


class Report(BaseModel):
    """What happened in a guarded call, from the first attempt to the last.

    `outcome` is "answered" (no refusal), "flagged" (a refusal, handed over as it is), "replaced", "raised" or "failed" (an error of the
    call itself); `stopped` says why no further attempt was made. Holds no text but what `Signal.explanation` may hold.
    """

    model_config = ConfigDict(frozen=True)

    attempts: tuple[Attempt, ...]
    outcome: Outcome
    stopped: Stop

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usage(self) -> Usage | None:
        """The tokens of all attempts that told theirs; None when none did."""
        told = [attempt.usage for attempt in self.attempts if attempt.usage is not None]
        return sum(told, Usage()) if told else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def models(self) -> tuple[str | None, ...]:
        """The model of each attempt, None where it is unknown."""
        return tuple(attempt.model for attempt in self.attempts)


class _Str(str):
    """A string with a report."""


class _Bytes(bytes):
    """Bytes with a report."""


class _Dict(dict[Any, Any]):
    """A dict with a report."""


class _List(list[Any]):
    """A list with a report."""


class _Tuple(tuple[Any, ...]):
    """A tuple with a report."""


_CARRIERS: dict[type, type] = {str: _Str, bytes: _Bytes, dict: _Dict, list: _List, tuple: _Tuple}


def carry(response: R, report: Report) -> R:
    """Return the response with its report attached.

    It is the same object, with one private attribute more (no field, so it shows up in no `model_dump` and no `asdict`). Only a plain str,
    bytes, dict, list or tuple, which take no attributes, come back as an equal object of a subclass. What takes none and is none of these
    (a class with `__slots__`, a number, None) comes back without. An object that several calls return carries the report of the last.
    """
    carrier = _CARRIERS.get(type(response))
    carrying: R = response if carrier is None else carrier(response)
    try:
        object.__setattr__(carrying, _REPORT, report)
    except (AttributeError, TypeError):
        return response
    return carrying


def report_of(response: object) -> Report:
    """Return the report of a response that came from a guarded call, or of the error that came instead.

    The helpers that SDKs put around a stream (`client.chat.completions.stream()`, `client.messages.stream()`) have that of their stream.
    Raises InputError when it carries none: it is not from a guarded call, or it can carry none (see `Guard.run`).
    """
    report = _attribute(response, _REPORT) or _attribute(_attribute(response, _STREAM), _REPORT)
    if not isinstance(report, Report):
        raise InputError(f"this {type(response).__name__} carries no report: pass what Guard.run or a guarded client returned or raised")
    return report


def _attribute(thing: object, name: str) -> Any:
    try:
        return object.__getattribute__(thing, name)
    except AttributeError:
        return None
