"""Reads responses: what is to be judged in them, what their provider declares, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .attempts import Usage
from .conversation import Conversation
from .errors import InputError
from .foreign import field, first, has, is_a, items, word
from .signals import Signal, native_signal

_INPUT_TOKENS = ("input_tokens", "prompt_tokens", "inputTokens", "prompt_token_count", "promptTokenCount")
_OUTPUT_TOKENS = ("output_tokens", "completion_tokens", "outputTokens", "candidates_token_count", "candidatesTokenCount")
_TOTAL_TOKENS = ("total_tokens", "totalTokens", "total_token_count", "totalTokenCount")
_TOOL_PARTS = frozenset({"tool_use", "tool_call", "function_call"})
_LANGCHAIN_ROLES = {"human": "user", "system": "system", "tool": "tool"}
# Gemini and Bedrock tell a part's kind by the name of its one field.
_UNTYPED_PARTS = {
    "function_call": "function_call",
    "functionCall": "function_call",
    "toolUse": "tool_use",
    "reasoningContent": "reasoning",
    "text": "text",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer in a response: the conversation it ends, and what the provider declares of it."""

    conversation: Conversation
    signal: Signal | None = None

    @property
    def withheld(self) -> bool:
        """Whether the provider declares that this is no answer."""
        return self.signal is not None and self.signal.withheld


@dataclass(frozen=True, slots=True)
class Reading:
    """What a response holds. `signal` is declared of the response as a whole, `model` is the name it gives."""

    choices: tuple[Choice, ...] = ()
    signal: Signal | None = None
    model: str | None = None
    usage: Usage | None = None

    @property
    def withheld(self) -> bool:
        """Whether the provider declares that there is no answer."""
        return self.signal is not None and self.signal.withheld


def describe(response: Any) -> Reading:
    """Return what a response says about itself, its answers left unread; of a foreign object that is perhaps nothing."""
    return Reading(
        signal=native_signal(response),
        model=word(first(response, "model", "model_version", "modelVersion")),
        usage=_usage(first(response, "usage", "usage_metadata", "usageMetadata")),
    )


def read_response(response: Any, before: Sequence[Mapping[str, Any]] = ()) -> Reading:
    """Return what a response holds, as the answer to the messages before it.

    Reads text (str or None), conversations, lists of messages, and the objects and bodies of OpenAI's Chat Completions, Completions and
    Responses, Anthropic's Messages, Gemini, Bedrock Converse, Ollama, Cohere and LangChain. Raises InputError for anything else, unless
    its provider declares that there is no answer.
    """
    described = describe(response)
    try:
        answers = _answers(response)
    except InputError:
        if described.withheld:
            return described
        raise
    return replace(described, choices=tuple(Choice(_conversation(answer, before), native_signal(answer)) for answer in answers))


def message_of(thing: Any) -> dict[str, Any]:
    """Return a message as a dict of the chat shape, from a dict or an SDK's object; what it does not have is left empty."""
    content = field(thing, "content")
    return {
        "role": word(field(thing, "role")) or _LANGCHAIN_ROLES.get(word(field(thing, "type")) or "", "assistant"),
        "content": [_part(part) for part in items(content)] if is_a(content, list, tuple) else word(content),
        "refusal": word(field(thing, "refusal")),
        "tool_calls": items(thing, "tool_calls") or items([called] if (called := field(thing, "function_call")) is not None else None),
    }


def _answers(response: Any) -> list[Any]:
    """Return the answers of a response, each as something that `_conversation` takes; one without a text where there is none."""
    if response is None or is_a(response, str, Conversation):
        return [response]
    if has(response, "status_code"):
        raise InputError("an HTTP response can't be read by itself: pass read=, such as read=lambda response: response.json()")
    if is_a(response, list, tuple):
        return [list(response)]
    if choices := items(response, "choices"):
        return choices
    if candidates := items(response, "candidates"):
        return candidates
    if output := items(response, "output"):
        return [{"role": "assistant", "content": [part for item in output for part in items(item, "content") or [item]]}]
    message = next((found for owner in (response, field(response, "output")) if (found := field(owner, "message")) is not None), None)
    if message is not None:
        return [message]
    if word(field(response, "text")) or _is_message(response):
        return [response]
    if any(has(response, name) for name in ("choices", "candidates", "output", "error", "prompt_feedback", "promptFeedback")):
        return [None]
    raise InputError(f"a {type(response).__name__} can't be read as a response: pass read=, a function that returns its text or messages")


def _is_message(thing: Any) -> bool:
    content = field(thing, "content")
    return is_a(content, str, list) or (word(field(thing, "role")) is not None and has(thing, "content"))


def _conversation(answer: Any, before: Sequence[Mapping[str, Any]]) -> Conversation:
    if is_a(answer, Conversation):
        return answer  # type: ignore[no-any-return]
    if is_a(answer, list):
        said = [message_of(message) for message in answer]
        return Conversation.from_messages(said if any(message["role"] == "user" for message in said) else [*before, *said])
    message = next((found for name in ("message", "delta") if (found := field(answer, name)) is not None), answer)
    read = message_of(message)
    if read["content"] is None:
        read["content"] = word(answer) or word(field(answer, "text"))
    if parts := items(message, "content", "parts"):
        read["content"] = [_part(part) for part in parts]
    if any(field(part, "type") in _TOOL_PARTS for part in items(read, "content")):
        read["tool_calls"] = [True]
    if read["tool_calls"]:
        read["content"] = None  # what is said beside a call that the caller has to make is not yet the answer
    return Conversation.from_messages([*before, {**read, "role": "assistant"}])


def _part(part: Any) -> Any:
    if is_a(part, str):
        return part
    kind = word(field(part, "type")) or next((kind for name, kind in _UNTYPED_PARTS.items() if field(part, name) is not None), "unknown")
    if field(part, "thought") is True:
        kind = "thinking"
    return {"type": kind, "text": word(field(part, "text")) or "", "refusal": word(field(part, "refusal"))}


def _usage(usage: Any) -> Usage | None:
    if usage is None:
        return None
    spent, made = _count(usage, _INPUT_TOKENS), _count(usage, _OUTPUT_TOKENS)
    return Usage(input_tokens=spent, output_tokens=made, total_tokens=_count(usage, _TOTAL_TOKENS) or spent + made)


def _count(usage: Any, names: tuple[str, ...]) -> int:
    value = first(usage, *names)
    return max(0, value) if is_a(value, int) else 0
