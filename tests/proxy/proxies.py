"""Real LiteLLM proxies, and what they ask, in processes of their own."""

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("config.yaml")
PATIENCE = 600.0  # it takes a quarter of a minute to start, and more on a busy machine


@contextmanager
def running_proxy(config, folder, **environment):
    """Run a proxy with a configuration; yields its address and its key."""
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("needs litellm[proxy]: nox -s litellm_proxy")
    key = f"sk-{secrets.token_hex(24)}"
    settings = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key, **environment}
    command = [Path(sys.executable).with_name("litellm"), "--config", config, "--telemetry", "False"]
    with running(command, "/health/liveliness", folder / "log", **settings) as url:
        yield url, key


@contextmanager
def running(command, path, log, **environment):
    """Run a server on a free port until it answers at a path; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        command = [*map(str, command), "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        _wait_for(f"http://127.0.0.1:{port}{path}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url, process, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"it did not start: {log.read_text()[-2000:]}")
