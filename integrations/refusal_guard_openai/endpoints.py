"""The endpoints that ask a model: what was said before the answer, how an answer reads, and what one of ours looks like."""

from __future__ import annotations

from typing import Any

from refusal_guard.clients import Body, Endpoint
from refusal_guard.streaming import Transcript

from .transcripts import ChatTranscript, CompletionTranscript, ResponseTranscript

_ID = "refusal-guard"
_ANSWERS = ("choices", "output", "error")


class _Completions:
    """The endpoint `/completions`, and what chat has in common with it. A body is that of a request."""

    def messages(self, body: Body) -> list[Any] | None:
        """Return the prompt as a message; None where there are several."""
        prompt = body.get("prompt")
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else None

    def said(self, body: Body, added: list[Any]) -> Body:
        """Return the prompt with more behind it."""
        return {"prompt": "\n\n".join([body["prompt"], *(message["content"] for message in added), ""])}

    def has_effects(self, body: Body) -> bool:
        """Return whether asking again would leave traces: in what the server goes on with by itself, or through tools that it calls."""
        tools = body.get("tools")
        calls_out = isinstance(tools, list) and any(isinstance(tool, dict) and tool.get("type") == "mcp" for tool in tools)
        return calls_out or bool(body.get("conversation") or body.get("background"))

    def transcript(self, body: Body) -> Transcript:
        """Return an empty transcript."""
        return CompletionTranscript(body)

    def read(self, response: Any) -> Any:
        """Return a response, or the body of a raw one; None where neither is of the form of an answer."""
        reply = getattr(response, "http_response", None)
        try:
            body = response if reply is None else reply.json()
        except ValueError:
            return None
        return body if any(name in body if isinstance(body, dict) else hasattr(body, name) for name in _ANSWERS) else None

    def answer(self, body: Body, text: str) -> Body:
        """Return a completion with a text."""
        return self._whole(body, "text_completion", text=text)

    def events(self, body: Body, text: str) -> list[Body]:
        """Return that completion as a stream of one chunk."""
        return [self.answer(body, text)]

    def _whole(self, body: Body, kind: str, **answer: Any) -> Body:
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None, **answer}
        return {"id": _ID, "object": kind, "created": 0, "model": _model(body), "choices": [choice]}


class _Chat(_Completions):
    """The endpoint `/chat/completions`."""

    def messages(self, body: Body) -> list[Any] | None:
        """Return the messages; None where the API will say that there are none."""
        said = body.get("messages")
        return said if isinstance(said, list) and said else None

    def said(self, body: Body, added: list[Any]) -> Body:
        """Return the messages with more behind them."""
        return {"messages": [*body["messages"], *added]}

    def transcript(self, body: Body) -> Transcript:
        """Return an empty transcript."""
        return ChatTranscript(body)

    def answer(self, body: Body, text: str) -> Body:
        """Return a chat completion with a text."""
        return self._whole(body, "chat.completion", message={"role": "assistant", "content": text})

    def events(self, body: Body, text: str) -> list[Body]:
        """Return that completion as a stream of one chunk."""
        return [self._whole(body, "chat.completion.chunk", delta={"role": "assistant", "content": text})]


class _Responses(_Completions):
    """The endpoint `/responses`."""

    def messages(self, body: Body) -> list[Any] | None:
        """Return the instructions and the input; items that nobody says (calls, reasoning) are left out."""
        instructions = body.get("instructions")
        before = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
        return before + [item for item in _items(body) if isinstance(item, dict) and "role" in item] or None

    def said(self, body: Body, added: list[Any]) -> Body:
        """Return the input with messages behind it."""
        return {"input": [*_items(body), *added]}

    def transcript(self, body: Body) -> Transcript:
        """Return an empty transcript."""
        return ResponseTranscript(body)

    def answer(self, body: Body, text: str) -> Body:
        """Return a response with a text."""
        return _response(body, [_message([_part(text)])])

    def events(self, body: Body, text: str) -> list[Body]:
        """Return the events of that response, in the order in which the API sends them."""
        item, content = {"output_index": 0}, {"output_index": 0, "content_index": 0, "item_id": _ID}
        events: list[Body] = [
            {"type": "response.created", "response": _response(body, [])},
            {"type": "response.output_item.added", "item": _message([]), **item},
            {"type": "response.content_part.added", "part": _part(""), **content},
            {"type": "response.output_text.delta", "delta": text, "logprobs": [], **content},
            {"type": "response.output_text.done", "text": text, "logprobs": [], **content},
            {"type": "response.content_part.done", "part": _part(text), **content},
            {"type": "response.output_item.done", "item": _message([_part(text)]), **item},
            {"type": "response.completed", "response": self.answer(body, text)},
        ]
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]


ENDPOINTS: dict[str, Endpoint] = {"/chat/completions": _Chat(), "/responses": _Responses(), "/completions": _Completions()}


def _model(body: Body) -> str:
    return str(body.get("model") or "")


def _items(body: Body) -> list[Any]:
    given = body.get("input")
    return [{"role": "user", "content": given}] if isinstance(given, str) else given if isinstance(given, list) else []


def _response(body: Body, output: list[Body]) -> Body:
    fixed = {"object": "response", "created_at": 0, "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {"id": _ID, "model": _model(body), "status": "completed" if output else "in_progress", "output": output, **fixed}


def _message(content: list[Body]) -> Body:
    status = "completed" if content else "in_progress"
    return {"id": _ID, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": []}
