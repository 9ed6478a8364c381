"""`refusal-guard serve` in real processes."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("fastapi")

import httpx
from served import REFUSAL, until

from refusal_guard.cli import main
from refusal_guard.serve.command import TOKEN_VARIABLE, _listening

COMMAND = [sys.executable, "-m", "refusal_guard.cli", "serve"]
TOKEN = "s3cret-t0ken"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Process:
    """The command, until it is told to stop."""

    def __init__(self, *arguments, **environment):
        self.port = free_port()
        command = [*COMMAND, "--port", str(self.port), *map(str, arguments)]
        self.process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def __enter__(self):
        until(lambda: self.listens() or self.process.poll() is not None)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def stopped(self):
        """Return the exit code and what was logged."""
        logged = self.process.communicate(timeout=60)[1].decode()
        assert "Traceback" not in logged, logged
        return self.process.returncode, logged


@pytest.mark.parametrize(
    ("number", "arguments", "environment"),
    [(signal.SIGTERM, ["--host", "0.0.0.0"], {}), (signal.SIGINT, [], {TOKEN_VARIABLE: TOKEN})],
)
def test_a_signal_lets_the_process_answer_what_it_took_and_end_well(number, arguments, environment):
    body = b'{"response": "%s"}' % REFUSAL.encode()
    head = b"POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    with Process(*arguments, **environment) as served, socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        assert served.client.get("/metrics").status_code == (401 if environment else 200)
        connection.sendall(head + body[:10])
        assert served.client.get("/healthz").status_code == 200
        served.process.send_signal(number)
        until(lambda: not served.listens())
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        code, logged = served.stopped()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"refused":true' in answer
    assert code == 0
    assert f":{served.port}" in logged.splitlines()[0]
    assert (TOKEN_VARIABLE in logged) == (not environment)  # said to whom serves others without a token
    assert TOKEN not in logged
    assert REFUSAL not in logged


def test_the_options_are_obeyed_and_a_tokens_file_comes_before_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    options = ["--threshold", "0.999", "--max-items", "2", "--max-body", "300", "--token-file", file]
    with Process(*options, **{TOKEN_VARIABLE: "another"}) as served:
        assert served.client.post("/v1/scan", json={"response": REFUSAL}).status_code == 401
        served.client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert served.client.post("/v1/scan", json={"response": REFUSAL}).json()["threshold"] == 0.999
        assert served.client.post("/v1/scan", json=[{"response": "r"}] * 3).status_code == 422
        assert scanned(served.client) == 1
        assert served.client.post("/v1/scan", json={"response": "r" * 300}).status_code == 413


def scanned(client):
    """Return how many responses the metrics count, when the hook's thread has counted."""
    counts = until(lambda: re.findall(r"^refusal_guard_scans_total\{.*\} (.*)$", client.get("/metrics").text, re.MULTILINE))
    return sum(map(float, counts))


def failing(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["serve", *map(str, arguments)]))
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--detector", "oracle"], "unknown detector"),
        (["--port", "99999"], "from 0 to 65535"),
        (["--host", "192.0.2.1"], "can't listen"),
        (["--timeout", "0"], "timeout must be above 0"),
        (["--max-body", "many"], "--max-body"),
        (["--token-file", "/no/such/file"], "No such file"),
        (["--token-file", os.devnull], "not empty"),
        (["--token-file", sys.executable], "no text"),
    ],
)
def test_usage_and_input_errors_exit_with_two_and_say_why(arguments, says, capsys):
    assert says in failing(capsys, *arguments)


def test_a_port_that_is_taken_is_said_so(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in failing(capsys, "--port", taken.getsockname()[1])


def test_an_empty_variable_is_no_open_door(capsys, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert "not empty" in failing(capsys)


def test_a_hanging_detector_does_not_keep_the_process_from_ending():
    code = """
import signal, socket, sys, threading
from refusal_guard import Guard
from refusal_guard.serve.app import create_app, server_of
from refusal_guard.serve.limits import Limits

class Hanging:
    name = "hanging"
    def detect(self, conversations):
        server.handle_exit(signal.SIGTERM, None)
        threading.Event().wait()

limits = Limits(timeout=0.2)
server = server_of(create_app(Guard(Hanging()), limits=limits), limits)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
signal.signal(signal.SIGTERM, server.handle_exit)
server.run([listening])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1/scan"
        assert httpx.post(url, json={"response": "r"}, timeout=30).status_code == 504
        assert process.wait(30) == 0


def test_without_the_extra_the_command_names_it():
    code = "import sys; sys.modules['fastapi'] = None; from refusal_guard.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "refusal-guard[serve]" in done.stderr


def test_connections_name_tcp_so_that_no_answer_waits_for_an_acknowledgement():
    with _listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
