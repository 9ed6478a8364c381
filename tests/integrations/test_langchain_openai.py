"""LangChain's OpenAI model under guard, against the server on loopback: what OpenAI and Azure declare arrives, and is acted on."""

import pytest

pytest.importorskip("langchain")
ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI

from fake_models import both_ways, merged, text_of
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from model_server import TEXTS

from refusal_guard import Fallback, Guard, Raise, Replace, Retry, report_of
from refusal_guard.testing import RecordingHook
from refusal_guard_langchain import (
    RefusalCallbackHandler,
    RefusalDetectedError,
    RefusalGuardMiddleware,
    RefusalOutputParser,
    guard_model,
)

QUESTION = "What is the capital of France?"
CLOSING = {"Connection": "close"}  # LangChain shares connections between event loops
FORMS = [{}, {"use_responses_api": True}]
both_forms = pytest.mark.parametrize("form", FORMS, ids=["chat", "responses"])


@pytest.fixture
def chat(server):
    def make(model, **settings):
        return ChatOpenAI(
            **{"model": model, "base_url": server.url, "api_key": "key", "max_retries": 0, "default_headers": CLOSING, **settings}
        )

    return make


@both_ways
@both_forms
def test_a_fallback_to_a_name_asks_the_same_server(way, chat, form, fixed, server):
    message = way.invoke(guard_model(chat("refuses", **form), fixed, Fallback("answers")), QUESTION)
    assert (message.text, server.models) == (TEXTS["answers"], ["refuses", "answers"])
    assert (report_of(message).models, report_of(message).usage.total_tokens) == (("refuses", "answers"), 30)


@both_ways
@both_forms
@pytest.mark.parametrize(("model", "signal"), [("declares", "refusal"), ("filters", "filtered")])
def test_what_openai_declares_needs_no_detector(way, chat, form, model, signal, fixed, detector, server):
    message = way.invoke(guard_model(chat(model, **form), fixed, Retry(1).then(Replace("Ask a colleague."))), QUESTION)
    assert message.text == "Ask a colleague."
    assert (report_of(message).attempts[0].verdict.signal, detector.seen, server.models) == (signal, [], [model])
    with pytest.raises(RefusalDetectedError):
        way.invoke(chat(model, **form) | RefusalOutputParser(guard=fixed), QUESTION)


@both_ways
def test_a_prompt_that_azure_blocks_is_told_by_the_callback(way, chat, detector):
    openai, hook = pytest.importorskip("openai"), RecordingHook()
    with pytest.raises(openai.BadRequestError):
        way.invoke(chat("blocks"), QUESTION, {"callbacks": [RefusalCallbackHandler(Guard(detector, hooks=[hook]))]})
    [event] = hook.events
    assert (event.signal, event.provider, event.category, event.model) == ("blocked", "azure", "violence", "blocks")


@both_ways
@both_forms
def test_a_gated_stream_falls_back_unseen(way, chat, form, fixed, server):
    guarded = guard_model(chat("refuses", **form), fixed, Fallback("answers"), "gate")
    chunks = way.stream(guarded, QUESTION)
    assert (text_of(chunks), server.models) == (TEXTS["answers"], ["refuses", "answers"])
    assert merged(chunks).response_metadata["refusal_guard"]["models"] == ["refuses", "answers"]
    assert server.drained()


@both_ways
def test_an_abandoned_stream_hangs_up(way, chat, fixed, server):
    way.take(guard_model(chat("answers"), fixed, stream="gate"), 1, QUESTION)
    assert server.drained()


@both_ways
def test_a_refusal_lost_on_the_way_is_an_empty_answer(way, chat, fixed):
    """ChatOpenAI drops a refusal that is streamed in a field of its own."""
    [attempt] = merged(way.stream(guard_model(chat("declares"), fixed), QUESTION)).response_metadata["refusal_guard"]["attempts"]
    assert attempt["verdict"]["signal"] in ("empty", "refusal")


@both_ways
def test_an_agent_falls_back_by_langchains_middleware(way, chat, fixed, server):
    middleware = [ModelFallbackMiddleware(chat("answers")), RefusalGuardMiddleware(guard=fixed, on_refusal="raise")]
    state = way.invoke(create_agent(chat("refuses"), middleware=middleware), {"messages": [("user", QUESTION)]})
    assert (state["messages"][-1].text, state["refusal_guard"][0]["models"]) == (TEXTS["answers"], ["answers"])
    assert server.models == ["refuses", "answers"]


def test_structured_output_is_judged_before_it_is_parsed(chat, fixed, server):
    schema = {"title": "City", "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    asked = guard_model(chat("refuses"), fixed, Fallback("parses")).with_structured_output(schema, method="json_mode")
    assert asked.invoke(QUESTION) == {"city": "Paris"}
    with pytest.raises(RefusalDetectedError):
        guard_model(chat("declares"), fixed, Raise()).with_structured_output(schema, method="json_schema").invoke(QUESTION)
