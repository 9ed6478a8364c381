"""The callback handlers in LangChain's own calls: what they see, tell, raise and forget."""

import asyncio
import traceback
from uuid import uuid4

import pytest

pytest.importorskip("langchain")

from fake_models import ANSWER, CALLS_TOOL, DECLARED, REFUSAL, PromptBlockedError, ScriptedChatModel, StreamingChatModel, both_ways, merged
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda

from refusal_guard import Guard, InputError, Retry, report_of
from refusal_guard.testing import RecordingHook
from refusal_guard_langchain import AsyncRefusalCallbackHandler, RefusalCallbackHandler, RefusalDetectedError, guard_model

QUESTION = "What is the capital of France?"


@pytest.fixture
def hook():
    return RecordingHook()


@pytest.fixture
def guard(detector, hook):
    return Guard(detector, hooks=[hook])


@pytest.fixture(params=[RefusalCallbackHandler, AsyncRefusalCallbackHandler], ids=["handler", "async handler"])
def make(request, guard):
    return lambda **settings: request.param(guard, **settings)


def config(handler, **metadata):
    return {"callbacks": [handler], "metadata": metadata}


@both_ways
def test_every_answer_is_told_with_its_prompt_and_labels(way, make, hook, detector):
    handler = make()
    chain = RunnableLambda(lambda text: text.upper()) | ScriptedChatModel(script=[REFUSAL])
    message = way.invoke(chain, QUESTION, config(handler, route="support", thread_id="t-1"))
    [event] = hook.events
    told = (event.refused, event.action, event.model, event.route, event.conversation_id)
    assert told == (True, "flagged", "scripted", "support", "t-1")
    assert detector.seen[0].prompt == QUESTION.upper()
    assert report_of(message).outcome == "flagged"
    assert "refusal_guard" not in message.response_metadata
    assert handler._runs == {}


@both_ways
def test_labels_of_other_kinds_are_left_out(way, make, hook):
    way.invoke(ScriptedChatModel(), QUESTION, config(make(), route=7, thread_id=uuid4(), session_id=" "))
    assert [(event.route, event.conversation_id) for event in hook.events] == [(None, None)]


@both_ways
def test_messages_are_annotated_where_that_is_asked_for(way, make):
    message = way.invoke(ScriptedChatModel(script=[REFUSAL]), QUESTION, config(make(annotate=True)))
    assert message.response_metadata["refusal_guard"]["outcome"] == "flagged"
    assert message.response_metadata["model_name"] == "scripted"


@both_ways
def test_a_batch_is_told_one_by_one(way, make, hook, detector):
    handler = make()
    questions = [f"Question {number}?" for number in range(8)]
    model = ScriptedChatModel(script=[REFUSAL, ANSWER])
    (asyncio.run(model.abatch(questions, config(handler))) if way.awaits else model.batch(questions, config(handler)))
    assert sorted(seen.prompt for seen in detector.seen) == questions
    assert sorted(event.refused for event in hook.events) == [False] * 4 + [True] * 4
    assert handler._runs == {}


@both_ways
def test_a_streamed_answer_is_told_at_its_end(way, make, hook):
    way.stream(StreamingChatModel(script=[REFUSAL]), QUESTION, config(make()))
    assert [event.refused for event in hook.events] == [True]


@both_ways
def test_an_abandoned_stream_leaves_nothing_and_counts_as_nothing(way, make, hook):
    handler = make()
    way.take(StreamingChatModel(script=[REFUSAL]), 2, QUESTION, config(handler))
    assert (hook.events, handler._runs) == ([], {})


@both_ways
@pytest.mark.parametrize("form", DECLARED)
def test_what_the_provider_declares_is_told_apart(way, make, hook, detector, form):
    way.invoke(ScriptedChatModel(script=[DECLARED[form]]), QUESTION, config(make()))
    [event] = hook.events
    assert event.signal == ("filtered" if "filter" in form else "refusal")
    assert (event.refused, detector.seen) == (True, [])


