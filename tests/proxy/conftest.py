"""A real LiteLLM proxy in a process of its own."""

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("config.yaml")
PATIENCE = 180.0  # it takes a quarter of a minute to start, and more on a busy machine


@pytest.fixture(scope="session")
def proxy(tmp_path_factory):
    """The address and the key of a proxy that is up."""
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("needs litellm[proxy]: nox -s litellm_proxy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key, log = f"sk-{secrets.token_hex(24)}", tmp_path_factory.mktemp("proxy") / "log"
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(CONFIG), "--host", "127.0.0.1", "--port", str(port)]
    settings = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--telemetry", "False"], env=settings, stdout=output, stderr=output)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health/liveliness", process, log)
        yield f"http://127.0.0.1:{port}", key
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
    pytest.fail(f"the proxy did not start: {log.read_text()[-2000:]}")
