"""Provider signals: what providers declare themselves about an answer, a prompt, or their own moderation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..foreign import is_a
from . import failures, openai, providers
from .signal import WITHHELD, Kind, Signal, Stage

__all__ = ["WITHHELD", "Kind", "Signal", "Stage", "native_signal"]

_READERS = (
    openai.signals,
    providers.anthropic,
    providers.gemini,
    providers.bedrock,
    providers.cohere,
    providers.mistral,
    failures.of_body,
)


def native_signal(obj: Any) -> Signal | None:
    """Return what a provider declares in a response, a stream's chunk or event, an error body or an exception; None when nothing.

    Takes the SDKs' objects, plain dicts and exceptions of OpenAI (Chat Completions and Responses), Azure OpenAI, Anthropic, Gemini,
    Bedrock, Cohere, Mistral, OpenRouter and LiteLLM; imports none of them, and raises on nothing. Where several things are declared at
    once, what withheld the answer comes first, then a moderation that did not run, then a flag. A response of several choices is
    withheld only when all of them are; a single choice may be passed too.
    """
    if obj is None or is_a(obj, str, bytes):
        return None
    found = [signal for signal in _declared(obj) if signal is not None]
    return min(found, key=_rank, default=None)


def _declared(obj: Any) -> Iterator[Signal | None]:
    if is_a(obj, BaseException):
        yield from failures.of_exception(obj)
        return
    for read in _READERS:
        yield from read(obj)


def _rank(signal: Signal) -> int:
    if signal.withheld:
        return 0
    return 1 if signal.kind == "not_run" else 2