@both_ways
def test_an_error_that_blocks_the_prompt_is_told_and_others_are_not(way, make, hook):
    handler = make(on_refusal="raise")
    for error in (PromptBlockedError(), ZeroDivisionError()):
        with pytest.raises(type(error)) as raised:
            way.invoke(ScriptedChatModel(script=[error]), QUESTION, config(handler))
        assert raised.value is error
        assert "refusal_guard_langchain" not in "".join(traceback.format_tb(error.__traceback__))
    assert [(event.signal, event.stage, event.model) for event in hook.events] == [("blocked", "input", "scripted")]
    assert handler._runs == {}


@both_ways
def test_several_choices_are_one_answer(way, make, hook):
    way.invoke(ScriptedChatModel(script=[[REFUSAL, ANSWER]]), QUESTION, config(make()))
    assert [event.refused for event in hook.events] == [False]


@both_ways
@pytest.mark.parametrize("answer", [CALLS_TOOL, "", AIMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])])
def test_tool_calls_and_answers_without_a_text_are_no_refusals(way, make, hook, answer):
    way.invoke(ScriptedChatModel(script=[answer]), QUESTION, config(make(on_refusal="raise")))
    assert [event.refused for event in hook.events] == [False]


@both_ways
def test_text_models_are_judged_too(way, make, hook, detector):
    way.invoke(FakeListLLM(responses=[REFUSAL]), QUESTION, config(make()))
    assert ([event.refused for event in hook.events], detector.seen[0].prompt) == ([True], QUESTION)


@both_ways
def test_a_refusal_is_raised_where_langchain_lets_it(way, make):
    handler = make(on_refusal="raise")
    swallowed = isinstance(handler, AsyncRefusalCallbackHandler) and not way.awaits
    model = ScriptedChatModel(script=[REFUSAL])
    if swallowed:
        assert way.invoke(model, QUESTION, config(handler)).text == REFUSAL
        return
    with pytest.raises(RefusalDetectedError) as raised:
        way.invoke(model, QUESTION, config(handler))
    assert raised.value.raw_message.text == REFUSAL


@both_ways
def test_out_of_a_stream_it_is_raised_when_all_is_out(way, guard):
    seen = []
    with pytest.raises(RefusalDetectedError):
        way.stream(StreamingChatModel(script=[REFUSAL]), QUESTION, config(RefusalCallbackHandler(guard, on_refusal="raise")), into=seen)
    assert merged(seen).text.strip() == REFUSAL


@both_ways
def test_what_a_guarded_model_has_judged_is_told_once(way, make, hook, guard):
    model = guard_model(StreamingChatModel(script=[REFUSAL, ANSWER]), guard, Retry(1), "gate")
    way.invoke(model, QUESTION, config(make()))
    way.stream(model, QUESTION, config(make()))
    assert [event.action for event in hook.events] == ["retried", "answered"] * 2


def test_a_failing_detector_is_logged_without_a_text(guard, detector, caplog):
    detector._answer = lambda conversation: [][0]
    assert ScriptedChatModel(script=[REFUSAL]).invoke(QUESTION, config(RefusalCallbackHandler(guard))).text == REFUSAL
    assert "DetectorError" in caplog.text
    assert not [text for text in (REFUSAL, QUESTION) if text in caplog.text]


def test_an_answer_whose_beginning_was_missed_is_judged_alone(guard, hook, detector):
    handler = RefusalCallbackHandler(guard)
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=AIMessage(REFUSAL))]]), run_id=uuid4())
    assert ([event.refused for event in hook.events], detector.seen[0].prompt) == ([True], "")


@pytest.mark.parametrize("generations", [[], [[]]])
def test_an_answer_without_generations_is_empty(guard, hook, generations):
    RefusalCallbackHandler(guard).on_llm_end(LLMResult(generations=generations), run_id=uuid4())
    assert [(event.refused, event.signal) for event in hook.events] == [(False, "empty")]


@pytest.mark.parametrize("settings", [{"guard": "embedded"}, {"on_refusal": "retry"}, {"on_refusal": None}])
@pytest.mark.parametrize("kind", [RefusalCallbackHandler, AsyncRefusalCallbackHandler])
def test_bad_settings_are_told_at_once(kind, settings):
    with pytest.raises(InputError, match="must be"):
        kind(**settings)
