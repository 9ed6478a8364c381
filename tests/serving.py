"""Real HTTP servers on the loopback interface, each in a thread of the test: what they have in common."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # many clients at once are the tests' subject, and not the five that may wait by default


class LoopbackServer:
    """Serves while it is entered. `requests` are what its handler notes, `hung_up` is set when a client leaves before its answer."""

    def __init__(self, handler):
        self.requests, self.hung_up, self.lock = [], threading.Event(), threading.Lock()
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"loopback": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def count(self, change):
        with self.lock:
            self.connections += change

    def drained(self, seconds=5.0):
        """Return whether all connections go within the time."""
        until = time.monotonic() + seconds
        while self.connections and time.monotonic() < until:
            time.sleep(0.01)
        return not self.connections


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers for `loopback`, its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    loopback: LoopbackServer

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

    def body(self):
        """The JSON that was posted."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status, payload, headers=(), cut=False):
        """Send a payload, bytes or what becomes JSON; `cut` hangs up in the middle of it."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut or self.close_connection

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
