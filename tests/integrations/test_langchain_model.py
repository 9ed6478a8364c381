"""Guarded chat models in LangChain's own machinery: answers in one piece and streams, blocking and awaiting."""

import pytest

pytest.importorskip("langchain")

from fake_models import (
    ANSWER,
    CALLS_TOOL,
    DECLARED,
    REFUSAL,
    PromptBlockedError,
    ScriptedChatModel,
    StreamingChatModel,
    both_ways,
    merged,
    text_of,
)
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel

from refusal_guard import Fallback, Flag, Guard, InputError, Raise, RefusalDetected, Replace, Retry, report_of
from refusal_guard_langchain import RefusalDetectedError, guard_model

QUESTION = "What is the capital of France?"


def told(message):
    record = message.response_metadata["refusal_guard"]
    return record["outcome"], record["models"]


@both_ways
def test_an_answer_is_the_models_own_with_a_report(way, fixed, detector):
    model = ScriptedChatModel()
    guarded = guard_model(model, fixed)
    message = way.invoke(guarded, QUESTION)
    assert (message.text, told(message)) == (ANSWER, ("answered", ["scripted"]))
    assert report_of(message).outcome == "answered"
    assert detector.seen[0].prompt == QUESTION
    assert isinstance(guarded, ScriptedChatModel)
    assert "refusal_guard" not in way.invoke(model, QUESTION).response_metadata


@both_ways
def test_a_nudge_goes_behind_the_refusal(way, fixed):
    model = ScriptedChatModel(script=[REFUSAL, ANSWER])
    message = way.invoke(guard_model(model, fixed, Retry(1, nudge="Please do.", temperature=0.9)), QUESTION)
    assert (message.text, report_of(message).models) == (ANSWER, ("scripted", "scripted"))
    assert [asked.text for asked in model.asked[1]] == [QUESTION, REFUSAL, "Please do."]
    assert [type(asked) for asked in model.asked[1]] == [HumanMessage, AIMessage, HumanMessage]
    assert [options.get("temperature") for options in model.options] == [None, 0.9]


@both_ways
def test_it_falls_back_to_names_and_to_other_models(way, fixed):
    model, other = ScriptedChatModel(script=[REFUSAL]), ScriptedChatModel(model_name="other")
    message = way.invoke(guard_model(model, fixed, Fallback("larger").then(Fallback(other))).bind(stop=["."]), QUESTION)
    assert (message.text, told(message)) == (ANSWER, ("answered", ["scripted", "larger", "other"]))
    assert [options.get("model") for options in model.options] == [None, "larger"]
    assert other.options == [{}]


@both_ways
def test_a_fallback_to_another_model_does_not_take_the_bound_name_along(way, fixed):
    model, other = ScriptedChatModel(script=[REFUSAL]), ScriptedChatModel(model_name="other")
    message = way.invoke(guard_model(model, fixed, Fallback(other)).bind(model="bound", seed=1), QUESTION)
    assert (other.options, told(message)) == ([{"seed": 1}], ("answered", ["bound", "other"]))


@both_ways
@pytest.mark.parametrize("by", ["Ask a colleague.", lambda refused: "Ask a colleague.", lambda refused: AIMessage("Ask a colleague.")])
def test_something_else_stands_in_for_a_refusal(way, fixed, by):
    message = way.invoke(guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, Replace(by)), QUESTION)
    assert isinstance(message, AIMessage)
    assert (message.text, told(message)) == ("Ask a colleague.", ("replaced", ["scripted"]))


def test_a_function_that_replaces_gets_the_refused_message(fixed):
    seen = []
    policy = Replace(lambda refused: seen.append(refused) or "Ask a colleague.")
    guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, policy).invoke(QUESTION)
    guard_model(ScriptedChatModel(script=[PromptBlockedError()]), fixed, policy).invoke(QUESTION)
    list(guard_model(StreamingChatModel(script=[REFUSAL]), fixed, policy, "gate", hold=15).stream(QUESTION))
    assert [message and message.text.strip() for message in seen] == [REFUSAL, None, "I'm sorry, but"]


def test_what_is_no_text_and_no_message_can_not_replace(fixed):
    with pytest.raises(InputError, match="a text or a message"):
        guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, Replace(lambda refused: 7)).invoke(QUESTION)


