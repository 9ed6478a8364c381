"""Runs a real Prometheus with the rules of deploy/ on a small guarded app on the loopback interface, until its alert fires.

Needs `prometheus` (a package of that name in most distributions) and the extra `prometheus`. Prints what was seen, with the seconds since
the refusals jumped; exits with 1 when no alert fired in time. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import start_http_server

from refusal_guard import Conversation, Guard
from refusal_guard.events import tagged
from refusal_guard.events.prometheus import PrometheusHook
from refusal_guard.testing import FixedDetector

RULES = Path(__file__).parents[1] / "deploy" / "prometheus-rules.yml"
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: app, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""
CALLS_A_SECOND = 20.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class App:
    """A guarded app with two models, of which one comes to refuse half of what it is asked. `refusal_rates` may change at any time."""

    def __init__(self) -> None:
        self.refusal_rates = {"aurora-large": 0.02, "aurora-mini": 0.02}
        self._random, self._stopped = random.Random(1), threading.Event()
        self._guard = Guard(FixedDetector(self._score), hooks=[PrometheusHook()], route="chat")
        self._thread = threading.Thread(target=self._serve)

    def _score(self, conversation: Conversation) -> float:
        return 0.95 if conversation.visible_response.startswith("I'm sorry") else 0.05

    def _serve(self) -> None:
        while not self._stopped.wait(1 / CALLS_A_SECOND):
            for model, rate in self.refusal_rates.items():
                refuses = self._random.random() < rate
                with tagged(model=model):
                    self._guard.scan("Where is my parcel?", "I'm sorry, I can't help with that." if refuses else "In Nantwich.")

    def __enter__(self) -> App:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop."""
        self._stopped.set()
        self._thread.join()


@contextmanager
def prometheus(app_port: int) -> Iterator[str]:
    """Run Prometheus in a folder of its own; yields its address."""
    with tempfile.TemporaryDirectory() as folder:
        config, port = Path(folder, "prometheus.yml"), free_port()
        config.write_text(CONFIG.format(rules=RULES, port=app_port))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def ask(url: str, path: str) -> dict[str, Any]:
    """Return the data of one of Prometheus's answers; nothing while it is starting."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}", timeout=5) as answer:
            return dict(json.load(answer)["data"])
    except (urllib.error.URLError, ConnectionError):
        return {}


def firing(url: str) -> list[dict[str, Any]]:
    return [alert for alert in ask(url, "alerts").get("alerts", []) if alert["state"] == "firing"]


def scraped(url: str) -> bool:
    return any(target["health"] == "up" for target in ask(url, "targets").get("activeTargets", []))


def wait_for(condition: Any, seconds: float) -> float | None:
    """Return after how many seconds a condition holds, None if it does not in time."""
    began = time.monotonic()
    while (taken := time.monotonic() - began) < seconds:
        if condition():
            return taken
        time.sleep(0.5)
    return None


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--quiet-seconds", type=float, default=30.0, help="how long all is well before the jump")
    options.add_argument("--patience", type=float, default=180.0, help="how long the alert may take")
    chosen = options.parse_args()
    if shutil.which("prometheus") is None:
        print("prometheus is not installed")
        return 1
    port = free_port()
    start_http_server(port, addr="127.0.0.1")
    with App() as app, prometheus(port) as url:
        if wait_for(lambda: scraped(url), 30) is None:
            print("Prometheus does not scrape the app")
            return 1
        early = wait_for(lambda: firing(url), chosen.quiet_seconds)
        print(f"{chosen.quiet_seconds:.0f} s at a refusal rate of 2 %: {'an alert, too early' if early else 'no alert'}")
        app.refusal_rates["aurora-mini"] = 0.5
        taken = wait_for(lambda: firing(url), chosen.patience)
        print("no alert in time" if taken is None else f"aurora-mini refuses half: an alert after {taken:.0f} s")
        alerts = firing(url)
        print(json.dumps([{name: alert[name] for name in ("labels", "annotations")} for alert in alerts], indent=1))
    return int(early is not None or [alert["labels"]["model"] for alert in alerts] != ["aurora-mini"])


if __name__ == "__main__":
    sys.exit(main())
