"""The validator and the predicate in runs of real pydantic-ai agents."""

import asyncio

import pytest

pytest.importorskip("pydantic_ai")

from documents import printed, snippet_of
from model_server import TEXTS
from pydantic import BaseModel
from pydantic_ai import Agent, UnexpectedModelBehavior
from pydantic_ai.exceptions import FallbackExceptionGroup
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel

from refusal_guard import InputError
from refusal_guard_pydantic_ai import refusal_validator, refuses

QUESTION = "What is the capital of France?"


def model(*answers, asked=None, name="model"):
    """A model that gives the answers in turn, the last one over and over."""
    waiting = list(answers)

    def answer(messages, info):
        if asked is not None:
            asked.append(messages)
        given = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return given if isinstance(given, ModelResponse) else ModelResponse(parts=[TextPart(given)])

    return FunctionModel(answer, model_name=name)


def run(agent):
    return asyncio.run(agent.run(QUESTION))  # run_sync leaves a loop open


def guarded(model, guard, **settings):
    agent = Agent(model, **settings)
    agent.output_validator(refusal_validator(guard, nudge="Please do."))
    return agent


def test_a_refusal_is_asked_again_with_the_nudge(fixed, detector):
    asked = []
    agent = guarded(model(TEXTS["refuses"], TEXTS["answers"], asked=asked), fixed)
    assert run(agent).output == TEXTS["answers"]
    assert "Please do." in str(asked[1][-1])
    assert [seen.prompt for seen in detector.seen] == [QUESTION, QUESTION]


def test_retries_are_bounded_by_the_agent(fixed):
    with pytest.raises(UnexpectedModelBehavior):
        run(guarded(model(TEXTS["refuses"]), fixed, retries=1))


def test_a_stream_is_judged_when_it_is_whole(fixed, detector):
    async def words(messages, info):
        for word in TEXTS["answers"].split(" "):
            yield word + " "

    async def collect():
        async with guarded(FunctionModel(stream_function=words), fixed).run_stream(QUESTION) as stream:
            return await stream.get_output()

    assert asyncio.run(collect()).strip() == TEXTS["answers"]
    assert [seen.response.strip() for seen in detector.seen] == [TEXTS["answers"]]


class City(BaseModel):
    city: str


def test_structured_output_passes(fixed, detector):
    call = ModelResponse(parts=[ToolCallPart("final_result", {"city": "Paris"})])
    assert run(guarded(model(call), fixed, output_type=City)).output == City(city="Paris")
    assert detector.seen == []


@pytest.mark.parametrize(
    "refused", [TEXTS["refuses"], ModelResponse(parts=[TextPart("The capi")], finish_reason="content_filter")], ids=["text", "filter"]
)
def test_a_refused_response_falls_back(fixed, refused):
    fallback = FallbackModel(model(refused), model(TEXTS["answers"], name="other"), fallback_on=[refuses(fixed)])
    assert run(Agent(fallback)).output == TEXTS["answers"]
    with pytest.raises(FallbackExceptionGroup):
        run(Agent(FallbackModel(model(refused), model(refused, name="other"), fallback_on=[refuses(fixed)])))


@pytest.mark.parametrize("make", [refusal_validator, refuses])
def test_a_guard_that_is_none_is_told_at_once(make):
    with pytest.raises(InputError, match="must be a Guard"):
        make("embedded")


def test_the_readmes_example_asks_again_and_falls_back(server):
    pytest.importorskip("openai")
    server.script.extend(["refuses", "answers", "refuses", "answers"])
    assert printed(server, "-c", snippet_of("refusal_guard_pydantic_ai")) == [TEXTS["answers"]] * 2
