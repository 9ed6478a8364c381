"""The installed command with published classifiers, in real processes."""

import json
import os
import subprocess
import sys

import pytest

for package in ("torch", "transformers", "onnxscript"):
    pytest.importorskip(package, reason="needs torch, transformers and onnxscript: nox -s encoders")

COMMAND = [sys.executable, "-m", "refusal_guard.cli"]
REFUSAL, ANSWER = "I'm sorry, but I can't help with bread.", "Here is what matters about bread: start small and keep notes."


@pytest.fixture
def run(cache, tmp_path):
    def call(*arguments):
        ours = {
            "HF_HUB_CACHE": str(cache),
            "XDG_CACHE_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], env=os.environ | ours, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


@pytest.mark.parametrize("name", ["minos", "transformers:protectai", "onnx:protectai"])
def test_check_takes_a_published_classifier(run, name):
    done = run("check", "--detector", name, "--response", REFUSAL, "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["detector"] == name.split(":")[-1]
    assert done.stderr == ""
    assert run("check", "--detector", name, "--response", ANSWER).returncode == 0


def test_scan_takes_one_too(run, tmp_path):
    rows = tmp_path / "rows.jsonl"
    pairs = [{"prompt": "Explain bread to me.", "response": text} for text in (REFUSAL, ANSWER, "", f"{ANSWER} " * 200)]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = run("scan", rows, "--detector", "minos")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["refusal_guard"]["label"] for line in done.stdout.splitlines()] == [
        *("refusal", "compliance", "unknown", "compliance"),
    ]


def test_what_is_not_in_the_cache_stops_the_scan_before_its_first_row(run, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    done = run("scan", rows, "--detector", "garak", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "refusal-guard models fetch garak" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_verify_and_quantize_and_then_int8(run):
    for kind in ("--weights", "--onnx"):
        done = run("models", "verify", "protectai", kind)
        assert done.stdout.count("as published") == 3, done.stderr
    assert run("check", "--detector", "int8:protectai", "--response", REFUSAL).returncode == 2
    assert run("models", "quantize", "protectai").returncode == 0
    assert run("check", "--detector", "int8:protectai", "--response", REFUSAL).returncode == 1
    assert "as made" in run("models", "verify", "protectai").stdout
    listed = {row["name"]: row for row in json.loads(run("models", "list", "--json").stdout)}
    assert listed["protectai"]["int8"]
    assert listed["minos"]["path"]


def test_loading_and_scanning_open_no_socket(cache):
    code = """
import sys
sockets = []
sys.addaudithook(lambda event, arguments: sockets.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from refusal_guard import Guard
for name in ("transformers:minos", "transformers:protectai", "onnx:protectai"):
    assert Guard(name).scan("Explain bread to me.", "I'm sorry, but I can't help with bread.").refused
print(sockets)
"""
    online = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=online | {"HF_HUB_CACHE": str(cache)}, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "[]"
