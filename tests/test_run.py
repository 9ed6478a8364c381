"""Guarded calls: what is called, what comes back, what it carries, and what goes through untouched."""

import asyncio
import copy
import dataclasses
import functools
import json
import pickle
import threading
import time
from collections import defaultdict, namedtuple
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from refusal_guard import (
    Conversation,
    Fallback,
    Flag,
    Guard,
    InputError,
    Label,
    Raise,
    RefusalDetected,
    Replace,
    Report,
    Retry,
    When,
    report_of,
)
from refusal_guard.attempts import Stop, Usage
from refusal_guard.errors import DetectorError
from refusal_guard.testing import FixedDetector
from refusal_guard.verdict import Detection

NO, YES = "No, I can't.", "Sure: 42."
ASKED = [{"role": "user", "content": "What is it?"}]


def guarded(**settings):
    """A guard that takes texts starting with No for refusals."""
    return Guard(FixedDetector(lambda conversation: 0.9 if conversation.response.startswith("No") else 0.1), **settings)


def completion(*texts, usage=None, **message):
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}} for i, text in enumerate(texts)
    ]
    return {"model": "served", "choices": choices, "usage": usage}


class Script:
    """A call that answers from a list, the last entry again and again, and remembers what it was asked with."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, *, model="first", messages=None, temperature=None):
        given = {"messages": messages, "temperature": temperature}
        self.asked.append({"model": model, **{name: value for name, value in given.items() if value is not None}})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Blocked(Exception):
    """What an SDK raises for a prompt that the provider does not take."""

    code = "content_policy_violation"
    status_code = 400


def awaited(call):
    """The call as a coroutine function that takes the same keywords."""

    @functools.wraps(call)
    async def later(**changes):
        await asyncio.sleep(0)
        return call(**changes)

    return later


def run_sync(guard, call, **terms):
    return guard.run(call, **terms)


def run_async(guard, call, **terms):
    return asyncio.run(guard.arun(awaited(call), **terms))


both = pytest.mark.parametrize("run", [run_sync, run_async], ids=["run", "arun"])


# What comes back


@both
def test_an_answer_comes_back_with_its_report(run):
    response = run(guarded(), Script(YES), prompt="What is it?")
    report = report_of(response)
    assert response == YES
    assert (report.outcome, report.stopped, len(report.attempts)) == ("answered", Stop.ANSWERED, 1)
    assert not report.attempts[-1].verdict.refused
    assert report.models == ("first",)


@both
def test_flag_hands_a_refusal_over_and_says_so(run):
    response = run(guarded(), Script(NO))
    assert (response, report_of(response).outcome, report_of(response).stopped) == (NO, "flagged", Stop.POLICY)
    assert report_of(response).attempts[-1].verdict.label is Label.REFUSAL


@both
def test_raise_carries_verdict_response_and_report(run):
    answer = completion(NO)
    with pytest.raises(RefusalDetected) as caught:
        run(guarded(), Script(answer), policy=Raise())
    error = caught.value
    assert error.response is answer
    assert error.verdict.refused
    assert error.report.outcome == "raised"
    assert report_of(error) is error.report
    assert NO not in str(error)
    assert pickle.loads(pickle.dumps(error)).report == error.report


@both
def test_replace_by_a_text_or_a_function(run):
    replaced = run(guarded(), Script(NO), policy=Replace("Ask a person."))
    assert (replaced, report_of(replaced).outcome) == ("Ask a person.", "replaced")
    assert run(guarded(), Script(NO), policy=Replace(str.upper)) == NO.upper()
    assert run(guarded(), Script(YES), policy=Replace("Ask a person.")) == YES


# What is called


@both
def test_retry_asks_again_until_there_is_an_answer(run):
    call = Script(NO, NO, YES)
    response = run(guarded(), call, policy=Retry(3))
    assert response == YES
    assert len(call.asked) == 3
    assert [attempt.verdict.refused for attempt in report_of(response).attempts] == [True, True, False]


@both
def test_a_nudge_follows_the_refusal_in_the_conversation(run):
    call = Script(NO, YES)
    run(guarded(), call, prompt="What is it?", policy=Retry(1, nudge="Please try.", temperature=0.2))
    expected = [*ASKED, {"role": "assistant", "content": NO}, {"role": "user", "content": "Please try."}]
    assert call.asked == [{"model": "first"}, {"model": "first", "messages": expected, "temperature": 0.2}]


def test_a_second_nudge_answers_the_second_refusal_and_judging_stays_with_the_first_request():
    call, guard = Script(NO, "No, never.", YES), guarded()
    guard.run(call, messages=ASKED, policy=Retry(2, nudge="Please try."))
    assert [len(asked.get("messages", [])) for asked in call.asked] == [0, 3, 3]
    assert call.asked[2]["messages"][1]["content"] == "No, never."
    assert [conversation.prompt for conversation in guard.detector.seen] == ["What is it?"] * 3


@both
def test_fallback_asks_for_the_other_model_with_the_first_request(run):
    call = Script(NO, NO, YES)
    response = run(guarded(), call, messages=ASKED, policy=Retry(1, nudge="Please.").then(Fallback("other")))
    assert call.asked[-1] == {"model": "other"}
    assert report_of(response).models == ("first", "first", "other")


def test_a_retry_after_a_fallback_stays_with_the_fallback():
    call = Script(NO, NO, YES)
    guarded().run(call, policy=Fallback("other").then(Retry(1, temperature=1.0)))
    assert [asked["model"] for asked in call.asked] == ["first", "other", "other"]


def test_a_fallback_to_a_callable_takes_the_place_of_the_call_and_a_name_goes_to_the_call():
    first, second = Script(NO, NO, YES), Script(NO)
    guarded().run(first, policy=Fallback(second, model="big").then(Fallback("third")))
    assert second.asked == [{"model": "big"}]
    assert [asked["model"] for asked in first.asked] == ["first", "third"]


def test_partials_are_calls_whose_model_is_known():
    call = Script(completion(NO), completion(YES))
    response = guarded().run(functools.partial(call, model="mini", messages=ASKED), messages=ASKED, policy=Fallback("big"))
    assert [asked["model"] for asked in call.asked] == ["mini", "big"]
    assert report_of(response).models == ("mini", "big")


def test_the_model_a_response_names_is_told_when_none_was_asked_for():
    assert report_of(guarded().run(lambda: completion(YES))).models == ("served",)


def test_usage_is_summed_over_the_attempts_that_tell_it():
    openai, anthropic = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, {"input_tokens": 1, "output_tokens": 2}
    call = Script(completion(NO, usage=openai), completion(NO), completion(YES, usage=anthropic))
    report = report_of(guarded().run(call, policy=Retry(2)))
    assert report.usage == Usage(input_tokens=11, output_tokens=7, total_tokens=18)
    assert report_of(guarded().run(lambda: YES)).usage is None
    assert Report.model_validate_json(report.model_dump_json()) == report


# What providers declare


@both
def test_a_declared_refusal_needs_no_detector(run):
    guard = guarded()
    response = run(guard, Script(completion(None, refusal="I can't.")))
    attempt = report_of(response).attempts[-1]
    assert (attempt.verdict.refused, attempt.verdict.signal, attempt.signal.kind) == (True, "refusal", "refusal")
    assert guard.detector.seen == []


def test_a_declared_refusal_is_not_sent_again_and_the_report_says_why():
    call = Script(completion(None, refusal="I can't."))
    report = report_of(guarded().run(call, policy=Retry(3)))
    assert (len(call.asked), report.stopped) == (1, Stop.UNCHANGED)


def test_a_function_that_declared_is_not_fallen_back_to():
    declines = completion(None, refusal="I can't.")
    call, other = Script(declines), Script(declines)
    report = report_of(guarded().run(call, policy=Fallback(call, other).then(Fallback(other))))
    assert (len(call.asked), len(other.asked), report.stopped) == (1, 1, Stop.UNCHANGED)


def test_what_was_declared_is_not_sent_again_after_a_nudge_that_was_answered_in_words():
    call = Script(completion(None, refusal="I can't."), completion(NO), completion(YES))
    report = report_of(guarded().run(call, prompt="What is it?", policy=Retry(1, nudge="Please.").then(Retry(1))))
    assert (len(call.asked), report.stopped) == (2, Stop.UNCHANGED)


def test_a_retry_around_a_guarded_call_does_not_repeat_what_was_declared_inside():
    call = Script(completion(None, refusal="I can't."), completion(NO), completion(YES))
    inside = lambda: guarded().run(call, policy=Fallback("other"))  # noqa: E731
    report = report_of(guarded().run(inside, policy=Retry(1)))
    assert (len(call.asked), report.stopped) == (2, Stop.UNCHANGED)


def test_a_declared_refusal_is_quoted_before_a_nudge():
    call = Script(completion(None, refusal="I can't."), completion(YES))
    guarded().run(call, prompt="What is it?", policy=Retry(1, nudge="Please."))
    assert call.asked[1]["messages"][1:] == [{"role": "assistant", "content": "I can't."}, {"role": "user", "content": "Please."}]


def test_a_filtered_answer_has_no_message_to_quote():
    filtered = completion("")
    filtered["choices"][0]["finish_reason"] = "content_filter"
    call = Script(filtered, completion(YES))
    guarded().run(call, prompt="What is it?", policy=Retry(1, nudge="Please."))
    assert [message["role"] for message in call.asked[1]["messages"]] == ["user", "user"]


@both
def test_a_blocked_prompt_is_decided_by_the_policy(run):
    error = Blocked("blocked")
    with pytest.raises(Blocked) as flagged:
        run(guarded(), Script(error))
    assert flagged.value is error
    assert report_of(error).attempts[-1].verdict.signal == "blocked"
    with pytest.raises(RefusalDetected) as raised:
        run(guarded(), Script(Blocked()), policy=Raise())
    assert isinstance(raised.value.__cause__, Blocked)
    assert raised.value.response is None
    response = run(guarded(), Script(Blocked(), YES), policy=Retry(5).then(Fallback("other")))
    assert (response, report_of(response).attempts[0].raised) == (YES, "Blocked")
    assert run(guarded(), Script(Blocked()), policy=Replace(repr)) == "None"


def test_moderation_that_did_not_run_is_told_and_is_no_refusal():
    answer = completion(YES) | {"moderation": {"input": {"type": "error", "code": "server_error", "message": "x"}}}
    report = report_of(guarded().run(lambda: answer))
    assert (report.outcome, report.attempts[0].signal.kind, report.attempts[0].verdict.signal) == ("answered", "not_run", None)


def test_of_several_choices_all_must_be_refused_or_any():
    guard = guarded()
    mixed = guard.run(lambda: completion(NO, YES))
    assert not report_of(mixed).attempts[0].verdict.refused
    assert [verdict.refused for verdict in report_of(mixed).attempts[0].verdicts] == [True, False]
    assert report_of(guard.run(lambda: completion(NO, YES), refused_when="any")).attempts[0].verdict.refused
    assert report_of(guard.run(lambda: completion(NO, NO))).attempts[0].verdict.refused


def test_a_choice_that_the_provider_refused_keeps_its_own_verdict():
    answer = completion(YES, None)
    answer["choices"][1]["message"]["refusal"] = "I can't."
    verdicts = report_of(guarded().run(lambda: answer)).attempts[0].verdicts
    assert [(verdict.refused, verdict.signal) for verdict in verdicts] == [(False, None), (True, "refusal")]


# What goes through untouched


@both
@pytest.mark.parametrize("error", [TimeoutError("slow"), ValueError("bad"), ConnectionResetError()])
def test_errors_of_the_call_go_through_unchanged(run, error):
    with pytest.raises(type(error)) as caught:
        run(guarded(), Script(error), policy=Retry(3).then(Fallback("b")))
    assert caught.value is error


def test_an_exhausted_iterator_in_the_call_is_an_error_like_others():
    end = StopIteration("end")
    with pytest.raises(StopIteration) as caught:
        guarded().run(Script(end), policy=Retry(3))
    assert caught.value is end


@both
def test_an_error_after_a_refusal_tells_what_was_tried(run):
    error = TimeoutError("slow")
    with pytest.raises(TimeoutError) as caught:
        run(guarded(), Script(NO, error), policy=Fallback("b"))
    assert caught.value is error
    assert (report_of(error).outcome, report_of(error).stopped, len(report_of(error).attempts)) == ("failed", Stop.ERROR, 1)


@both
@pytest.mark.parametrize(("on_error", "refused"), [("pass", False), ("refuse", True)])
def test_a_failing_detector_follows_on_error(run, on_error, refused):
    def broken(_conversation):
        raise RuntimeError

    response = run(Guard(FixedDetector(broken), on_error=on_error), Script(YES))
    assert report_of(response).attempts[0].verdict.refused is refused
    assert "RuntimeError" in report_of(response).attempts[0].verdict.error
    with pytest.raises(DetectorError):
        run(Guard(FixedDetector(broken)), Script(YES))


@dataclasses.dataclass(frozen=True)
class Frozen:
    content: str


class Model(BaseModel, frozen=True):
    content: str


class Plain:
    def __init__(self, content):
        self.content = content


@pytest.mark.parametrize("make", [Frozen, Plain, lambda text: Model(content=text), lambda text: SimpleNamespace(content=text)])
def test_objects_come_back_as_the_same_object(make):
    answer = make(NO)
    response = guarded().run(lambda: answer)
    assert response is answer
    assert report_of(response).outcome == "flagged"
    assert report_of(copy.copy(response)) == report_of(response)
    if isinstance(answer, Model):
        assert response.model_dump() == {"content": NO}


@pytest.mark.parametrize("answer", [NO, completion(NO), [{"role": "assistant", "content": NO}], ({"role": "assistant", "content": NO},)])
def test_builtins_come_back_equal_and_of_a_subclass(answer):
    response = guarded().run(lambda: answer)
    assert response == answer
    assert isinstance(response, type(answer))
    assert json.dumps(response) == json.dumps(answer)
    assert report_of(pickle.loads(pickle.dumps(response))) == report_of(response)
    with pytest.raises(InputError, match="no report"):
        report_of(answer)


class Slotted:
    __slots__ = ("content",)


def test_what_can_carry_no_report_comes_back_as_it_is():
    slotted = Slotted()
    slotted.content = YES
    for answer in (slotted, None, defaultdict(list, completion(YES)), namedtuple("Said", "role content")("assistant", YES)):
        response = guarded().run(lambda answer=answer: answer, read=lambda _: YES)
        assert response is answer
        with pytest.raises(InputError, match="no report"):
            report_of(response)


@pytest.mark.parametrize("thing", ["text", 3, None, object(), ValueError(), SimpleNamespace(_refusal_guard_report="x")])
def test_what_is_from_no_guarded_call_has_no_report(thing):
    with pytest.raises(InputError, match=type(thing).__name__):
        report_of(thing)


# What can be read


def part(text):
    return SimpleNamespace(type="text", text=text)


READABLE = {
    "text": NO,
    "conversation": Conversation.from_pair("p", NO),
    "messages": [*ASKED, {"role": "assistant", "content": NO}],
    "answer only": [{"role": "assistant", "content": NO}],
    "chat body": completion(NO),
    "chat object": SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=NO, role="assistant", tool_calls=None))]),
    "completions": {"choices": [{"text": NO, "finish_reason": "stop"}]},
    "responses": {"output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": [{"type": "output_text", "text": NO}]}]},
    "anthropic": SimpleNamespace(type="message", role="assistant", content=[SimpleNamespace(type="thinking", thinking="Hm"), part(NO)]),
    "langchain": SimpleNamespace(type="ai", content=NO, tool_calls=[]),
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hm", "thought": True}, {"text": NO}]}}]},
    "bedrock": {"output": {"message": {"role": "assistant", "content": [{"text": NO}]}}, "stopReason": "end_turn"},
    "parts that are plain strings": {"role": "assistant", "content": [NO]},
    "ollama": {"message": {"role": "assistant", "content": NO}, "done_reason": "stop"},
    "cohere": SimpleNamespace(message=SimpleNamespace(role="assistant", content=[part(NO)])),
}


@pytest.mark.parametrize("name", READABLE)
def test_responses_of_many_shapes_are_read(name):
    guard = guarded()
    with pytest.raises(RefusalDetected):
        guard.run(lambda: READABLE[name], policy=Raise())
    assert guard.detector.seen[0].response == NO


TOOLS = [
    completion(None, tool_calls=[{"id": "1", "type": "function"}]),
    {"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1"}], "type": "message"},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]},
    {"output": {"message": {"content": [{"toolUse": {"name": "f"}}]}}},
]
TOOLS += [
    completion("No direct access, so I look it up.", tool_calls=[{"id": "1", "type": "function"}]),
    {"role": "assistant", "content": [{"type": "text", "text": NO}, {"type": "tool_use", "id": "1"}], "type": "message"},
    {"output": [{"type": "message", "content": [{"type": "output_text", "text": NO}]}, {"type": "function_call", "name": "f"}]},
]
EMPTY = [
    None,
    "",
    completion(None),
    completion(""),
    {"choices": None},
    {"choices": []},
    {"choices": [None]},
    {"error": {"code": 502, "message": "upstream"}},
    {"output": []},
    {"candidates": None},
    completion([{"type": "hologram"}]),
]


@pytest.mark.parametrize("answer", TOOLS)
def test_a_tool_call_is_no_refusal(answer):
    verdict = report_of(guarded().run(lambda: answer)).attempts[0].verdict
    assert (verdict.refused, verdict.signal) == (False, "tool_call")


def test_an_answer_after_a_tool_that_the_provider_ran_is_judged():
    searched = {"role": "assistant", "content": [{"type": "server_tool_use", "id": "1"}, {"type": "text", "text": NO}], "type": "message"}
    assert report_of(guarded().run(lambda: searched)).outcome == "flagged"


@pytest.mark.parametrize("answer", EMPTY)
def test_an_answer_without_a_text_is_empty_and_no_refusal(answer):
    guard, seen = guarded(), []
    guard.run(lambda: answer, policy=Replace(seen.append, when=When(signal="empty")))
    assert seen == [answer]


def test_read_takes_the_text_from_what_is_not_known():
    response = guarded().run(lambda: Slotted(), read=lambda _: NO, policy=Replace("read"))
    assert response == "read"


def test_what_a_provider_withheld_needs_not_be_readable():
    response = guarded().run(lambda: {"action": "GUARDRAIL_INTERVENED", "assessments": []})
    assert report_of(response).attempts[0].verdict.signal == "blocked"


def test_a_declared_refusal_is_seen_although_read_would_only_take_the_text():
    guard = guarded()
    refused = completion(None, refusal="I can't.")
    assert guard.run(lambda: refused, read=lambda body: body["choices"][0]["message"]["content"].strip(), policy=Replace("seen")) == "seen"


@pytest.mark.parametrize("answer", [object(), 3, b"bytes", {"a": 1}, iter(["chunk"])])
def test_what_cannot_be_read_says_to_pass_read(answer):
    with pytest.raises(InputError, match="read="):
        guarded().run(lambda: answer)


def test_an_http_response_says_how_to_read_it():
    with pytest.raises(InputError, match="json"):
        guarded().run(lambda: SimpleNamespace(status_code=200, text='{"choices": []}', content=b""))


# What fails before anything is called


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"policy": None}, "policy"),
        ({"policy": Raise}, "policy"),
        ({"policy": Retry(nudge="n")}, "prompt="),
        ({"prompt": "p", "messages": ASKED}, "not both"),
        ({"prompt": b"p"}, "string"),
        ({"messages": "text"}, "prompt="),
        ({"messages": [3, object()], "policy": Retry(nudge="n")}, "keyword"),
        ({"read": "text"}, "read"),
        ({"refused_when": "most"}, "all, any"),
        ({"policy": Fallback("b")}, "keyword"),
        ({"policy": Retry(temperature=1)}, "temperature"),
        ({"policy": Fallback(SimpleNamespace())}, "adapter"),
        ({"policy": Fallback(lambda: YES, model="b")}, "model"),
    ],
)
def test_terms_that_cannot_work_fail_before_the_call(terms, match):
    called = []
    with pytest.raises(InputError, match=match):
        guarded().run(lambda: called.append(1) or NO, **terms)
    assert not called


def test_a_retry_behind_a_fallback_that_may_be_passed_over_is_checked_for_both():
    policy = Fallback(Script(YES), when=When(label=Label.PARTIAL)).then(Retry(temperature=1.0))
    with pytest.raises(InputError, match="temperature"):
        guarded().run(lambda: NO, policy=policy)


def test_a_builtin_that_shows_no_signature_is_called():
    assert guarded().run(dict, policy=Fallback("b"), read=lambda body: YES if body else NO) == {"model": "b"}


@pytest.mark.parametrize("call", [None, "text", 3])
def test_a_call_that_is_none_is_an_input_error(call):
    with pytest.raises(InputError, match="callable"):
        guarded().run(call)


def test_a_coroutine_function_in_run_says_to_use_arun():
    async def call():
        return YES

    with pytest.raises(InputError, match="arun"):
        guarded().run(call)


# Bounds and time


def test_the_deadline_is_told_by_the_clock_that_was_passed():
    now = iter(range(0, 1000, 10))
    call = Script(NO)
    report = report_of(guarded().run(call, policy=Retry(50).within(seconds=95), clock=lambda: next(now)))
    assert report.stopped is Stop.DEADLINE
    assert len(call.asked) == 4  # the clock is read three times an attempt
    assert {attempt.seconds for attempt in report.attempts} == {10.0}


ENDINGS = st.sampled_from([None, Flag(), Raise(), Replace("x")])
STEPS = st.lists(
    st.one_of(
        st.builds(Retry, st.integers(1, 3), temperature=st.sampled_from([None, 1.0])), st.sampled_from([Fallback("b"), Fallback("c", "d")])
    ),
    max_size=3,
)


@given(STEPS, ENDINGS, st.none() | st.integers(1, 4), st.lists(st.sampled_from([NO, YES, "", Blocked()]), min_size=1, max_size=8))
def test_calls_stay_within_bounds_and_nothing_comes_out_after_a_reject(steps, ending, attempts, answers):
    policies = [*steps, *([] if ending is None else [ending])] or [Flag()]
    policy = functools.reduce(lambda one, other: one.then(other), policies).within(attempts=attempts)
    call = Script(*answers)
    try:
        response = guarded().run(call, policy=policy)
    except RefusalDetected as error:
        assert ending == Raise()
        report = error.report
    except Blocked as error:
        report = report_of(error)
        assert report.attempts[-1].verdict.signal == "blocked"
    else:
        report = report_of(response)
        refused = report.attempts[-1].verdict.refused
        assert not (refused and ending == Raise())
        assert (report.outcome == "answered") is not refused
    granted = sum(step.n if isinstance(step, Retry) else 1 for step in policy.steps if isinstance(step, Retry | Fallback))
    assert len(call.asked) == len(report.attempts) <= min(1 + granted, attempts or 99)


# Guards inside guards


@both
def test_what_a_guard_inside_has_judged_is_not_judged_again(run):
    inner, outer = guarded(), guarded()
    call = Script(NO, NO, YES)
    response = run(outer, lambda: inner.run(call, policy=Retry(1)), policy=Retry(1))
    assert response == YES
    assert (len(inner.detector.seen), outer.detector.seen) == (3, [])
    assert [attempt.verdict.refused for attempt in report_of(response).attempts] == [True, True, False]


def test_attempts_of_a_guard_inside_use_up_no_retries_of_the_one_outside():
    inner, call = guarded(), Script(NO)
    report = report_of(guarded().run(lambda: inner.run(call, policy=Retry(1)), policy=Retry(2)))
    assert len(call.asked) == len(report.attempts) == 6
    assert [attempt.step for attempt in report.attempts] == [-1, -1, -1, 0, -1, 0]


def test_a_guard_inside_that_raises_is_a_refusal_for_the_one_outside():
    inner = guarded()
    response = guarded().run(lambda: inner.run(lambda: NO, policy=Raise()), policy=Fallback(lambda: YES))
    assert response == YES
    assert len(report_of(response).attempts) == 2
    with pytest.raises(RefusalDetected) as caught:
        guarded().run(lambda: inner.run(lambda: NO, policy=Raise()), policy=Raise())
    assert caught.value.response == NO


def test_a_response_from_an_earlier_guarded_call_is_judged_anew():
    answer = Plain(NO)
    guarded().run(lambda: answer)
    fresh = Guard(FixedDetector(0.0))
    assert not report_of(fresh.run(lambda: answer)).attempts[-1].verdict.refused
    assert len(report_of(answer).attempts) == 1


# Async


class Awaiting:
    name = "awaiting"

    def __init__(self, answer=0.9):
        self.answer, self.threads = answer, set()

    def detect(self, conversations):
        raise AssertionError("arun awaits adetect")

    async def adetect(self, conversations):
        await asyncio.sleep(0)
        self.threads.add(threading.current_thread())
        if isinstance(self.answer, Exception):
            raise self.answer
        return [Detection(score=self.answer, detector=self.name) for _ in conversations]


def test_a_detector_that_can_be_awaited_is():
    detector = Awaiting()
    response = asyncio.run(Guard(detector).arun(awaited(Script(NO))))
    assert report_of(response).attempts[0].verdict.refused
    assert detector.threads == {threading.main_thread()}
    with pytest.raises(DetectorError, match="RuntimeError"):
        asyncio.run(Guard(Awaiting(RuntimeError())).arun(awaited(Script(NO))))
    passed = asyncio.run(Guard(Awaiting(RuntimeError()), on_error="refuse").arun(awaited(Script(NO))))
    assert report_of(passed).attempts[0].verdict.refused
    empty = asyncio.run(Guard(Awaiting(AssertionError())).arun(awaited(Script(""))))
    assert report_of(empty).attempts[0].verdict.signal == "empty"


def test_other_detectors_do_not_hold_up_the_event_loop():
    entered, release = threading.Event(), threading.Event()

    def slow(_conversation):
        entered.set()
        assert release.wait(30)
        return 0.9

    async def scenario():
        task = asyncio.create_task(Guard(FixedDetector(slow)).arun(awaited(Script(NO))))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        release.set()  # reached only because the loop goes on while the detector works
        return await task

    assert report_of(asyncio.run(scenario())).outcome == "flagged"


def test_a_plain_function_as_a_fallback_of_an_awaited_call():
    assert asyncio.run(guarded().arun(awaited(Script(NO)), policy=Fallback(lambda: YES))) == YES


def test_cancelling_reaches_the_call_at_once_and_starts_no_other():
    async def scenario():
        started, cancelled, calls = asyncio.Event(), [], []

        async def call():
            calls.append(1)
            started.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

        task = asyncio.create_task(guarded().arun(call, policy=Retry(5)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (cancelled, calls) == ([1], [1])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_a_timeout_around_a_guarded_call_ends_it():
    async def scenario():
        async with asyncio.timeout(0.01):
            await guarded().arun(lambda: asyncio.sleep(3600), policy=Retry(5))

    before = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert time.monotonic() - before < 600


def test_sixteen_threads_and_sixty_four_tasks_on_one_guard_keep_their_own_reports():
    guard = guarded()

    def call(i):
        return f"No, not {i}." if i % 2 else f"Sure: {i}."

    async def tasks():
        return await asyncio.gather(*(guard.arun(awaited(lambda i=i: call(i)), policy=Flag()) for i in range(64)))

    found = [None] * 16
    threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, guard.run(lambda: call(i)))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, response in [*enumerate(found), *enumerate(asyncio.run(tasks()))]:
        assert response == call(i)
        assert report_of(response).attempts[0].verdict.refused == bool(i % 2)
        assert len(report_of(response).attempts) == 1


# Privacy


def test_a_report_holds_no_text_but_the_providers_explanation():
    secret = "No, the secret is out."
    report = report_of(guarded().run(Script(secret), prompt="A secret question", policy=Retry(1)))
    assert "secret" not in report.model_dump_json()
    declared = report_of(guarded().run(Script(completion(None, refusal="A secret reason."))))
    assert "secret" not in repr(declared)


def test_an_sdks_empty_fields_for_calls_are_no_call():
    message = SimpleNamespace(role="assistant", content=NO, refusal=None, tool_calls=None, function_call=None)
    response = SimpleNamespace(choices=[SimpleNamespace(index=0, message=message, finish_reason="stop")])
    assert report_of(Guard(FixedDetector(0.9)).run(lambda: response)).attempts[0].verdict.refused
