"""What is told of a judged response: one event each, whoever judged, with what was decided and no text."""

import asyncio
import copy
import functools
import json
import pickle
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal_guard import (
    Fallback,
    Guard,
    InputError,
    NoRefusal,
    Raise,
    RefusalDetected,
    Replace,
    Retry,
    ScanEvent,
    When,
)
from refusal_guard.bulk import Scan
from refusal_guard.errors import DetectorError
from refusal_guard.events import tagged
from refusal_guard.testing import FixedDetector, RecordingHook

NO, YES = "No, I can't.", "Sure: 42."
CANARY = "canary-7c1f"


def failing(conversation):
    raise RuntimeError(f"could not read {conversation.response}")


def guarded(hook, **settings):
    """A guard that takes texts starting with No for refusals."""
    return Guard(FixedDetector(lambda conversation: 0.9 if conversation.response.startswith("No") else 0.1), hooks=[hook], **settings)


def run(guard, call, awaiting=False, **settings):
    if not awaiting:
        return guard.run(call, **settings)

    @functools.wraps(call)
    async def acall(**changes):
        return call(**changes)

    return asyncio.run(guard.arun(acall, **settings))


either = pytest.mark.parametrize("awaiting", [False, True], ids=["run", "arun"])


def answering(*answers):
    """A call that gives one answer after the other; errors are raised."""
    left = list(answers)

    def call(*, model="small", messages=None):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


class ProviderError(Exception):
    """An error as SDKs raise it."""

    def __init__(self, status_code, body):
        super().__init__("refused")
        self.status_code, self.body = status_code, body


BLOCKED = ProviderError(400, {"code": "content_filter", "innererror": {"content_filter_result": {"hate": {"filtered": True}}}})
NOT_RUN = ProviderError(403, {"message": "moderation guardrail failed: timeout"})
FLAGGED = {"moderation": {"input": {"flagged": True, "categories": {"hate": True}}}}
UNMODERATED = {"moderation": {"output": {"type": "error", "code": "timeout"}}}


@pytest.fixture
def hook():
    return RecordingHook()


def test_a_scan_is_one_event_with_the_verdict(hook):
    before = time.time()
    verdict = guarded(hook).scan("What is it?", NO)
    (event,) = hook.events
    shared = set(type(verdict).model_fields) & set(ScanEvent.model_fields)
    assert shared >= {"label", "score", "threshold", "refused", "detector", "reason", "signal", "error"}
    assert all(getattr(event, name) == getattr(verdict, name) for name in shared)
    assert before <= event.time <= time.time()
    assert (event.action, event.attempt, event.stage, event.model) == ("scanned", 1, "output", None)
    assert 0.0 < event.latency < 60.0


def test_many_scans_are_an_event_each_in_order(hook):
    guarded(hook).scan_many([("", NO), ("", YES), ("", ""), [{"role": "assistant", "refusal": "No."}]])
    assert [(event.label.value, event.signal) for event in hook.events] == [
        ("refusal", None),
        ("compliance", None),
        ("unknown", "empty"),
        ("refusal", "refusal"),
    ]


def test_events_are_frozen_and_have_a_schema(hook):
    guarded(hook).scan("", NO)
    with pytest.raises(ValueError, match="frozen"):
        hook.events[0].label = "compliance"
    assert ScanEvent.model_validate_json(hook.events[0].model_dump_json()) == hook.events[0]
    assert "score" in json.dumps(ScanEvent.model_json_schema())


@either
@pytest.mark.parametrize(
    ("answers", "policy", "told"),
    [
        ([YES], Raise(), [("compliance", "answered")]),
        ([NO], Retry(1).within(attempts=1), [("refusal", "flagged")]),
        ([NO, NO, YES], Retry(1).then(Fallback("large")), [("refusal", "retried"), ("refusal", "fell_back"), ("compliance", "answered")]),
        ([NO, YES], Fallback(lambda: YES), [("refusal", "fell_back"), ("compliance", "answered")]),
        ([NO], Replace("Sorry."), [("refusal", "replaced")]),
        ([NO, NO], Retry(1).then(Raise()), [("refusal", "retried"), ("refusal", "raised")]),
        ([""], Replace("Sorry.", when=When(signal="empty")), [("unknown", "replaced")]),
    ],
)
def test_each_attempt_is_an_event_with_what_was_decided(hook, awaiting, answers, policy, told):
    try:
        run(guarded(hook), answering(*answers), awaiting, policy=policy)
    except RefusalDetected:
        assert told[-1][1] == "raised"
    assert [(event.label.value, event.action) for event in hook.events] == told
    assert [event.attempt for event in hook.events] == list(range(1, len(told) + 1))


def test_attempts_name_the_model_that_was_asked(hook):
    run(guarded(hook), answering(NO, YES), policy=Fallback("large"))
    assert [event.model for event in hook.events] == ["small", "large"]