@both_ways
def test_a_refusal_raises_what_langchain_knows(way, fixed):
    with pytest.raises(RefusalDetectedError) as raised:
        way.invoke(guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, Raise()), QUESTION)
    error = raised.value
    assert isinstance(error, RefusalDetected)
    assert isinstance(error, OutputParserException)
    assert error.raw_message is error.response
    assert (error.raw_message.text, report_of(error).outcome) == (REFUSAL, "raised")
    assert REFUSAL not in str(error) + repr(error)
    assert "troubleshooting" not in str(error)


@both_ways
@pytest.mark.parametrize("form", DECLARED)
def test_what_the_provider_declares_needs_no_detector_and_no_second_try(way, fixed, detector, form):
    model = ScriptedChatModel(script=[DECLARED[form], ANSWER])
    message = way.invoke(guard_model(model, fixed, Retry(2)), QUESTION)
    assert (told(message), len(model.asked), detector.seen) == (("flagged", ["scripted"]), 1, [])
    assert "explanation" not in str(message.response_metadata["refusal_guard"])


@both_ways
def test_a_declared_refusal_is_answered_after_a_nudge(way, fixed):
    model = ScriptedChatModel(script=[DECLARED["a field"], ANSWER])
    assert way.invoke(guard_model(model, fixed, Retry(1, nudge="Please do.")), QUESTION).text == ANSWER
    assert [asked.text for asked in model.asked[1]] == [QUESTION, "No.", "Please do."]


@both_ways
def test_an_error_that_blocks_the_prompt_is_a_refusal_and_others_go_through(way, fixed):
    blocked = guard_model(ScriptedChatModel(script=[PromptBlockedError()]), fixed)
    with pytest.raises(PromptBlockedError) as raised:
        way.invoke(blocked, QUESTION)
    assert report_of(raised.value).attempts[0].verdict.signal == "blocked"
    with pytest.raises(RefusalDetectedError) as refused:
        way.invoke(guard_model(blocked, fixed, Raise()), QUESTION)
    assert isinstance(refused.value.__cause__, PromptBlockedError)
    with pytest.raises(ZeroDivisionError):
        way.invoke(guard_model(ScriptedChatModel(script=[ZeroDivisionError()]), fixed, Replace("never")), QUESTION)


@both_ways
@pytest.mark.parametrize("answer", [CALLS_TOOL, "", AIMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])])
def test_tool_calls_and_answers_without_a_text_are_no_refusals(way, fixed, answer):
    assert told(way.invoke(guard_model(ScriptedChatModel(script=[answer]), fixed, Raise()), QUESTION))[0] == "answered"


@both_ways
@pytest.mark.parametrize(("refused_when", "outcome"), [("all", "answered"), ("any", "flagged")])
def test_of_several_choices_all_are_refused_or_any(way, fixed, refused_when, outcome):
    model = ScriptedChatModel(script=[[REFUSAL, ANSWER]])
    assert told(way.invoke(guard_model(model, fixed, refused_when=refused_when), QUESTION))[0] == outcome


def test_one_filtered_choice_of_several_is_not_the_whole(fixed):
    model = ScriptedChatModel(script=[[DECLARED["a filter"], AIMessage(ANSWER)]])
    assert told(guard_model(model, fixed, Raise()).invoke(QUESTION))[0] == "answered"


@both_ways
def test_a_result_without_choices_is_empty(way, fixed):
    class Mute(ScriptedChatModel):
        def _answers(self, messages, options):
            return []

    with pytest.raises((IndexError, ValueError)) as ours:
        way.invoke(guard_model(Mute(), fixed), QUESTION)
    with pytest.raises((IndexError, ValueError)) as langchains:
        way.invoke(Mute(), QUESTION)
    assert str(ours.value) == str(langchains.value)


class City(BaseModel):
    name: str


def test_tools_and_structured_output_keep_the_guard(fixed):
    call = AIMessage("", tool_calls=[{"name": "City", "args": {"name": "Paris"}, "id": "1"}])
    model = ScriptedChatModel(script=[REFUSAL, call])
    structured = guard_model(model, fixed, Retry(1)).with_structured_output(City)
    assert structured.invoke(QUESTION) == City(name="Paris")
    assert all("tools" in options for options in model.options)


