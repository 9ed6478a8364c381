"""The refusal parser in chains: alone and around other parsers, with LangChain's retries and fallbacks, whole answers and streams."""

import gc
import json

import pytest

pytest.importorskip("langchain")

from fake_models import ANSWER, CALLS_TOOL, DECLARED, REFUSAL, ScriptedChatModel, StreamingChatModel, both_ways, text_of
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, JsonOutputToolsParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from pydantic import BaseModel, ValidationError

from refusal_guard import Guard, InputError, RefusalDetected
from refusal_guard.errors import DetectorError
from refusal_guard.testing import FixedDetector
from refusal_guard_langchain import RefusalDetectedError, RefusalOutputParser

QUESTION = "What is the capital of France?"
CITY = json.dumps({"name": "Paris", "river": "Seine"})


class City(BaseModel):
    name: str


@pytest.fixture
def parser(fixed):
    return RefusalOutputParser(guard=fixed)


@both_ways
def test_answers_come_out_as_texts_and_refusals_are_raised(way, parser):
    chain = ScriptedChatModel(script=[ANSWER, REFUSAL]) | parser
    assert way.invoke(chain, QUESTION) == ANSWER
    with pytest.raises(RefusalDetectedError) as raised:
        way.invoke(chain, QUESTION)
    assert raised.value.raw_message.text == REFUSAL
    assert REFUSAL not in str(raised.value)


@both_ways
@pytest.mark.parametrize(
    ("inner", "parsed"),
    [(JsonOutputParser(), json.loads(CITY)), (PydanticOutputParser(pydantic_object=City), City(name="Paris"))],
)
def test_another_parser_inside_parses_what_is_no_refusal(way, fixed, inner, parsed):
    parser = RefusalOutputParser(parser=inner, guard=fixed)
    assert way.invoke(ScriptedChatModel(script=[CITY]) | parser, QUESTION) == parsed
    with pytest.raises(RefusalDetectedError):
        way.invoke(ScriptedChatModel(script=[REFUSAL]) | parser, QUESTION)
    with pytest.raises(OutputParserException) as broken:
        way.invoke(ScriptedChatModel(script=["{"]) | RefusalOutputParser(parser=PydanticOutputParser(pydantic_object=City)), QUESTION)
    assert not isinstance(broken.value, RefusalDetected)


def test_it_speaks_for_the_parser_inside(fixed):
    inner = PydanticOutputParser(pydantic_object=City)
    parser = RefusalOutputParser(parser=inner, guard=fixed)
    assert parser.get_format_instructions() == inner.get_format_instructions()
    assert parser.OutputType == inner.OutputType
    assert RefusalOutputParser(guard=fixed).OutputType is str


@both_ways
@pytest.mark.parametrize("form", DECLARED)
def test_what_the_provider_declares_is_raised(way, parser, detector, form):
    with pytest.raises(RefusalDetectedError):
        way.invoke(ScriptedChatModel(script=[DECLARED[form]]) | parser, QUESTION)
    assert detector.seen == []


@both_ways
def test_a_message_that_calls_tools_passes(way, fixed):
    chain = ScriptedChatModel(script=[CALLS_TOOL]) | RefusalOutputParser(parser=JsonOutputToolsParser(), guard=fixed)
    assert way.invoke(chain, QUESTION) == [{"args": {"city": "Paris"}, "type": "look_up"}]


@both_ways
def test_with_retry_asks_again_and_with_fallbacks_the_next(way, parser):
    refusing = ScriptedChatModel(script=[REFUSAL, ANSWER])
    retried = (refusing | parser).with_retry(retry_if_exception_type=(RefusalDetectedError,), wait_exponential_jitter=False)
    assert way.invoke(retried, QUESTION) == ANSWER
    saved = (ScriptedChatModel(script=[REFUSAL]) | parser).with_fallbacks(
        [ScriptedChatModel() | parser], exceptions_to_handle=(RefusalDetectedError,)
    )
    assert way.invoke(saved, QUESTION) == ANSWER
    with pytest.raises(RefusalDetectedError):
        way.invoke((ScriptedChatModel(script=[REFUSAL]) | parser).with_fallbacks([ScriptedChatModel(script=[REFUSAL]) | parser]), QUESTION)


