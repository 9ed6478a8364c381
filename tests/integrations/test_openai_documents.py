"""What the adapter's README and the examples show is run, against the server on loopback."""

import pytest
from documents import EXAMPLES, printed, snippet_of
from model_server import TEXTS

pytest.importorskip("openai")


def test_the_readmes_example_retries_and_falls_back(server):
    server.script.extend(["refuses", "refuses"])
    assert printed(server, "-c", snippet_of("refusal_guard_openai")) == [TEXTS["answers"], "('gpt-5', 'gpt-5', 'gpt-5-mini')"]


def test_the_fallback_example_tells_its_attempts(server):
    server.script.extend(["refuses", "refuses"])
    answer, *attempts = printed(server, str(EXAMPLES / "openai_fallback.py"))
    assert answer == TEXTS["answers"]
    assert [line.split(" (")[0] for line in attempts] == ["gpt-5: refusal", "gpt-5: refusal", "gpt-5-mini: compliance"]


def test_the_gate_example_never_prints_the_refusal(server):
    server.script.append("refuses")
    assert printed(server, str(EXAMPLES / "openai_stream_gate.py")) == [TEXTS["answers"], "asked: gpt-5, gpt-5-mini"]


def test_the_async_example_tells_answers_from_refusals(server):
    server.script.extend(["refuses"] * 6)
    lines = printed(server, str(EXAMPLES / "openai_async.py"))
    assert len(lines) == 3
    assert all(line.endswith("refused, 2 times") for line in lines)