def test_copies_and_configured_models_keep_the_guard(fixed):
    guarded = guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, Replace("Ask a colleague."))
    copied = guarded.model_copy(update={"model_name": "copy"})
    configured = guarded.configurable_fields(model_name=ConfigurableField(id="name"))
    assert told(copied.invoke(QUESTION)) == ("replaced", ["copy"])
    assert told(configured.invoke(QUESTION, {"configurable": {"name": "configured"}})) == ("replaced", ["configured"])


@both_ways
def test_what_is_guarded_twice_is_judged_once(way, fixed, detector):
    inner = guard_model(ScriptedChatModel(script=[REFUSAL]), fixed)
    assert told(way.invoke(guard_model(inner, fixed, Replace("Ask a colleague.")), QUESTION))[0] == "replaced"
    assert len(detector.seen) == 1


@both_ways
def test_langchains_retries_and_fallbacks_act_on_the_exception(way, fixed):
    retried = guard_model(ScriptedChatModel(script=[REFUSAL, ANSWER]), fixed, Raise()).with_retry(
        retry_if_exception_type=(RefusalDetectedError,), wait_exponential_jitter=False
    )
    assert way.invoke(retried, QUESTION).text == ANSWER
    refusing = guard_model(ScriptedChatModel(script=[REFUSAL]), fixed, Raise())
    saved = refusing.with_fallbacks([ScriptedChatModel()], exceptions_to_handle=(RefusalDetectedError,))
    chain = ChatPromptTemplate.from_template("{question}") | saved | StrOutputParser()
    assert way.invoke(chain, {"question": QUESTION}) == ANSWER


class Listener(BaseCallbackHandler):
    """What an interface that shows tokens as they come would show."""

    def __init__(self):
        self.heard = []

    def on_llm_new_token(self, token, **kwargs):
        self.heard.append(token)


@both_ways
@pytest.mark.parametrize("stream", ["gate", "full"])
def test_a_refusal_that_is_held_is_retried_unseen_and_unheard(way, fixed, stream):
    model, listener = StreamingChatModel(script=[REFUSAL, ANSWER]), Listener()
    chunks = way.stream(guard_model(model, fixed, Retry(1), stream), QUESTION, {"callbacks": [listener]})
    assert (text_of(chunks), "".join(listener.heard).strip()) == (ANSWER, ANSWER)
    message = merged(chunks)
    assert told(message) == ("answered", ["scripted", "scripted"])
    assert message.response_metadata["finish_reason"] == "stop"
    assert model.ended == [1, 2]


@both_ways
def test_an_answer_streams_on_behind_the_gate(way, fixed):
    model = StreamingChatModel()
    taken = way.take(guard_model(model, fixed, stream="gate", hold=20), 2, QUESTION)
    assert text_of(taken) == "The capital"
    assert model.ended == [1]


@both_ways
def test_an_unheld_refusal_is_told_at_the_end_and_raised_where_wanted(way, fixed):
    chunks = way.stream(guard_model(StreamingChatModel(script=[REFUSAL]), fixed, Replace("too late")), QUESTION)
    assert (text_of(chunks), told(merged(chunks))[0]) == (REFUSAL, "flagged")
    assert merged(chunks).response_metadata["refusal_guard"]["stopped"] == "released"
    seen = []
    with pytest.raises(RefusalDetectedError) as raised:
        way.stream(guard_model(StreamingChatModel(script=[REFUSAL]), fixed, Raise()), QUESTION, into=seen)
    assert text_of(seen) == raised.value.raw_message.text.strip() == REFUSAL


@both_ways
def test_a_stream_is_replaced(way, fixed):
    for answer in (REFUSAL, PromptBlockedError()):
        guarded = guard_model(StreamingChatModel(script=[answer]), fixed, Replace("Ask a colleague."), "gate")
        chunks = way.stream(guarded, QUESTION)
        assert (text_of(chunks), told(merged(chunks))[0]) == ("Ask a colleague.", "replaced")


@both_ways
@pytest.mark.parametrize("kind", [ScriptedChatModel, StreamingChatModel])
def test_a_stream_falls_back_to_models_that_stream_and_that_do_not(way, fixed, kind):
    other = kind(model_name="other")
    chunks = way.stream(guard_model(StreamingChatModel(script=[REFUSAL]), fixed, Fallback(other), "gate"), QUESTION)
    assert (text_of(chunks), told(merged(chunks))) == (ANSWER, ("answered", ["scripted", "other"]))


