"""What LangChain's generations, messages and chunks hold, in the shape of a chat API's body, which a guard reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks

from refusal_guard import InputError, Report

Body = dict[str, Any]
KEY = "refusal_guard"
_CALLS = ("tool_calls", "invalid_tool_calls", "tool_call_chunks")
# Of a report everything is told but what may quote the response, and the verdicts on choices that did not count.
_QUOTES: Any = {"attempts": {"__all__": {"verdicts": True, "signal": {"explanation"}}}}


def body_of(generations: Sequence[Generation], llm_output: Body | None = None) -> Body:
    """Return the body of a response with these generations as its choices.

    Where there is one, what its provider tells of it (a stop reason, a blocked prompt) is told of the whole.
    """
    described = [_metadata(generation) for generation in generations]
    told = {**(llm_output or {}), **(described[0] if len(described) == 1 else {})}
    usage = next((used for generation in generations if (used := getattr(_message(generation), "usage_metadata", None))), None)
    return {
        **told,
        "model": told.get("model_name") or told.get("model"),
        "usage": usage or told.get("token_usage"),
        "choices": [{**metadata, **_choice(generation)} for metadata, generation in zip(described, generations, strict=True)],
    }


def record_of(report: Report) -> Body:
    """Return a report as plain data, for the metadata of messages and the state of agents; no text is in it."""
    return report.model_dump(mode="json", exclude=_QUOTES)


class ChunkTranscript:
    """What has arrived of a stream: generations, messages and texts, whole or in chunks."""

    def __init__(self) -> None:
        self._chunks: list[ChatGenerationChunk] = []

    def add(self, event: Any) -> None:
        """Take a chunk. Raises InputError for what no model streams."""
        self._chunks.append(as_chunk(event))

    def generations(self) -> list[ChatGenerationChunk]:
        """Return what has arrived in one piece; nothing when nothing has."""
        whole = merge_chat_generation_chunks(self._chunks)
        self._chunks = [] if whole is None else [whole]
        return self._chunks

    def body(self) -> Body:
        """Return what has arrived as the body of a response."""
        return body_of(self.generations())

    def message(self) -> BaseMessage | None:
        """Return what has arrived as a message; None when nothing has."""
        return next((whole.message for whole in self.generations()), None)


def as_chunk(thing: Any) -> ChatGenerationChunk:
    """Return a generation, a message or a text as a chunk of a stream. Raises InputError for anything else."""
    if isinstance(thing, ChatGenerationChunk):
        return thing
    if isinstance(thing, ChatGeneration):
        return ChatGenerationChunk(message=as_chunk(thing.message).message, generation_info=thing.generation_info)
    if isinstance(thing, BaseMessageChunk):
        return ChatGenerationChunk(message=thing)
    if isinstance(thing, AIMessage):
        return ChatGenerationChunk(message=AIMessageChunk(**thing.model_dump(exclude={"type"})))
    if isinstance(thing, BaseMessage | str):
        content = thing if isinstance(thing, str) else thing.content
        return ChatGenerationChunk(message=AIMessageChunk(content=content))
    raise InputError(
        f"a guard reads what a model answers, a message or a text, not a {type(thing).__name__}: put it right behind the model"
    )


def message_from(thing: Any) -> BaseMessage:
    """Return a message, or a text as one; raises InputError for anything else."""
    if not isinstance(thing, BaseMessage | str):
        raise InputError(f"a text or a message can stand in for a refused answer, not a {type(thing).__name__}")
    return AIMessage(thing) if isinstance(thing, str) else thing


def _message(generation: Generation) -> BaseMessage | None:
    return getattr(generation, "message", None)


def _metadata(generation: Generation) -> Body:
    return {**(generation.generation_info or {}), **getattr(_message(generation), "response_metadata", {})}


def _choice(generation: Generation) -> Body:
    message = _message(generation)
    if message is None:
        return {"text": generation.text}
    calls = [call for name in _CALLS for call in getattr(message, name, ())]
    refusal = message.additional_kwargs.get("refusal")
    return {"message": {"role": "assistant", "content": message.content, "refusal": refusal, "tool_calls": calls}}
