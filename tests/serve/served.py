"""A service in a thread of the tests, as `refusal-guard serve` runs it, and detectors that behave as a test wants."""

import socket
import threading
import time

import httpx

from refusal_guard import Guard
from refusal_guard.serve.app import create_app, server_of
from refusal_guard.serve.limits import Limits
from refusal_guard.verdict import Detection

REFUSAL = "I'm sorry, but I can't help with that request."
ANSWER = "Boil the eggs for nine minutes, then cool them under cold water."
CANARY = "xyzzy-canary"
JSON = {"Content-Type": "application/json"}


def until(holds):
    """Wait until something holds, leaving the processor to those who make it so; returns it."""
    while not (found := holds()):
        time.sleep(0.01)
    return found


class Served:
    """Serves on the loopback interface while it is entered; `client` asks it."""

    def __init__(self, detector, *, token=None, headers=None, **limits):
        limits = Limits(**limits)
        self._server = server_of(create_app(Guard(detector), token=token, limits=limits), limits)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self.client = httpx.Client(base_url="http://{}:{}".format(*self.address), timeout=30, headers=headers)

    def __enter__(self):
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive())
        return self

    def __exit__(self, *exception):
        self.client.close()
        self._server.should_exit = True
        self._thread.join()

    def scan(self, response, prompt=""):
        return self.client.post("/v1/scan", json={"prompt": prompt, "response": response})


class Scripted:
    """Detects as the response says: "hang" waits for `release`, "raise" and "exit" end in an exception.

    `sizes` holds the size of each batch, and `entered` counts them.
    """

    name = "scripted"

    def __init__(self):
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.sizes = []

    def detect(self, conversations):
        self.sizes.append(len(conversations))
        self.entered.release()
        return [self._one(conversation.response) for conversation in conversations]

    def _one(self, response):
        if "hang" in response:
            self.release.wait(60)
        if "raise" in response:
            raise ValueError(f"I can't read {response}")
        if "exit" in response:
            raise SystemExit(response)
        return Detection(score=float("sorry" in response), detector=self.name)
