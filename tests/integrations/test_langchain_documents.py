"""What the adapter's README and its example show is run."""

import pytest
from documents import EXAMPLES, printed, snippet_of
from model_server import TEXTS

pytest.importorskip("langchain")


def test_the_readmes_example_falls_back_and_retries(server):
    pytest.importorskip("langchain_openai")
    server.script.extend(["refuses", "answers", "refuses", "answers"])
    assert printed(server, "-c", snippet_of("refusal_guard_langchain")) == [f"{TEXTS['answers']} ['gpt-5']", TEXTS["answers"]]


def test_the_example_needs_no_key(server):
    assert printed(server, str(EXAMPLES / "langchain_agent.py"))[-1] == "answered after 2 attempts"
