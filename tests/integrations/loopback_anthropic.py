"""A real HTTP server that speaks Anthropic's Messages. The model's name says what it does: see `content` and the tables below."""

from model_server import ModelHandler, ModelServer, pieces, text_of


def error(kind):
    return {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req-1"}


ERRORS = {
    "limits": (429, error("rate_limit_error")),
    "breaks": (500, error("api_error")),
    "overloads": (529, error("overloaded_error")),
}
BODIES = {"errs": error("api_error"), "counts": {"input_tokens": 3}}
DETAILS = {"type": "refusal", "category": "cyber", "explanation": "The request could enable harm."}
USAGE = {"input_tokens": 10, "output_tokens": 5}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}


def content(behaviour):
    """The blocks of an answer."""
    text = {"type": "text", "text": text_of(behaviour)}
    return {
        "declares": [],
        "declares_late": [{"type": "text", "text": "Paris is"}],
        "blank": [],
        "calls": [{"type": "text", "text": "I can't know that without looking it up."}, TOOL_USE],
        "searches": [SEARCH, {"type": "text", "text": text_of("refuses")}],
        "thinks": [
            {"type": "thinking", "thinking": "I'm sorry, I can't help with that.", "signature": "s"},
            {"type": "text", "text": "Paris."},
        ],
        "odd": [{"type": "hologram", "beam": 1}, {"type": "text", "text": text_of("refuses")}],
    }.get(behaviour, [text])


def message(behaviour, body):
    declared = behaviour.startswith("declares")
    reason = "refusal" if declared else "tool_use" if behaviour == "calls" else "end_turn"
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "in the path"),
        "content": content(behaviour),
    }
    return {**whole, "stop_reason": reason, "stop_sequence": None, "stop_details": DETAILS if declared else None, "usage": USAGE}


def events(behaviour, body):
    whole = message(behaviour, body)
    start = {**whole, "content": [], "stop_reason": None, "stop_details": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    sent = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        sent.append({"type": "content_block_start", "index": index, "content_block": {**block, "text": ""} if "text" in block else block})
        sent += [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces(block.get("text", ""))
        ]
        sent.append({"type": "content_block_stop", "index": index})
    if behaviour == "fails":
        return [*sent[:4], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]
    ended = {name: whole[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    return [*sent, {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]


class _Messages(ModelHandler):
    """The Messages endpoint, and the one that counts tokens."""

    def whole(self, behaviour, body):
        return message(behaviour, body)

    def events(self, behaviour, body):
        return events(behaviour, body)


class LoopbackAnthropic(ModelServer):
    """Anthropic's protocol."""

    def __init__(self, **settings):
        super().__init__(_Messages, ERRORS, BODIES, **settings)
