"""The guarded client: a copy of the caller's whose Messages go through the guard."""

from __future__ import annotations

from typing import TypeVar

from anthropic import Anthropic, AnthropicBedrock, AnthropicVertex, AsyncAnthropic, AsyncAnthropicBedrock, AsyncAnthropicVertex

from refusal_guard import Flag, Guard, InputError, Retry
from refusal_guard.clients import Terms, check_settings, guarded_copy
from refusal_guard.streaming import Hold, Policy, StreamMode

from .endpoints import ENDPOINTS

_BLOCKING = (Anthropic, AnthropicBedrock, AnthropicVertex)  # those for AWS, Foundry and Google Cloud are kinds of Anthropic
_AWAITING = (AsyncAnthropic, AsyncAnthropicBedrock, AsyncAnthropicVertex)
_MAX_TEMPERATURE = 1.0

C = TypeVar("C", bound="Anthropic | AnthropicBedrock | AnthropicVertex | AsyncAnthropic | AsyncAnthropicBedrock | AsyncAnthropicVertex")


def guard_anthropic(
    client: C, guard: Guard | None = None, policy: Policy = Flag(), stream: StreamMode = "flag", *, hold: int | None = None
) -> C:
    """Return a client of the same type whose answers are judged, and dealt with as the policy says.

    It shares the connections of `client`, which stays as it is. Guarded are `messages.create`, `parse` and `stream`, those of `beta` too,
    blocking and awaiting, for Anthropic, Bedrock, Vertex and servers that speak their protocol. Everything else goes through. `report_of`
    has the report of what it returns or raises.

    `guard` is the embedded model's without one. A `Fallback` takes names of models and clients of the same kind, and `Replace` with a text
    makes a message of the usual type. `stream` says what is held of a streamed answer before it is judged: "flag" nothing, so that the
    verdict is there at the end; "gate" the opening, `hold` characters or the first sentence; "full" everything. Only what is held can be
    retried. Raises InputError for anything else.
    """
    if not isinstance(client, _BLOCKING + _AWAITING):
        raise InputError(f"guard_anthropic takes an Anthropic or AsyncAnthropic client, or one for a cloud, not {type(client).__name__}")
    kind, name = (_AWAITING, "AsyncAnthropic") if isinstance(client, _AWAITING) else (_BLOCKING, "Anthropic")
    check_settings(policy, guard, kind, name)
    if any(isinstance(step, Retry) and (step.temperature or 0.0) > _MAX_TEMPERATURE for step in policy.steps):
        raise InputError(f"Anthropic's temperatures end at {_MAX_TEMPERATURE:g}")
    return guarded_copy(client, Terms(guard or Guard(), policy, Hold(stream, hold), ENDPOINTS))