def test_langchains_retry_parser_asks_the_model_again(fixed):
    RetryOutputParser = pytest.importorskip("langchain_classic.output_parsers").RetryOutputParser
    model = ScriptedChatModel(script=[CITY])
    parser = RefusalOutputParser(parser=JsonOutputParser(), guard=fixed)
    retrying = RetryOutputParser.from_llm(model, parser, max_retries=1)
    assert retrying.parse_with_prompt(REFUSAL, StringPromptValue(text=QUESTION)) == json.loads(CITY)
    assert len(model.asked) == 1


def test_langchains_exceptions_catch_it(parser):
    exceptions = pytest.importorskip("langchain_core.exceptions")
    refusal = getattr(exceptions, "ModelRefusalError", OutputParserException)  # since langchain-core 1.7.5
    with pytest.raises(refusal) as raised:
        parser.invoke(REFUSAL)
    assert getattr(raised.value, "is_retryable", False) is False


def test_the_prompt_counts_where_it_is_told(fixed, detector, parser):
    assert parser.parse_with_prompt(ANSWER, StringPromptValue(text=QUESTION)) == ANSWER
    assert detector.seen[0].prompt == QUESTION
    with pytest.raises(RefusalDetectedError):
        parser.parse_with_prompt(REFUSAL, StringPromptValue(text=QUESTION))


def test_of_several_generations_those_that_answer_are_parsed(parser):
    generations = [ChatGeneration(message=AIMessage(REFUSAL)), ChatGeneration(message=AIMessage(ANSWER))]
    assert parser.parse_result(generations) == ANSWER
    with pytest.raises(RefusalDetectedError):
        parser.parse_result([generations[0], Generation(text=REFUSAL)])


@both_ways
@pytest.mark.parametrize("streamed", ["gate", "full"])
def test_a_refusal_that_is_held_falls_back_unseen(way, fixed, streamed):
    parser = RefusalOutputParser(guard=fixed, streamed=streamed)
    refusing = StreamingChatModel(script=[REFUSAL])
    chain = (refusing | parser).with_fallbacks([StreamingChatModel() | parser])
    assert text_of(way.stream(chain, QUESTION)) == ANSWER
    gc.collect()  # LangChain lets a blocking stream go without closing it
    assert refusing.ended == [1]


@both_ways
def test_chunks_come_out_as_they_came_in_behind_the_gate(way, fixed):
    chain = StreamingChatModel() | RefusalOutputParser(guard=fixed, hold=5)
    chunks = way.stream(chain, QUESTION)
    assert chunks[:3] == ["The ", "capital ", "of "]
    assert text_of(chunks) == ANSWER


@both_ways
@pytest.mark.parametrize(("streamed", "hold"), [("flag", None), ("gate", 5)])
def test_a_refusal_behind_what_is_held_is_raised_at_the_end(way, fixed, streamed, hold):
    late = ANSWER + " " + REFUSAL
    seen = []
    with pytest.raises(RefusalDetectedError) as raised:
        way.stream(StreamingChatModel(script=[late]) | RefusalOutputParser(guard=fixed, streamed=streamed, hold=hold), QUESTION, into=seen)
    assert text_of(seen) == raised.value.raw_message.text.strip() == late


@both_ways
def test_partial_json_streams_through(way, fixed):
    chain = StreamingChatModel(script=[CITY]) | RefusalOutputParser(parser=JsonOutputParser(), guard=fixed, hold=1)
    chunks = way.stream(chain, QUESTION)
    assert (chunks[-1], len(chunks) > 2) == (json.loads(CITY), True)
    assert way.stream(StreamingChatModel(script=[CITY]) | RefusalOutputParser(parser=PydanticOutputParser(pydantic_object=City)), QUESTION)


