"""A real HTTP server on the loopback interface that speaks as text-embeddings-inference, vLLM, SGLang or a chat model do, with faults.

A text's probability of refusal stands in it: "... p=0.25".
"""

import asyncio
import re
from collections import deque

import pytest
from serving import LoopbackHandler, LoopbackServer

MOST_CLIENT_BATCH = 32


def probability(text):
    found = re.findall(r"p=([\d.]+)", text)
    return float(found[-1].rstrip(".")) if found else 0.0


def blocking(detector, conversations):
    return detector.detect(conversations)


def awaiting(detector, conversations):
    async def run():
        async with detector:
            return await detector.adetect(conversations)

    return asyncio.run(run())


WAYS = pytest.mark.parametrize("ask", [blocking, awaiting])
"""A detector behind an endpoint is asked in both ways."""


class Loopback(LoopbackServer):
    """`faults` are taken one a request, first come first served; each is called with the handler instead of answering."""

    def __init__(self, kind, *, model="NousResearch/Minos-v1", labels=("Non-refusal", "Refusal"), key=None, judge=None):
        super().__init__(_Handler)
        self.kind, self.model, self.labels, self.key, self.judge = kind, model, labels, key, judge
        self.faults = deque()
        self.known_as, self.batch_limit, self.owner = model, MOST_CLIENT_BATCH, kind
        self.now, self.most_at_once = 0, 0

    def texts(self):
        """Every text that was asked about, in the order of arrival."""
        key = "inputs" if self.kind == "tei" else "input"
        return [text for _, body, _ in self.requests if body for item in body[key] for text in ([item] if isinstance(item, str) else item)]


class _Handler(LoopbackHandler):
    def do_GET(self):
        self.serve(None)

    def do_POST(self):
        self.serve(self.body())

    def serve(self, body):
        server = self.loopback
        with server.lock:
            server.requests.append((self.path, body, dict(self.headers)))
            fault = server.faults.popleft() if server.faults else None
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        try:
            if fault:
                fault(self)
            elif server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                self.answer(401, {"error": "Unauthorized"})
            else:
                self.answer(*ROUTES[server.kind](server, self.path, body))
        finally:
            with server.lock:
                server.now -= 1


def status(code, **headers):
    return lambda handler: handler.answer(
        code, {"error": "secret text"}, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def says(payload):
    return lambda handler: handler.answer(200, payload)


def cut(handler):
    """Promise an answer and hang up in the middle of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[[{"label"')
    handler.wfile.flush()
    handler.close_connection = True


def silent(handler):
    """Say nothing until the client hangs up."""
    handler.stall()


def tei(server, path, body):
    if path == "/info":
        names = {str(i): label for i, label in enumerate(server.labels)}
        kind = {"classifier": {"id2label": names, "label2id": {label: i for i, label in names.items()}}} if names else {"embedding": {}}
        return 200, {
            "model_id": server.known_as,
            "model_sha": None,
            "model_dtype": "float32",
            "model_type": kind,
            "max_concurrent_requests": 512,
            "max_input_length": 512,
            "max_batch_tokens": 16384,
            "max_client_batch_size": server.batch_limit,
            "auto_truncate": True,
            "version": "1.9.3",
        }
    if path != "/predict":
        return 404, {}
    if len(body["inputs"]) > server.batch_limit:
        return 413, {"error": "batch size > maximum allowed batch size", "error_type": "Validation"}
    if not all(isinstance(item, list) and len(item) == 1 and isinstance(item[0], str) for item in body["inputs"]):
        return 422, {"error": "not a batch of single texts", "error_type": "Tokenizer"}
    return 200, [_tei_row(server.labels, probability(item[0])) for item in body["inputs"]]


def _tei_row(labels, p):
    row = [{"label": label, "score": score} for label, score in zip(labels, _spread(labels, p), strict=True)]
    return sorted(row, key=lambda item: -item["score"])


def _spread(labels, p):
    """The last class takes p, the first the rest."""
    return [1 - p, *[0.0] * (len(labels) - 2), p]


def vllm(server, path, body):
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": server.known_as, "object": "model", "owned_by": server.owner, "root": server.model}]}
    if path != {"vllm": "/classify", "sglang": "/v1/classify"}[server.kind]:
        return 404, {"detail": "Not Found"}
    if body["model"] != server.known_as:
        return 404, {
            "error": {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "param": None, "code": 404}
        }
    data = [_vllm_row(i, server.labels, probability(text)) for i, text in enumerate(body["input"])]
    usage = {"prompt_tokens": 12, "total_tokens": 12, "completion_tokens": 0, "prompt_tokens_details": None}
    return 200, {"id": "classify-0", "object": "list", "created": 1795306709, "model": server.known_as, "data": data, "usage": usage}


def _vllm_row(index, labels, p):
    probs = _spread(labels, p)
    return {"index": index, "label": labels[probs.index(max(probs))], "probs": probs, "num_classes": len(labels)}


def chat(server, path, body):
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": server.known_as, "object": "model", "owned_by": "vllm", "root": server.model}]}
    if path != "/v1/chat/completions":
        return 404, {"detail": "Not Found"}
    message = {"role": "assistant", "content": server.judge(body["messages"])}
    return 200, {"id": "chatcmpl-0", "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


ROUTES = {"tei": tei, "vllm": vllm, "sglang": vllm, "chat": chat}
