"""What the servers that speak as providers do have in common: a model's name says what it does, and a script may say it instead."""

import json
import time
from collections import deque

from serving import LoopbackHandler, LoopbackServer

TEXTS = {
    "answers": "Paris is the capital of France, and its largest city by far. It lies on the Seine. Anything else?",
    "refuses": "I'm sorry, but I can't help you with that request. Please ask somebody else about it. Goodbye.",
    "turns": "Paris is the capital of France, and its largest city by far. It lies on the Seine. "
    "I'm sorry, but I can't help you with that request after all, so I won't answer it.",
    "thinks": "<think>I'm sorry, I can't help with that, I should say. Or should I?</think>Paris is the capital of France.",
    "empty": "",
    "parses": '{"city": "Paris"}',
}


class ModelServer(LoopbackServer):
    """What is in `errors` (behaviour to status and body) and `bodies` is answered as it stands, the rest as the handler says.

    `script` overrides the model's name, one entry a request. `wait` seconds pass before an answer, `pause` between its pieces.
    """

    def __init__(self, handler, errors, bodies, *, wait=0.0, pause=0.0):
        super().__init__(handler)
        self.errors, self.bodies = errors, bodies
        self.wait, self.pause, self.script = wait, pause, deque()

    @property
    def models(self):
        """The models that were asked, in order of arrival."""
        return [body["model"] for _, body, _ in self.requests]


class ModelHandler(LoopbackHandler):
    """Answers in one piece as `whole` says, and streams as `events` does."""

    def do_POST(self):
        server, body = self.loopback, self.body()
        with server.lock:
            server.requests.append((self.path, body, dict(self.headers)))
            behaviour = server.script.popleft() if server.script else str(body.get("model"))
        time.sleep(server.wait)
        if behaviour in server.errors:
            self.reply(*server.errors[behaviour])
        elif behaviour == "garbage":
            self.reply(200, b"<html>It works!</html>", "text/html")
        elif behaviour in server.bodies:
            self.reply(200, server.bodies[behaviour])
        elif body.get("stream"):
            self.stream(behaviour, self.events(behaviour, body))
        elif behaviour == "stalls":
            self.stall()
        else:
            self.reply(200, self.whole(behaviour, body), cut=behaviour == "cuts")

    def whole(self, behaviour, body):
        """The body of an answer in one piece."""
        raise NotImplementedError

    def events(self, behaviour, body):
        """The events of a streamed answer."""
        raise NotImplementedError

    def reply(self, status, payload, kind="application/json", cut=False):
        self.answer(status, payload, {"Content-Type": kind, "x-request-id": "req-1", "request-id": "req-1"}, cut=cut)

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


def text_of(behaviour):
    return TEXTS.get(behaviour, TEXTS["answers"])


def pieces(text):
    return [text[i : i + 12] for i in range(0, len(text), 12)]
