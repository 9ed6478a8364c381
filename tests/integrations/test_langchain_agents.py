"""The middleware in real agents: what becomes of refusals, what the state shows, and what stands beside it."""

import json

import pytest

pytest.importorskip("langchain")

from fake_models import ANSWER, CALLS_TOOL, DECLARED, REFUSAL, PromptBlockedError, ScriptedChatModel, StreamingChatModel, both_ways, text_of
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware, ModelRetryMiddleware, wrap_model_call
from langchain_core.messages import AIMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp

from refusal_guard import Fallback, Guard, InputError, Raise, Replace, Retry
from refusal_guard.testing import RecordingHook
from refusal_guard_langchain import RefusalDetectedError, RefusalGuardMiddleware, guard_model

QUESTION = "What is the capital of France?"
ASKED = {"messages": [("user", QUESTION)]}


def look_up(city: str) -> str:
    """Look a city up."""
    return f"{city} is the capital."


def agent(model, *middleware, **settings):
    return create_agent(model, [look_up], middleware=middleware, **settings)


def texts(state):
    return [message.text for message in state["messages"]]


def outcomes(state):
    return [record["outcome"] for record in state["refusal_guard"]]


@both_ways
def test_a_refusal_is_flagged_in_the_state(way, fixed, detector):
    state = way.invoke(agent(ScriptedChatModel(script=[REFUSAL]), RefusalGuardMiddleware(guard=fixed)), ASKED)
    [record] = state["refusal_guard"]
    assert texts(state) == [QUESTION, REFUSAL]
    assert (record["outcome"], record["message_id"], record["models"]) == ("flagged", state["messages"][-1].id, ["scripted"])
    assert record["attempts"][0]["verdict"]["refused"] is True
    assert detector.seen[0].prompt == QUESTION
    assert REFUSAL not in json.dumps(state["refusal_guard"])


@both_ways
def test_the_whole_conversation_is_judged_with_what_the_system_says(way, fixed, detector):
    way.invoke(agent(ScriptedChatModel(), RefusalGuardMiddleware(guard=fixed), system_prompt="Be brief."), ASKED)
    assert [message.role for message in detector.seen[0].messages] == ["system", "user", "assistant"]


@both_ways
def test_a_retry_says_the_nudge_and_only_the_last_answer_is_kept(way, fixed):
    model = ScriptedChatModel(script=[REFUSAL, ANSWER])
    state = way.invoke(
        agent(model, RefusalGuardMiddleware(guard=fixed, on_refusal="retry", nudge="Please do."), system_prompt="Be brief."), ASKED
    )
    assert (texts(state), outcomes(state)) == ([QUESTION, ANSWER], ["answered"])
    assert [message.text for message in model.asked[1]] == ["Be brief.", QUESTION, REFUSAL, "Please do."]
    assert [isinstance(message, SystemMessage) for message in model.asked[1]] == [True, False, False, False]


@both_ways
def test_retries_end_and_leave_the_refusal(way, fixed):
    model = ScriptedChatModel(script=[REFUSAL])
    state = way.invoke(agent(model, RefusalGuardMiddleware(guard=fixed, on_refusal="retry", max_retries=2)), ASKED)
    [record] = state["refusal_guard"]
    assert (len(model.asked), record["outcome"], record["stopped"], len(record["attempts"])) == (3, "flagged", "exhausted", 3)
    assert texts(state) == [QUESTION, REFUSAL]


@both_ways
def test_a_raised_refusal_falls_back_in_langchains_own_middleware(way, fixed):
    middleware = [ModelFallbackMiddleware(ScriptedChatModel(model_name="other")), RefusalGuardMiddleware(guard=fixed, on_refusal="raise")]
    state = way.invoke(agent(ScriptedChatModel(script=[REFUSAL]), *middleware), ASKED)
    assert (texts(state), outcomes(state)) == ([QUESTION, ANSWER], ["answered"])
    assert state["refusal_guard"][0]["models"] == ["other"]
    with pytest.raises(RefusalDetectedError) as raised:
        way.invoke(agent(ScriptedChatModel(script=[REFUSAL]), *middleware[1:]), ASKED)
    assert raised.value.raw_message.text == REFUSAL


@both_ways
def test_a_policy_combines_them(way, fixed):
    model = ScriptedChatModel(script=[REFUSAL])
    policy = Retry(1, nudge="Please do.", temperature=0.9).then(Raise())
    middleware = [ModelFallbackMiddleware(ScriptedChatModel()), RefusalGuardMiddleware(guard=fixed, on_refusal=policy)]
    assert texts(way.invoke(agent(model, *middleware), ASKED)) == [QUESTION, ANSWER]
    assert [options.get("temperature") for options in model.options] == [None, 0.9]


@both_ways
def test_langchains_retry_middleware_asks_again_where_it_is_told_to(way, fixed):
    guard = RefusalGuardMiddleware(guard=fixed, on_refusal="raise")
    retry = ModelRetryMiddleware(max_retries=1, retry_on=(RefusalDetectedError,), initial_delay=0)
    model = ScriptedChatModel(script=[REFUSAL, ANSWER])
    assert texts(way.invoke(agent(model, retry, guard), ASKED)) == [QUESTION, ANSWER]


class Later(AgentMiddleware):
    """What comes behind an answer; it must not run when the agent is to end."""

    def __init__(self):
        super().__init__()
        self.ran = 0

    def after_model(self, state, runtime):
        self.ran += 1


