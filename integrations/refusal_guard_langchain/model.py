"""The guarded chat model: the caller's own, seen through a class whose calls go through the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from functools import wraps
from types import new_class
from typing import Any, ClassVar, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import BaseModel

from refusal_guard import Flag, Guard, InputError
from refusal_guard.clients import check_settings
from refusal_guard.streaming import Hold, Policy, RefusedWhen, StreamMode

from .calls import ModelCall, Terms, implements

M = TypeVar("M", bound=BaseChatModel)
# Where newer versions of LangChain let a model make its events itself; without them they are made from what `_stream` yields.
_EVENT_SOURCES = ("_stream_chat_model_events", "_astream_chat_model_events")


def guard_model(
    model: M,
    guard: Guard | None = None,
    policy: Policy = Flag(),
    stream: StreamMode = "flag",
    *,
    hold: int | None = None,
    refused_when: RefusedWhen = "all",
) -> M:
    """Return a chat model of the same type whose answers are judged with their prompts, and dealt with as the policy says.

    It shares its settings with `model`, which stays as it is; `bind_tools`, `with_structured_output` and agents take it. Messages tell
    what happened in `response_metadata["refusal_guard"]`, streamed ones too, and `report_of(message)` has it for those in one piece.

    `guard` is the embedded model's without one. A `Fallback` takes other chat models, and names, which are passed to this one as `model=`;
    what is bound (tools) goes along. `Replace` takes a text, or a function of the refused message. `stream` says what is held of a
    streamed answer before it is judged: "flag" nothing, "gate" the opening, `hold` characters or the first sentence, "full" everything.
    `Raise` raises RefusalDetectedError. With `refused_when="any"` one refused choice of several makes the answer refused. Raises
    InputError for anything else.
    """
    if not isinstance(model, BaseChatModel):
        raise InputError(f"guard_model takes a chat model, not a {type(model).__name__}: guard the model before you bind to it or chain it")
    if refused_when not in ("all", "any"):
        raise InputError("refused_when must be one of all, any")
    check_settings(policy, guard, BaseChatModel, "LangChain")
    terms = Terms(guard or Guard(), policy, Hold(stream, hold), refused_when)
    return _seen_as(model, _guarded_class(type(model), terms))


def _seen_as(model: BaseChatModel, kind: type[M]) -> M:
    """Return the model as one of another class; the two share their fields, so that what one counts the other knows."""
    seen = kind.__new__(kind)
    for slot in BaseModel.__slots__:
        object.__setattr__(seen, slot, getattr(model, slot))
    return seen


def _guarded_class(kind: type[M], terms: Terms) -> type[M]:
    """Return a subclass, of the same name, whose calls are guarded: those that the class makes itself, not by another of them."""
    body: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__annotations__": {}}
    for name in _EVENT_SOURCES:
        if hasattr(kind, name):
            body[name], body["__annotations__"][name] = None, ClassVar[None]
    for name, guarded in (("_generate", _generate), ("_agenerate", _agenerate), ("_stream", _stream), ("_astream", _astream)):
        if implements(kind, name):
            body[name] = wraps(getattr(kind, name))(guarded(kind, terms))
    return cast(type[M], new_class(kind.__name__, (kind,), exec_body=lambda namespace: namespace.update(body)))


def _generate(kind: type[BaseChatModel], terms: Terms) -> Callable[..., ChatResult]:
    def generate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        return ModelCall(terms, _seen_as(self, kind), messages, args, options).run()

    return generate


def _agenerate(kind: type[BaseChatModel], terms: Terms) -> Callable[..., Any]:
    async def generate(self: BaseChatModel, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        return await ModelCall(terms, _seen_as(self, kind), messages, args, options).arun()

    return generate


# The run manager of a stream stays with us: who listens to it would hear what is held back.


def _stream(kind: type[BaseChatModel], terms: Terms) -> Callable[..., Iterator[ChatGenerationChunk]]:
    def stream(
        self: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        with closing(ModelCall(terms, _seen_as(self, kind), messages, (stop,), options).stream()) as chunks:
            for chunk in chunks:
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    return stream


def _astream(kind: type[BaseChatModel], terms: Terms) -> Callable[..., AsyncIterator[ChatGenerationChunk]]:
    async def stream(
        self: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(ModelCall(terms, _seen_as(self, kind), messages, (stop,), options).astream()) as chunks:
            async for chunk in chunks:
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    return stream
