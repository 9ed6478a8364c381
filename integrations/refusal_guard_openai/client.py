"""The guarded client: a copy of the caller's whose requests to models go through the guard."""

from __future__ import annotations

from typing import TypeVar

from openai import AsyncOpenAI, OpenAI

from refusal_guard import Flag, Guard, InputError
from refusal_guard.clients import Terms, check_settings, guarded_copy
from refusal_guard.streaming import Hold, Policy, RefusedWhen, StreamMode

from .endpoints import ENDPOINTS

C = TypeVar("C", bound="OpenAI | AsyncOpenAI")


def guard_openai(
    client: C,
    guard: Guard | None = None,
    policy: Policy = Flag(),
    stream: StreamMode = "flag",
    *,
    hold: int | None = None,
    refused_when: RefusedWhen = "all",
) -> C:
    """Return a client of the same type whose answers are judged, and dealt with as the policy says.

    It shares the connections of `client`, which stays as it is. Guarded are chat completions, responses and completions: create, parse and
    stream, blocking and awaiting, for OpenAI, Azure and servers that speak their protocol. Everything else goes through. `report_of` has
    the report of what it returns or raises.

    `guard` is the embedded model's without one. A `Fallback` takes names of models and clients of the same kind, and `Replace` with a text
    makes a response of the usual type. `stream` says what is held of a streamed answer before it is judged: "flag" nothing, so that the
    verdict is there at the end; "gate" the opening, `hold` characters or the first sentence; "full" everything. Only what is held can be
    retried. With `refused_when="any"` one refused choice of several makes the response refused. Raises InputError for anything else.
    """
    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise InputError(f"guard_openai takes an OpenAI, AsyncOpenAI or Azure client, not {type(client).__name__}")
    if refused_when not in ("all", "any"):
        raise InputError("refused_when must be one of all, any")
    kind = AsyncOpenAI if isinstance(client, AsyncOpenAI) else OpenAI
    check_settings(policy, guard, kind, kind.__name__)
    return guarded_copy(client, Terms(guard or Guard(), policy, Hold(stream, hold), ENDPOINTS, refused_when))
