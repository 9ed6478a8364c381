"""Guarded OpenAI clients inside what others build on the SDK; each is skipped where it is missing (nox -s openai has them)."""

import pytest
from either import MESSAGES
from model_server import TEXTS

from refusal_guard import Fallback, report_of

openai = pytest.importorskip("openai")

from refusal_guard_openai import guard_openai


@pytest.fixture
def guarded(server, fixed):
    with openai.OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        yield guard_openai(client, fixed, Fallback("answers"), "gate")


@pytest.mark.filterwarnings("ignore:langsmith:DeprecationWarning")  # its own, at import
def test_langsmith_traces_the_guarded_client(guarded, monkeypatch):
    pytest.importorskip("langsmith")
    from langsmith.wrappers import wrap_openai

    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    traced = wrap_openai(guarded)
    response = traced.chat.completions.create(model="refuses", messages=MESSAGES)
    assert response.choices[0].message.content == TEXTS["answers"]
    assert report_of(response).models == ("refuses", "answers")
    stream = traced.chat.completions.create(model="refuses", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXTS["answers"]


def test_langchain_asks_the_guarded_client(guarded, server):
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    chat = chat_openai(model="refuses", api_key="key", root_client=guarded, client=guarded.chat.completions)
    assert chat.invoke("Hello").content == TEXTS["answers"]
    assert "".join(str(chunk.content) for chunk in chat.stream("Hello")) == TEXTS["answers"]
    assert server.models == ["refuses", "answers"] * 2