@both_ways
def test_a_fallback_that_is_guarded_itself_tells_once(way, fixed):
    other = guard_model(StreamingChatModel(model_name="other"), fixed)
    chunks = way.stream(guard_model(StreamingChatModel(script=[REFUSAL]), fixed, Fallback(other), "gate"), QUESTION)
    assert (text_of(chunks), told(merged(chunks))) == (ANSWER, ("answered", ["scripted", "other"]))


@both_ways
def test_langchains_fallbacks_act_on_a_gated_stream(way, fixed):
    chain = guard_model(StreamingChatModel(script=[REFUSAL]), fixed, Raise(), "gate").with_fallbacks([StreamingChatModel()])
    assert text_of(way.stream(chain, QUESTION)) == ANSWER


@both_ways
def test_a_streamed_tool_call_passes_whole(way, fixed):
    for stream in ("flag", "gate", "full"):
        message = merged(way.stream(guard_model(StreamingChatModel(script=[CALLS_TOOL]), fixed, Raise(), stream, hold=None), QUESTION))
        assert [call["args"] for call in message.tool_calls] == [{"city": "Paris"}]


@both_ways
def test_an_abandoned_stream_closes_the_models(way, fixed, detector):
    model = StreamingChatModel()
    assert text_of(way.take(guard_model(model, fixed), 3, QUESTION)) == "The capital of"
    assert (model.ended, detector.seen) == ([1], [])


@both_ways
def test_a_model_that_does_not_stream_streams_its_one_answer(way, fixed):
    chunks = way.stream(guard_model(ScriptedChatModel(script=[REFUSAL, ANSWER]), fixed, Retry(1), "gate"), QUESTION)
    assert (text_of(chunks), told(merged(chunks))[0]) == (ANSWER, "answered")


def test_the_newest_event_streams_hold_a_refusal_too(fixed):
    model, listener = StreamingChatModel(script=[REFUSAL, ANSWER]), Listener()
    guarded = guard_model(model, fixed, Retry(1), "gate")
    if not hasattr(guarded, "stream_events"):
        pytest.skip("this langchain-core has no stream_events")
    stream = guarded.stream_events(QUESTION, {"callbacks": [listener]}, version="v3")
    assert str(stream.text).strip() == ANSWER
    assert "".join(listener.heard).strip() == ANSWER


def test_a_model_that_makes_its_events_itself_is_guarded_by_its_stream(fixed):
    class Native(StreamingChatModel):
        def _stream_chat_model_events(self, messages, stop=None, run_manager=None, **kwargs):
            raise AssertionError("the guard was passed by")

    guarded = guard_model(Native(script=[REFUSAL, ANSWER]), fixed, Retry(1), "gate")
    if not hasattr(guarded, "stream_events"):
        pytest.skip("this langchain-core has no stream_events")
    assert str(guarded.stream_events(QUESTION, version="v3").text).strip() == ANSWER


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "gpt-5"}, "takes a chat model, not a str"),
        ({"model": ScriptedChatModel().bind(stop=["."])}, "before you bind"),
        ({"guard": "embedded"}, "must be a Guard"),
        ({"policy": Raise}, "policy must be"),
        ({"policy": Fallback(print)}, "falls back to names of models and to LangChain"),
        ({"stream": "some"}, "stream must be one of"),
        ({"hold": 10}, 'stream="gate"'),
        ({"refused_when": "most"}, "refused_when"),
    ],
)
def test_bad_settings_are_told_at_once(settings, says):
    with pytest.raises(InputError, match=says):
        guard_model(**{"model": ScriptedChatModel(), **settings})


def test_without_settings_it_flags_by_the_model_inside_the_package():
    message = guard_model(ScriptedChatModel(script=[REFUSAL])).invoke(QUESTION)
    assert told(message)[0] == "flagged"


def test_a_failing_detector_is_told_as_the_guard_says(fixed, detector):
    detector._answer = lambda conversation: 1 / 0
    assert told(guard_model(ScriptedChatModel(), Guard(detector, on_error="pass"), Flag()).invoke(QUESTION))[0] == "answered"
