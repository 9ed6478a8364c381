"""A real HTTP server that speaks OpenAI's protocol. The model's name says what it does: the keys of the tables below."""

from model_server import TEXTS, ModelHandler, ModelServer, pieces, text_of

BLOCKED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}, "hate": {"filtered": False, "severity": "safe"}},
        },
    }
}
ERRORS = {"blocks": (400, BLOCKED), "limits": (429, {"error": {"message": "slow down"}}), "breaks": (500, {"error": {"message": "oops"}})}
BODIES = {
    "nothing": {"id": "x", "object": "chat.completion", "created": 0, "model": "nothing", "choices": []},
    "errs": {"error": {"message": "Provider returned error", "code": 502}},
}
# What else a model may do: "declares" (the provider's own refusal), "filters", "calls" (a tool), "odd" (unknown parts), "errors" (tells an
# error in an event), "garbage" (no JSON), "cuts" (hangs up in the middle), "stalls" (says nothing, or no more), "fails" (a response that
# failed), "two" (answers in one choice and refuses in another).


def behaviours(behaviour, body):
    """What each choice does."""
    return ["answers", "refuses"] if behaviour == "two" else [behaviour] * (body.get("n") or 1)


def chat(behaviour, body):
    choices = [_chat_choice(index, each) for index, each in enumerate(behaviours(behaviour, body))]
    whole = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices, "usage": USAGE}
    return {**whole, "choices": None} if behaviour == "none" else whole


def _chat_choice(index, behaviour):
    message, reason = {"role": "assistant", "content": text_of(behaviour), "refusal": None}, "stop"
    if behaviour == "declares":
        message |= {"content": None, "refusal": "I'm not able to do that."}
    elif behaviour == "filters":
        message["content"], reason = "", "content_filter"
    elif behaviour == "calls":
        message |= {"content": "I can't know that without looking it up.", "tool_calls": [TOOL_CALL]}
        reason = "tool_calls"
    elif behaviour == "odd":
        message["content"] = [{"type": "hologram", "beam": 1}, {"type": "text", "text": TEXTS["refuses"]}, 7]
    return {"index": index, "message": message, "finish_reason": reason, "logprobs": None}


def chat_events(behaviour, body):
    events = []
    for index, each in enumerate(behaviours(behaviour, body)):
        choice = _chat_choice(index, each)
        message = choice["message"]
        text = message["refusal"] or (message["content"] if isinstance(message["content"], str) else TEXTS["refuses"])
        name = "refusal" if message["refusal"] else "content"
        deltas = [{"role": "assistant", "content": ""}, *({name: piece} for piece in pieces(text))]
        if "tool_calls" in message:
            deltas = [deltas[0], {"tool_calls": [{"index": 0, **TOOL_CALL}]}]
        events += [_chunk(body, [{"index": index, "delta": delta, "finish_reason": None}]) for delta in deltas]
        events.append(_chunk(body, [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]))
    return [*events, _chunk(body, [], usage=USAGE)] if (body.get("stream_options") or {}).get("include_usage") else events


def _chunk(body, choices, **more):
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": body["model"], "choices": choices, **more}


def completion(behaviour, body):
    reason = "content_filter" if behaviour == "filters" else "stop"
    choices = [
        {"index": index, "text": text_of(each), "finish_reason": reason, "logprobs": None}
        for index, each in enumerate(behaviours(behaviour, body))
    ]
    return {"id": "t", "object": "text_completion", "created": 0, "model": body["model"], "choices": choices, "usage": USAGE}


def completion_events(behaviour, body):
    whole = completion(behaviour, body)
    events = []
    for choice in whole["choices"]:
        said = [{**choice, "text": piece, "finish_reason": None} for piece in pieces(choice["text"])]
        events += [{**whole, "choices": [piece], "usage": None} for piece in [*said, {**choice, "text": ""}]]
    return events


def response(behaviour, body):
    part = {"type": "output_text", "text": text_of(behaviour), "annotations": [], "logprobs": []}
    whole = {"id": "r", "object": "response", "created_at": 0, "model": body["model"], "status": "completed", "error": None, **RESPONSE}
    if behaviour == "declares":
        part = {"type": "refusal", "refusal": "I'm not able to do that."}
    elif behaviour == "filters":
        return {**whole, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []}
    elif behaviour == "calls":
        return {**whole, "output": [{"type": "function_call", "id": "f", "call_id": "1", "name": "f", "arguments": "{}"}]}
    elif behaviour == "fails":
        return {**whole, "status": "failed", "error": {"code": "server_error", "message": "oops"}, "output": []}
    return {**whole, "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}]}


def response_events(behaviour, body):
    whole = response(behaviour, body)
    events = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
    if behaviour == "errors":
        return [*events, {"type": "error", "code": "server_error", "message": "oops", "param": None, "sequence_number": 1}]
    for item in whole["output"]:
        events.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}})
        for part in item.get("content", ()):
            name = "text" if part["type"] == "output_text" else "refusal"
            place = {"output_index": 0, "content_index": 0, "item_id": "m"}
            events.append({"type": "response.content_part.added", "part": {**part, name: ""}, **place})
            kind = {"text": "output_text", "refusal": "refusal"}[name]
            events += [{"type": f"response.{kind}.delta", "delta": piece, "logprobs": [], **place} for piece in pieces(part[name])]
            events.append({"type": f"response.{kind}.done", name: part[name], "logprobs": [], **place})
            events.append({"type": "response.content_part.done", "part": part, **place})
        events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
RESPONSE = {
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


class _Endpoints(ModelHandler):
    """The three endpoints that ask a model."""

    def whole(self, behaviour, body):
        return self._spoken[0](behaviour, body)

    def events(self, behaviour, body):
        return self._spoken[1](behaviour, body)

    @property
    def _spoken(self):
        if "/chat/" in self.path:
            return chat, chat_events
        return (response, response_events) if "/responses" in self.path else (completion, completion_events)


class LoopbackOpenAI(ModelServer):
    """OpenAI's protocol."""

    def __init__(self, **settings):
        super().__init__(_Endpoints, ERRORS, BODIES, **settings)
        self.url += "/v1"
