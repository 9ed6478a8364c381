"""The guardrail in runs of the real Agents SDK, its model behind the server on loopback."""

import asyncio

import pytest

agents = pytest.importorskip("agents")

from documents import printed, snippet_of
from model_server import TEXTS
from openai import AsyncOpenAI
from pydantic import BaseModel

from refusal_guard import Guard, InputError
from refusal_guard.testing import RecordingHook
from refusal_guard_agents import refusal_guardrail

agents.set_tracing_disabled(True)


class City(BaseModel):
    city: str


@pytest.fixture
def run(server, detector):
    def run_agent(model, guardrail=None, **settings):
        async def within():
            async with AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
                chat = agents.OpenAIChatCompletionsModel(model, openai_client=client)
                agent = agents.Agent(
                    name="guide", model=chat, output_guardrails=[guardrail or refusal_guardrail(Guard(detector))], **settings
                )
                return await agents.Runner.run(agent, "What is the capital of France?")

        return asyncio.run(within())

    return run_agent


def test_a_refusal_trips_with_its_verdict(run, detector):
    with pytest.raises(agents.OutputGuardrailTripwireTriggered) as tripped:
        run("refuses")
    result = tripped.value.guardrail_result
    assert (result.guardrail.get_name(), result.output.output_info["label"]) == ("refusal_guard", "refusal")
    assert detector.seen[0].prompt == "What is the capital of France?"


def test_an_answer_passes_and_is_told(run, detector):
    hook = RecordingHook()
    assert run("answers", refusal_guardrail(Guard(detector, hooks=[hook]))).final_output == TEXTS["answers"]
    assert [(event.model, event.refused) for event in hook.events] == [("answers", False)]


def test_structured_output_is_not_judged(run, detector):
    assert run("parses", output_type=City).final_output == City(city="Paris")
    assert detector.seen == []


def test_a_guard_that_is_none_is_told_at_once():
    with pytest.raises(InputError, match="must be a Guard"):
        refusal_guardrail("embedded")


def test_the_readmes_example_tells_the_label(server):
    server.script.append("refuses")
    snippet = snippet_of("refusal_guard_agents").replace(
        "from refusal_guard_agents", "import agents\nagents.set_default_openai_api('chat_completions')\nfrom refusal_guard_agents"
    )
    assert printed(server, "-c", snippet)[-1] == "refusal"
