"""The Messages endpoint: what was said before the answer, how an answer and its stream read, and what one of ours looks like."""

from __future__ import annotations

from typing import Any

from refusal_guard.clients import Body, Endpoint
from refusal_guard.streaming import Transcript

from .transcripts import MessageTranscript

_ID = "msg_refusal_guard"
_NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}


class _Messages:
    """The endpoint `/v1/messages`, of `beta` too. A body is that of a request."""

    def messages(self, body: Body) -> list[Any] | None:
        """Return the system prompt and the messages; None where the API will say that there are none."""
        said = body.get("messages")
        if not isinstance(said, list) or not said:
            return None
        system = body.get("system")
        return [{"role": "system", "content": system}, *said] if isinstance(system, str | list) else said

    def said(self, body: Body, added: list[Any]) -> Body:
        """Return the messages with more behind them."""
        return {"messages": [*body["messages"], *added]}

    def has_effects(self, body: Body) -> bool:
        """Return whether the model works on servers of others (MCP) or in a container that keeps what it does."""
        return bool(body.get("mcp_servers") or body.get("container"))

    def transcript(self, body: Body) -> Transcript:
        """Return an empty transcript."""
        return MessageTranscript(body)

    def read(self, response: Any) -> Any:
        """Return a message, or the body of a raw response; None where neither has contents."""
        reply = getattr(response, "http_response", None)
        if reply is None:
            return response if isinstance(getattr(response, "content", None), list) else None
        try:
            body = reply.json()
        except ValueError:
            return None
        return body if isinstance(body, dict) and isinstance(body.get("content"), list) else None

    def answer(self, body: Body, text: str) -> Body:
        """Return a message with a text."""
        return {**_message(body), "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}

    def events(self, body: Body, text: str) -> list[Body]:
        """Return the events of that message, in the order in which the API sends them."""
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            {"type": "message_start", "message": _message(body)},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 0}},
            {"type": "message_stop"},
        ]


ENDPOINTS: dict[str, Endpoint] = {"/v1/messages": _Messages()}


def _message(body: Body) -> Body:
    fixed: Body = {"id": _ID, "type": "message", "role": "assistant", "content": [], "stop_reason": None, "stop_sequence": None}
    return {**fixed, "model": str(body.get("model") or ""), "usage": _NO_TOKENS}
