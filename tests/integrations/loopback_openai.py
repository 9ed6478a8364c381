"""A real HTTP server that speaks OpenAI's protocol. The model's name says what it does: the keys of the tables below."""

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXTS = {
    "answers": "Paris is the capital of France, and its largest city by far. It lies on the Seine. Anything else?",
    "refuses": "I'm sorry, but I can't help you with that request. Please ask somebody else about it. Goodbye.",
    "turns": "Paris is the capital of France, and its largest city by far. It lies on the Seine. "
    "I'm sorry, but I can't help you with that request after all, so I won't answer it.",
    "thinks": "<think>I'm sorry, I can't help with that, I should say. Or should I?</think>Paris is the capital of France.",
    "empty": "",
    "parses": '{"city": "Paris"}',
}
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
STATUSES = {"blocks": (400, BLOCKED), "limits": (429, {"error": {"message": "slow down"}}), "breaks": (500, {"error": {"message": "oops"}})}
BODIES = {
    "nothing": {"id": "x", "object": "chat.completion", "created": 0, "model": "nothing", "choices": []},
    "errs": {"error": {"message": "Provider returned error", "code": 502}},
}
# What else a model may do: "declares" (the provider's own refusal), "filters", "calls" (a tool), "odd" (unknown parts), "errors" (tells an
# error in an event), "garbage" (no JSON), "cuts" (hangs up in the middle), "stalls" (says nothing, or no more), "fails" (a response that
# failed), "two" (answers in one choice and refuses in another).


class LoopbackOpenAI:
    """`script` overrides the model's name, one entry a request. `wait` seconds pass before an answer, `pause` between its pieces."""

    def __init__(self, wait=0.0, pause=0.0):
        self.wait, self.pause = wait, pause
        self.script, self.requests, self.hung_up = deque(), [], threading.Event()
        self.connections, self.lock = 0, threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"loopback": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    @property
    def models(self):
        """The models that were asked, in order of arrival."""
        return [body["model"] for _, body, _ in self.requests]

    def count(self, change):
        with self.lock:
            self.connections += change

    def drained(self, seconds=5.0):
        """Return whether all connections go within the time."""
        until = time.monotonic() + seconds
        while self.connections and time.monotonic() < until:
            time.sleep(0.01)
        return not self.connections


class _Server(ThreadingHTTPServer):
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    loopback: LoopbackOpenAI

    def log_message(self, *arguments):
        pass

    def setup(self):
        super().setup()
        self.loopback.count(1)

    def finish(self):
        self.loopback.count(-1)
        super().finish()

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            self.loopback.hung_up.set()

    def do_POST(self):
        server = self.loopback
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, body, dict(self.headers)))
            behaviour = server.script.popleft() if server.script else str(body.get("model"))
        time.sleep(server.wait)
        if behaviour in STATUSES:
            self.answer(*STATUSES[behaviour])
        elif behaviour == "garbage":
            self.answer(200, b"<html>It works!</html>", "text/html")
        elif behaviour in BODIES:
            self.answer(200, BODIES[behaviour])
        elif body.get("stream"):
            self.stream(behaviour, spoken(self.path)[1](behaviour, body))
        elif behaviour == "stalls":
            self.stall()
        else:
            self.answer(200, spoken(self.path)[0](behaviour, body), cut=behaviour == "cuts")

    def answer(self, status, payload, kind="application/json", cut=False):
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", "req-1")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut or self.close_connection

    def stream(self, behaviour, events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stops_at = len(events) // 2 if behaviour in ("cuts", "stalls") else len(events)
        for event in events[:stops_at]:
            name = f"event: {event['type']}\n" if "type" in event else ""
            self.chunk(f"{name}data: {json.dumps(event)}\n\n".encode())
            time.sleep(self.loopback.pause)
        if behaviour == "stalls":
            self.stall()
        elif behaviour == "cuts":
            self.close_connection = True
        else:
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(b"%X\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def stall(self):
        """Say nothing until the client hangs up."""
        self.connection.settimeout(20)
        try:
            gone = self.connection.recv(1) == b""
        except (TimeoutError, ConnectionError) as error:
            gone = isinstance(error, ConnectionError)
        if gone:
            self.loopback.hung_up.set()
        self.close_connection = True


def text_of(behaviour):
    return TEXTS.get(behaviour, TEXTS["answers"])


def behaviours(behaviour, body):
    """What each choice does."""
    return ["answers", "refuses"] if behaviour == "two" else [behaviour] * (body.get("n") or 1)


def pieces(text):
    return [text[i : i + 12] for i in range(0, len(text), 12)]


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


def spoken(path):
    """How an endpoint answers, whole and streamed."""
    if "/chat/" in path:
        return chat, chat_events
    return (response, response_events) if "/responses" in path else (completion, completion_events)
