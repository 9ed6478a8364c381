"""What the adapter's README and the examples show is run, against the server on loopback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_openai import TEXTS

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]
README = ROOT / "integrations" / "refusal_guard_openai" / "README.md"


def run(server, *arguments):
    surroundings = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "key"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=True, env=surroundings).stdout


def test_the_readmes_example_retries_and_falls_back(server):
    server.script.extend(["refuses", "refuses"])
    [snippet] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    printed = run(server, "-c", snippet).splitlines()
    assert printed == [TEXTS["answers"], "('gpt-5', 'gpt-5', 'gpt-5-mini')"]


def test_the_fallback_example_tells_its_attempts(server):
    server.script.extend(["refuses", "refuses"])
    printed = run(server, str(ROOT / "examples" / "openai_fallback.py")).splitlines()
    assert printed[0] == TEXTS["answers"]
    assert [line.split(" (")[0] for line in printed[1:]] == ["gpt-5: refusal", "gpt-5: refusal", "gpt-5-mini: compliance"]


def test_the_gate_example_never_prints_the_refusal(server):
    server.script.append("refuses")
    printed = run(server, str(ROOT / "examples" / "openai_stream_gate.py"))
    assert printed == f"{TEXTS['answers']}\nasked: gpt-5, gpt-5-mini\n"


def test_the_async_example_tells_answers_from_refusals(server):
    server.script.extend(["refuses"] * 6)
    printed = run(server, str(ROOT / "examples" / "openai_async.py")).splitlines()
    assert len(printed) == 3
    assert all(line.endswith("refused, 2 times") for line in printed)
