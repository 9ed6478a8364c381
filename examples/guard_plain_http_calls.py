"""Guard an API that is called by plain HTTP, here one on this machine that refuses, blocks a prompt, and answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from refusal_guard import Fallback, Guard, report_of

MESSAGES = [{"role": "user", "content": "Explain how vaccines work."}]
BLOCKED = {"error": {"code": "content_policy_violation", "message": "This prompt is not allowed."}}
TEXTS = {"small": "I'm sorry, but I can't help with medical topics.", "large": "They show the immune system a harmless part of a germ."}


class Api(BaseHTTPRequestHandler):
    """A chat API: the small model refuses, the middle one does not take the prompt, the large one answers."""

    def do_POST(self) -> None:
        """Answer one request."""
        model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        answer = {"model": model, "choices": [{"message": {"role": "assistant", "content": TEXTS.get(model)}}]}
        self.send_response(200 if model in TEXTS else 400)
        self.end_headers()
        self.wfile.write(json.dumps(answer if model in TEXTS else BLOCKED).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


server = HTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(*, model: str = "small") -> dict[str, Any]:
    """Post one chat request, and return the body, be it an answer or an error."""
    body = json.dumps({"model": model, "messages": MESSAGES}).encode()
    try:
        with urlopen(Request(f"http://127.0.0.1:{server.server_port}/v1/chat/completions", body), timeout=30) as reply:
            return json.load(reply)
    except HTTPError as error:
        return json.load(error)


response = Guard().run(ask, messages=MESSAGES, policy=Fallback("middle", "large"))
print(response["choices"][0]["message"]["content"])
for attempt in report_of(response).attempts:
    print(f"{attempt.model}: {attempt.verdict.label}, declared by the provider: {attempt.verdict.signal}")
server.shutdown()
server.server_close()
