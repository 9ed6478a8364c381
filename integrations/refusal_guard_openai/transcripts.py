"""Streams of the three endpoints, put together to the body that an answer in one piece has."""

from __future__ import annotations

from typing import Any

_WHOLE = ("model", "usage", "moderation", "prompt_filter_results", "error")
_TOOL_CALLS = ("tool_calls", "function_call")
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Choices:
    """The choices of a streamed completion; all that were asked for are there from the beginning."""

    def __init__(self, request: dict[str, Any]) -> None:
        n = request.get("n")
        self._choices: dict[int, dict[str, Any]] = {index: _choice(index) for index in range(n if isinstance(n, int) else 1)}
        self._whole: dict[str, Any] = {}

    def add(self, chunk: Any) -> None:
        """Take one chunk. Servers leave out what they like, and add what they like."""
        self._whole |= {name: value for name in _WHOLE if (value := getattr(chunk, name, None)) is not None}
        for piece in getattr(chunk, "choices", None) or ():
            index = getattr(piece, "index", None) or 0
            self._extend(self._choices.setdefault(index, _choice(index)), piece)

    def body(self) -> dict[str, Any]:
        """Return what has arrived in the shape of a completion."""
        return {**self._whole, "choices": list(self._choices.values())}

    def _extend(self, choice: dict[str, Any], piece: Any) -> None:
        for name in ("finish_reason", "content_filter_results"):
            choice[name] = getattr(piece, name, None) or choice[name]


class ChatTranscript(_Choices):
    """A streamed chat completion."""

    def _extend(self, choice: dict[str, Any], piece: Any) -> None:
        super()._extend(choice, piece)
        message, delta = choice["message"], getattr(piece, "delta", None)
        for name in ("content", "refusal"):
            if isinstance(text := getattr(delta, name, None), str):
                message[name] += text
        if any(getattr(delta, name, None) for name in _TOOL_CALLS):
            message["tool_calls"] = [True]


class CompletionTranscript(_Choices):
    """A streamed text completion."""

    def _extend(self, choice: dict[str, Any], piece: Any) -> None:
        super()._extend(choice, piece)
        if isinstance(text := getattr(piece, "text", None), str):
            choice["message"]["content"] += text


class ResponseTranscript:
    """A streamed response; its last event holds it whole."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._model = request.get("model")
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}
        self._ended: Any = None

    def add(self, event: Any) -> None:
        """Take one event."""
        kind = getattr(event, "type", None)
        if kind in _ENDS:
            self._ended = event.response
        elif kind == "error":
            self._ended = {"output": [], "error": {"code": event.code, "message": event.message}}
        elif kind == "response.output_text.delta":
            self._extend(event, "output_text", "text")
        elif kind == "response.refusal.delta":
            self._extend(event, "refusal", "refusal")
        elif kind == "response.output_item.added" and str(event.item.type).endswith("_call"):
            self._parts[event.output_index, 0] = {"type": event.item.type}

    def body(self) -> Any:
        """Return what has arrived in the shape of a response."""
        if self._ended is not None:
            return self._ended
        parts = [part for _, part in sorted(self._parts.items())]
        return {"model": self._model, "output": [{"type": "message", "role": "assistant", "content": parts}]}

    def _extend(self, event: Any, kind: str, name: str) -> None:
        part = self._parts.setdefault((event.output_index, event.content_index), {"type": kind, name: ""})
        part[name] = part.get(name, "") + event.delta


def _choice(index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "", "refusal": "", "tool_calls": []}
    return {"index": index, "finish_reason": None, "content_filter_results": None, "message": message}
