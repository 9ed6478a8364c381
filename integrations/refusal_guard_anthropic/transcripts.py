"""Streams of Messages, put together to the body that an answer in one piece has."""

from __future__ import annotations

from typing import Any

from refusal_guard.clients import Body

_TEXT, _TOOL = "text", "tool_use"


class MessageTranscript:
    """A streamed message. Of its blocks the texts count, and calls of tools that the caller has to make."""

    def __init__(self, request: Body) -> None:
        self._model = request.get("model")
        self._blocks: dict[int, Body] = {}
        self._ended: Body = {}
        self._usage: Body = {}

    def add(self, event: Any) -> None:
        """Take one event; a kind that is not known says nothing."""
        kind = getattr(event, "type", None)
        if kind == "message_start":
            self._start(event.message)
        elif kind == "content_block_start":
            self._open(event.index, event.content_block)
        elif kind == "content_block_delta":
            self._extend(event.index, event.delta)
        elif kind == "message_delta":
            self._ended |= {name: getattr(event.delta, name, None) for name in ("stop_reason", "stop_details")}
            self._count(event)

    def body(self) -> Body:
        """Return what has arrived in the shape of a message."""
        content = [block for _, block in sorted(self._blocks.items())]
        return {"role": "assistant", "model": self._model, "content": content, **self._ended, "usage": self._usage or None}

    def _start(self, message: Any) -> None:
        self._model = getattr(message, "model", None) or self._model
        self._count(message)

    def _count(self, owner: Any) -> None:
        """Take the usage; later counts stand for all before."""
        for name in ("input_tokens", "output_tokens"):
            if isinstance(count := getattr(getattr(owner, "usage", None), name, None), int):
                self._usage[name] = count

    def _open(self, index: int, block: Any) -> None:
        kind = getattr(block, "type", None)
        if kind == _TEXT:
            self._blocks[index] = {"type": _TEXT, "text": getattr(block, "text", None) or ""}
        elif kind == _TOOL:
            self._blocks[index] = {"type": _TOOL}

    def _extend(self, index: int, delta: Any) -> None:
        if getattr(delta, "type", None) == "text_delta" and isinstance(getattr(delta, "text", None), str):
            block = self._blocks.setdefault(index, {"type": _TEXT, "text": ""})
            block["text"] += delta.text
