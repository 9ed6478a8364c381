"""What the adapter's README and the example show is run, against the server on loopback."""

import pytest
from documents import EXAMPLES, printed, snippet_of
from model_server import TEXTS

pytest.importorskip("anthropic")


def test_the_readmes_example_falls_back(anthropic_server):
    anthropic_server.script.append("refuses")
    assert printed(anthropic_server, "-c", snippet_of("refusal_guard_anthropic")) == [
        TEXTS["answers"],
        "('claude-haiku-4-5', 'claude-opus-5')",
    ]


def test_the_example_falls_back_and_never_streams_the_refusal(anthropic_server):
    anthropic_server.script.extend(["refuses", "answers", "refuses"])
    lines = printed(anthropic_server, str(EXAMPLES / "anthropic_fallback.py"))
    assert lines == [TEXTS["answers"], "asked: claude-haiku-4-5, claude-opus-5", TEXTS["answers"]]