@both_ways
@pytest.mark.parametrize(("on_refusal", "ran"), [("replace", 1), ("end", 0)])
def test_something_else_is_said_and_the_agent_goes_on_or_ends(way, fixed, on_refusal, ran):
    later = Later()
    guard = RefusalGuardMiddleware(guard=fixed, on_refusal=on_refusal, replacement="Ask a colleague.")
    state = way.invoke(agent(ScriptedChatModel(script=[REFUSAL]), later, guard), ASKED)
    assert (texts(state), outcomes(state), later.ran) == ([QUESTION, "Ask a colleague."], ["replaced"], ran)
    assert state["refusal_guard"][0]["message_id"] == state["messages"][-1].id


@both_ways
def test_an_answer_goes_on_where_refusals_end(way, fixed):
    later = Later()
    state = way.invoke(agent(ScriptedChatModel(), later, RefusalGuardMiddleware(guard=fixed, on_refusal="end")), ASKED)
    assert (texts(state), later.ran) == ([QUESTION, ANSWER], 1)


@both_ways
def test_tool_calls_pass_and_every_answer_has_a_record(way, fixed):
    model = ScriptedChatModel(script=[CALLS_TOOL, REFUSAL])
    state = way.invoke(agent(model, RefusalGuardMiddleware(guard=fixed, on_refusal=Replace("Ask a colleague."))), ASKED)
    assert texts(state) == [QUESTION, CALLS_TOOL.text, "Paris is the capital.", "Ask a colleague."]
    assert [record["attempts"][0]["verdict"]["signal"] for record in state["refusal_guard"]] == ["tool_call", None]
    assert outcomes(state) == ["answered", "replaced"]


@both_ways
@pytest.mark.parametrize("form", DECLARED)
def test_what_the_provider_declares_is_treated_like_words(way, fixed, detector, form):
    model = ScriptedChatModel(script=[DECLARED[form], ANSWER])
    state = way.invoke(agent(model, RefusalGuardMiddleware(guard=fixed, on_refusal="retry")), ASKED)
    assert (texts(state), outcomes(state), len(detector.seen)) == ([QUESTION, ANSWER], ["answered"], 1)


@both_ways
def test_a_prompt_that_is_blocked_by_an_error_is_a_refusal(way, fixed):
    blocked = ScriptedChatModel(script=[PromptBlockedError()])
    with pytest.raises(PromptBlockedError):
        way.invoke(agent(blocked, RefusalGuardMiddleware(guard=fixed)), ASKED)
    state = way.invoke(agent(blocked, RefusalGuardMiddleware(guard=fixed, on_refusal="end", replacement="Ask a colleague.")), ASKED)
    assert (texts(state), outcomes(state)) == ([QUESTION, "Ask a colleague."], ["replaced"])


@both_ways
def test_what_the_graph_raises_to_be_interrupted_goes_through(way, fixed):
    model = ScriptedChatModel(script=[GraphBubbleUp()])
    with pytest.raises(GraphBubbleUp):
        way.invoke(agent(model, RefusalGuardMiddleware(guard=fixed, on_refusal="end")), ASKED)


@both_ways
def test_a_conversation_that_goes_on_keeps_its_records(way, fixed):
    guarded = agent(ScriptedChatModel(script=[REFUSAL, ANSWER]), RefusalGuardMiddleware(guard=fixed), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    way.invoke(guarded, ASKED, thread)
    assert outcomes(way.invoke(guarded, {**ASKED, "refusal_guard": [{"outcome": "forged"}]}, thread)) == ["flagged", "answered"]


@both_ways
def test_the_first_tokens_of_a_stream_are_held_by_a_guarded_model(way, fixed):
    model = StreamingChatModel(script=[REFUSAL, ANSWER])
    guarded = agent(guard_model(model, fixed, Retry(1), "gate"))
    shown = [message for message, _ in way.stream(guarded, ASKED, stream_mode="messages")]
    assert text_of(shown) == ANSWER


@both_ways
def test_what_a_guarded_model_has_judged_is_judged_once(way, detector):
    hook = RecordingHook()
    guard = Guard(detector, hooks=[hook])
    model = guard_model(ScriptedChatModel(script=[REFUSAL]), guard)
    state = way.invoke(agent(model, RefusalGuardMiddleware(guard=guard, on_refusal="replace")), ASKED)
    assert (outcomes(state), len(detector.seen), len(hook.events)) == (["replaced"], 1, 1)


def test_a_message_of_another_middleware_is_judged_too(fixed):
    @wrap_model_call
    def answers_itself(request, handler):
        return AIMessage(REFUSAL)

    state = agent(ScriptedChatModel(), RefusalGuardMiddleware(guard=fixed), answers_itself).invoke(ASKED)
    assert outcomes(state) == ["flagged"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"guard": "embedded"}, "must be a Guard"),
        ({"on_refusal": "explode"}, "flag, raise, retry, replace, end"),
        ({"on_refusal": ["flag"]}, "must be a policy"),
        ({"on_refusal": Fallback("gpt-5-mini")}, "ModelFallbackMiddleware"),
        ({"on_refusal": "retry", "max_retries": 0}, "at least 1"),
        ({"on_refusal": "retry", "nudge": ""}, "nudge"),
        ({"on_refusal": "end", "replacement": None}, "a text or a function"),
    ],
)
def test_bad_settings_are_told_at_once(settings, says):
    with pytest.raises(InputError, match=says):
        RefusalGuardMiddleware(**settings)