@either
def test_a_blocked_prompt_is_an_event(hook, awaiting):
    with pytest.raises(ProviderError):
        run(guarded(hook), answering(BLOCKED), awaiting)
    (event,) = hook.events
    assert (event.label, event.signal, event.stage, event.action) == ("refusal", "blocked", "input", "flagged")
    assert event.provider is not None
    assert event.category == "hate"


@either
def test_a_moderation_that_did_not_run_is_an_event(hook, awaiting):
    with pytest.raises(ProviderError):
        run(guarded(hook), answering(NO, NOT_RUN), awaiting, policy=Retry(1))
    first, second = hook.events
    assert (first.label, first.action, first.model, first.attempt) == ("refusal", "retried", "small", 1)
    assert (second.label, second.action, second.model, second.attempt) == ("unknown", "failed", "small", 2)
    assert (second.signal, second.provider, second.stage, second.error) == ("not_run", "mistral", "guard", None)


@either
@pytest.mark.parametrize(
    ("declared", "told"), [(FLAGGED, ("flagged", "input", "hate")), (UNMODERATED, ("not_run", "guard", "timeout"))], ids=["flag", "error"]
)
@pytest.mark.parametrize(("text", "label"), [(YES, "compliance"), (NO, "refusal"), ("", "unknown")])
def test_a_moderation_that_let_the_answer_pass_is_told_beside_the_verdict(hook, awaiting, declared, told, text, label):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    run(guarded(hook), answering({"choices": [choice], **declared}), awaiting)
    (event,) = hook.events
    assert (event.label, event.provider) == (label, "openai")
    assert (event.signal, event.stage, event.category) == told


@either
def test_an_error_of_the_call_that_refuses_nothing_is_no_event(hook, awaiting):
    with pytest.raises(TimeoutError):
        run(guarded(hook), answering(TimeoutError()), awaiting)
    assert hook.events == []


@either
def test_a_guard_that_failed_is_an_event_before_its_error_goes_through(hook, awaiting):
    guard = Guard(FixedDetector(failing), hooks=[hook])
    with pytest.raises(DetectorError):
        run(guard, answering(YES), awaiting)
    with pytest.raises(DetectorError):
        guard.scan_many([("", YES), ("", NO)])
    assert [(event.label, event.action, event.stage) for event in hook.events] == [("unknown", "failed", "guard")] * 3
    assert {event.error for event in hook.events} == {"detector fixed failed: RuntimeError"}


@pytest.mark.parametrize(("on_error", "action"), [("pass", "answered"), ("refuse", "flagged")])
def test_a_guard_that_failed_open_or_closed_is_an_event(hook, on_error, action):
    Guard(FixedDetector(failing), hooks=[hook], on_error=on_error).run(lambda: YES)
    (event,) = hook.events
    assert (event.action, event.stage, event.error) == (action, "guard", "detector fixed failed: RuntimeError")


def test_of_several_choices_the_one_that_counts_is_told(hook):
    choices = [{"index": i, "message": {"role": "assistant", "content": text}} for i, text in enumerate([YES, NO])]
    guard = guarded(hook, include_text=True)
    guard.run(lambda: {"choices": choices})
    guard.run(lambda: {"choices": choices}, refused_when="any")
    assert [(event.label, event.response) for event in hook.events] == [("compliance", YES), ("refusal", NO)]


def test_a_guarded_call_inside_another_is_told_once(hook):
    guard = guarded(hook)
    guard.run(lambda: guard.run(lambda: NO))
    with pytest.raises(ProviderError):
        guard.run(lambda: guard.run(answering(NOT_RUN)))
    with pytest.raises(ProviderError):
        guard.run(lambda: guard.run(answering(NO, NOT_RUN), policy=Retry(1)))
    assert [event.signal for event in hook.events] == [None, "not_run", None, "not_run"]


def test_a_guarded_call_inside_another_that_tells_nobody_is_told_outside(hook):
    inner = Guard(FixedDetector(0.9))
    guarded(hook).run(lambda: inner.run(lambda: NO))
    with pytest.raises(ProviderError):
        guarded(hook).run(lambda: inner.run(answering(NOT_RUN)))
    assert [(event.label, event.signal) for event in hook.events] == [("refusal", None), ("unknown", "not_run")]


@pytest.mark.parametrize("match_type", ["full", "sentence"])
@pytest.mark.parametrize(("output", "label"), [("Well. No, I can't. Bye.", "refusal"), ("", "unknown")])
def test_no_refusal_tells_once_for_each_output(hook, match_type, output, label):
    detector = FixedDetector(lambda conversation: 0.9 if "No" in conversation.response else 0.1)
    NoRefusal(detector=detector, match_type=match_type, hooks=[hook]).scan("p", output)
    assert [event.label for event in hook.events] == [label]