@both_ways
def test_an_abandoned_stream_closes_the_models(way, fixed, detector):
    model = StreamingChatModel()
    assert text_of(way.take(model | RefusalOutputParser(guard=fixed, streamed="flag"), 2, QUESTION)) == "The capital"
    assert (model.ended, detector.seen) == ([1], [])


@both_ways
def test_what_does_not_stream_and_what_streams_texts_is_parsed_too(way, fixed, parser):
    assert text_of(way.stream(ScriptedChatModel() | parser, QUESTION)) == ANSWER
    with pytest.raises(RefusalDetectedError):
        way.stream(RunnableLambda(lambda _: AIMessage(REFUSAL)) | parser, QUESTION)
    with pytest.raises(RefusalDetectedError):
        way.stream(RunnableLambda(lambda _: REFUSAL) | parser, QUESTION)


def test_a_stream_without_chunks_has_no_answer(parser):
    def nothing(chunks):
        yield from [] if list(chunks) else [ANSWER]

    silent = RunnableGenerator(nothing)
    assert list((silent | parser).stream(QUESTION)) == []


@both_ways
@pytest.mark.parametrize("thing", [{"text": REFUSAL}, None, 7, b"bytes", [AIMessage(ANSWER)]])
def test_what_is_no_answer_is_told_by_its_type_alone(way, parser, thing):
    with pytest.raises(InputError, match="a message or a text") as whole:
        way.invoke(parser, thing)
    with pytest.raises(InputError, match="a message or a text"):
        way.stream(RunnableLambda(lambda _: thing) | parser, QUESTION)
    assert REFUSAL not in str(whole.value)


def test_no_generations_and_no_text_are_told(parser):
    with pytest.raises(InputError, match="no generation"):
        parser.parse_result([])
    with pytest.raises(InputError, match="a message or a text"):
        parser.parse(None)


def test_a_message_of_somebody_else_is_read_as_a_text(parser):
    assert parser.invoke(HumanMessage(ANSWER)) == ANSWER


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"parser": str}, "must be an output parser"),
        ({"guard": "embedded"}, "Guard"),
        ({"streamed": "some"}, "flag"),
        ({"hold": 0}, "at least 1"),
        ({"streamed": "full", "hold": 5}, 'stream="gate"'),
    ],
)
def test_bad_settings_are_told_at_once(settings, says):
    with pytest.raises(ValidationError, match=says):
        RefusalOutputParser(**settings)


def test_a_failing_detector_is_no_refusal():
    parser = RefusalOutputParser(guard=Guard(FixedDetector(lambda conversation: 1 / 0)))
    with pytest.raises(DetectorError):
        parser.invoke(ANSWER)


BLOCKS = st.dictionaries(st.sampled_from(["type", "text", "refusal", "image_url", "id"]), st.text(max_size=12), max_size=3)
CONTENTS = st.text(max_size=40) | st.lists(
    st.text(max_size=12) | BLOCKS.map(lambda block: {"type": "text", "text": "", **block}), max_size=4
)


@given(st.lists(CONTENTS, min_size=1, max_size=4))
def test_any_content_is_judged_whole_and_in_chunks(contents):
    parser = RefusalOutputParser(guard=Guard(FixedDetector(0.0)), streamed="full")
    for content in contents:
        refuses = any(isinstance(block, dict) and block["type"] == "refusal" for block in content)
        try:
            parser.invoke(AIMessage(content))
        except RefusalDetectedError:
            assert refuses
    texts = [content for content in contents if isinstance(content, str)]

    def stream(chunks):
        yield from map(AIMessageChunk, texts)

    assert "".join((RunnableGenerator(stream) | parser).stream("")) == "".join(texts)