def test_a_bulk_scan_is_an_event_for_each_row_with_something_to_judge(hook, tmp_path):
    rows = [{"prompt": "p", "response": text} for text in [NO, YES, ""]] + [{"prompt": "no response"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Scan(guarded(hook), [str(source)], tmp_path / "out.jsonl").run()
    assert [event.label for event in hook.events] == ["refusal", "compliance", "unknown"]


@either
def test_the_app_says_route_conversation_and_model(hook, awaiting):
    guard = guarded(hook, route="search")
    with tagged(route="checkout", conversation_id="c-1"), tagged(model="mine"):
        run(guard, answering(YES), awaiting)
        guard.scan("", YES)
    guard.scan("", YES)
    told = [(event.route, event.conversation_id, event.model) for event in hook.events]
    assert told == [("checkout", "c-1", "small"), ("checkout", "c-1", "mine"), ("search", None, None)]


def test_tags_are_the_tasks_own(hook):
    guard = guarded(hook)

    async def task(name):
        with tagged(conversation_id=name):
            await asyncio.sleep(0)
            guard.scan("", name)

    async def main():
        await asyncio.gather(*(task(str(number)) for number in range(50)))

    asyncio.run(main())
    assert sorted(event.conversation_id for event in hook.events) == sorted(map(str, range(50)))


@pytest.mark.parametrize("setting", ["route", "conversation_id", "model"])
@pytest.mark.parametrize("value", ["", " ", 7, b"x"])
def test_tags_that_are_no_names_are_refused(setting, value):
    with pytest.raises(InputError, match=setting), tagged(**{setting: value}):
        pass


@pytest.mark.parametrize("hooks", [7, "print", print, [None], ["print"], [RecordingHook]], ids=str)
def test_what_is_no_list_of_hooks_is_refused(hooks):
    with pytest.raises(InputError, match="ScanEvent"):
        Guard(FixedDetector(0.1), hooks=hooks)


async def coroutine_hook(event):
    pass


class AwaitingHook:
    async def __call__(self, event):
        pass


@pytest.mark.parametrize("hook", [coroutine_hook, AwaitingHook()], ids=["function", "object"])
def test_a_coroutine_function_is_refused_as_a_hook(hook):
    with pytest.raises(InputError, match="plain function"):
        Guard(FixedDetector(0.1), hooks=[hook])


@pytest.mark.parametrize("settings", [{"route": ""}, {"route": 3}, {"redact": str.upper}, {"redact": "x", "include_text": True}], ids=str)
def test_settings_of_events_that_make_no_sense_are_refused(settings):
    with pytest.raises(InputError):
        Guard(FixedDetector(0.1), **settings)


def test_events_hold_text_only_when_asked(hook):
    guarded(hook).scan("What is it?", NO)
    guarded(hook, include_text=True).scan("What is it?", NO)
    assert [(event.prompt, event.response) for event in hook.events] == [(None, None), ("What is it?", NO)]
    assert NO not in repr(hook.events)


def test_a_blocked_prompt_has_its_text_when_asked(hook):
    with pytest.raises(ProviderError):
        guarded(hook, include_text=True).run(answering(BLOCKED), prompt="What is it?")
    assert [(event.prompt, event.response) for event in hook.events] == [("What is it?", "")]


def test_texts_are_redacted_whole_and_then_cut(hook):
    long = "x" * 1_995 + CANARY
    guarded(hook, include_text=True, redact=lambda text: text.replace(CANARY, "***")).scan(long, long + "y" * 100)
    (event,) = hook.events
    assert (len(event.prompt), len(event.response)) == (1_998, 2_000)
    assert event.response.endswith("***yy")


FAILING = {"raises": lambda text: 1 / 0, "exits": lambda text: sys.exit(), "none": lambda text: None, "number": lambda text: 7}


@pytest.mark.parametrize("redact", FAILING.values(), ids=FAILING)
def test_a_redaction_that_fails_leaves_the_text_out(hook, caplog, redact):
    guard = guarded(hook, include_text=True, redact=redact)
    guard.scan_many([(CANARY, NO)] * 3)
    assert [(event.prompt, event.response) for event in hook.events] == [(None, None)] * 3
    assert guard.events.redaction_failures == 3
    assert caplog.text.count("redaction") == 1
    assert CANARY not in caplog.text


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
@settings(max_examples=25)
def test_no_text_gets_into_an_event_by_default(pairs):
    hook = RecordingHook()
    guarded(hook).scan_many([(f"{prompt}{CANARY}", f"{response}{CANARY}") for prompt, response in pairs])
    assert len(hook.events) == len(pairs)
    assert not [event for event in hook.events if CANARY in event.model_dump_json()]


def test_a_guard_with_hooks_can_be_copied_and_pickled(hook):
    guard = Guard(FixedDetector(0.9), hooks=[hook])
    guard.scan("", NO)
    copy.copy(guard).scan("", NO)
    copied = copy.deepcopy(guard)
    pickled = pickle.loads(pickle.dumps(guard))
    for other in (copied, pickled):
        assert other.scan("", NO).refused
        assert other.events.flush(10)
    assert len(hook.events) == 2
