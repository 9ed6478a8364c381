"""Held streams: when an opening is enough, what is released when, and what the report says at the end."""

import asyncio
import gc
from contextlib import suppress
from contextvars import ContextVar, copy_context

import pytest

from refusal_guard import Fallback, Flag, Guard, InputError, Raise, RefusalDetected, Replace, Retry, report_of
from refusal_guard.errors import DetectorError
from refusal_guard.events import tagged
from refusal_guard.streaming import Hold, Source, StreamedCall
from refusal_guard.testing import FixedDetector, RecordingHook

REFUSAL = ["I'm sorry, but ", "I can't help you with that request. ", "Ask a ", "lawyer."]
ANSWER = ["Paris is the capital of France, and ", "its largest city. ", "It lies on ", "the Seine."]
TURN = ["Paris is the capital of France, and ", "its largest city. ", "It lies on the Seine. ", "But I refuse ", "to say more."]


def guard():
    return Guard(FixedDetector(lambda seen: float(any(sign in seen.response for sign in ("I'm sorry", "I refuse")))))


class Stream:
    """A stream as SDKs have them."""

    def __init__(self, texts):
        self.read, self.closed = [], False
        self._iterator = self._events(texts)

    def _events(self, texts):
        for text in texts:
            if isinstance(text, Exception):
                raise text
            self.read.append(text)
            yield text

    def __iter__(self):
        yield from self._iterator

    def close(self):
        self.closed = True


class AsyncStream(Stream):
    async def _events(self, texts):
        for text in texts:
            await asyncio.sleep(0)
            self.read.append(text)
            yield text

    async def __aiter__(self):
        async for text in self._iterator:
            yield text

    async def close(self):
        self.closed = True


class Transcript:
    def __init__(self):
        self.texts = []

    def add(self, event):
        self.texts.append(event)

    def body(self):
        return {"choices": [{"message": {"role": "assistant", "content": "".join(self.texts)}}]}


class Model:
    """Streams what it is told, one after the other."""

    def __init__(self, *answers, kind=Stream):
        self.answers, self.kind, self.opened, self.asked = list(answers), kind, [], []

    def open(self, *, model="small", messages=None, temperature=None):
        self.asked.append(model)
        self.opened.append(self.kind(self.answers.pop(0)))
        return Source(self.opened[-1], self.opened[-1])

    async def aopen(self, *, model="small", messages=None, temperature=None):
        return self.open(model=model)


def streamed(model, policy=Flag(), mode="gate", characters=None):
    return StreamedCall(guard(), policy, Hold(mode, characters), Transcript).run(model.open)


def test_the_gate_reads_the_first_sentence_and_no_more():
    model = Model(ANSWER)
    stream = streamed(model)
    assert model.opened[0].read == ANSWER[:3]  # a sentence is known to be whole when another begins
    assert report_of(stream).outcome == "answered"
    assert list(stream) == ANSWER


def test_the_gate_reads_as_many_characters_as_it_is_told():
    model = Model(ANSWER)
    assert list(streamed(model, characters=10)) == ANSWER
    held = Model(ANSWER)
    streamed(held, characters=10)
    assert held.opened[0].read == ANSWER[:1]


def test_full_reads_everything_and_flag_nothing():
    full, flag = Model(ANSWER), Model(ANSWER)
    streamed(full, mode="full")
    streamed(flag, mode="flag")
    assert (full.opened[0].read, flag.opened[0].read) == (ANSWER, [])


@pytest.mark.parametrize("mode", ["gate", "full"])
def test_a_held_refusal_is_retried_unseen(mode):
    model = Model(REFUSAL, ANSWER)
    stream = streamed(model, Retry(1), mode)
    assert list(stream) == ANSWER
    assert [opened.closed for opened in model.opened] == [True, False]
    assert [attempt.verdict.refused for attempt in report_of(stream).attempts] == [True, False]


@pytest.mark.parametrize(("mode", "answer"), [("flag", REFUSAL), ("gate", TURN)])
def test_released_text_is_never_retried(mode, answer):
    model = Model(answer, ANSWER)
    stream = streamed(model, Retry(1).then(Fallback("large")), mode)
    assert list(stream) == answer
    assert model.asked == ["small"]
    report = report_of(stream)
    assert (report.outcome, report.stopped, len(report.attempts)) == ("flagged", "released", 1)


def test_a_refusal_behind_the_gate_raises_at_the_end():
    model, seen = Model(TURN), []
    stream = streamed(model, Raise())

    def read():
        for text in stream:
            seen.append(text)  # noqa: PERF402

    with pytest.raises(RefusalDetected) as refused:
        read()
    assert seen == TURN
    assert refused.value.response is stream
    assert report_of(refused.value).outcome == report_of(stream).outcome == "raised"


def test_a_held_refusal_raises_before_anything_is_handed_out_and_closes():
    model = Model(REFUSAL)
    with pytest.raises(RefusalDetected):
        streamed(model, Raise())
    assert model.opened[0].closed


def test_what_replaces_a_refused_stream_leaves_it_closed():
    model = Model(REFUSAL)
    assert streamed(model, Replace("Ask a colleague.")) == "Ask a colleague."
    assert model.opened[0].closed


def test_an_error_while_holding_goes_through_and_closes():
    model = Model(["I'm", ConnectionError("cut")])
    with pytest.raises(ConnectionError):
        streamed(model, Retry(1))
    assert model.opened[0].closed


def test_a_fallback_to_another_source_is_held_too():
    small, large = Model(REFUSAL), Model(ANSWER)
    stream = streamed(small, Fallback(large.open))
    assert list(stream) == ANSWER
    assert large.opened[0] is stream


def test_async_streams_are_held_retried_and_judged_at_the_end():
    async def main():
        model = Model(REFUSAL, TURN, kind=AsyncStream)
        stream = await StreamedCall(guard(), Retry(1), Hold("gate"), Transcript).arun(model.aopen)
        opening = report_of(stream).attempts[-1].verdict.refused
        texts = [text async for text in stream]
        return model, texts, opening, report_of(stream)

    model, texts, opening, report = asyncio.run(main())
    assert texts == TURN
    assert model.opened[0].closed
    assert not opening
    assert report.attempts[-1].verdict.refused


@pytest.mark.parametrize(
    ("mode", "characters"),
    [("gates", None), (None, None), ("gate", 0), ("gate", True), ("gate", 2.5), ("gate", "9"), ("full", 9), ("flag", 9)],
)
def test_a_hold_that_makes_no_sense_is_refused(mode, characters):
    with pytest.raises(InputError):
        Hold(mode, characters)


async def read_stream(kind, tells, model, policy, mode, pieces):
    """Open a stream and read so many pieces of it (None: to its end)."""
    call = StreamedCall(tells, policy, Hold(mode), Transcript)
    with tagged(conversation_id="c-1"):
        stream = call.run(model.open) if kind is Stream else await call.arun(model.aopen)
    if isinstance(stream, str):
        return
    seen, over = 0, object()
    while seen != pieces and (next(stream._iterator, over) if kind is Stream else await anext(stream._iterator, over)) is not over:
        seen += 1


@pytest.mark.parametrize("kind", [Stream, AsyncStream])
@pytest.mark.parametrize(
    ("mode", "policy", "answers", "pieces", "told"),
    [
        ("flag", Flag(), [ANSWER], None, [("compliance", "answered")]),
        ("flag", Raise(), [TURN], None, [("refusal", "raised")]),
        ("flag", Flag(), [TURN], 1, []),  # nothing was judged
        ("gate", Flag(), [ANSWER], None, [("compliance", "answered")]),
        ("gate", Flag(), [TURN], None, [("refusal", "flagged")]),
        ("gate", Flag(), [TURN], 1, [("compliance", "answered")]),  # what the opening was judged
        ("gate", Retry(1), [REFUSAL, TURN], None, [("refusal", "retried"), ("refusal", "flagged")]),
        ("gate", Raise(), [REFUSAL], None, [("refusal", "raised")]),
        ("gate", Replace("Sorry."), [REFUSAL], None, [("refusal", "replaced")]),
        ("full", Flag(), [TURN], None, [("refusal", "flagged")]),
        ("full", Flag(), [TURN], 1, [("refusal", "flagged")]),
        ("full", Fallback("large"), [REFUSAL, ANSWER], None, [("refusal", "fell_back"), ("compliance", "answered")]),
    ],
)
def test_a_stream_is_told_of_once_as_it_was_judged_last(kind, mode, policy, answers, pieces, told):
    hook = RecordingHook()
    tells, model = Guard(guard().detector, hooks=[hook]), Model(*answers, kind=kind)
    with suppress(RefusalDetected):
        asyncio.run(read_stream(kind, tells, model, policy, mode, pieces))
    model.opened.clear()
    gc.collect()
    assert [(event.label.value, event.action) for event in hook.events] == told
    assert [event.attempt for event in hook.events] == list(range(1, len(told) + 1))
    assert [event.model for event in hook.events] == model.asked[: len(told)]
    assert {event.conversation_id for event in hook.events} <= {"c-1"}


@pytest.mark.parametrize("kind", [Stream, AsyncStream])
def test_a_guard_that_fails_at_the_end_of_a_stream_is_told(kind):
    hook = RecordingHook()
    tells, model = Guard(FixedDetector(fails_at_the_end), hooks=[hook]), Model(TURN, kind=kind)
    with pytest.raises(DetectorError):
        asyncio.run(read_stream(kind, tells, model, Flag(), "gate", None))
    gc.collect()
    assert [(event.action, event.stage, event.model, event.conversation_id) for event in hook.events] == [
        ("failed", "guard", "small", "c-1")
    ]


def fails_at_the_end(conversation):
    if "refuse" in conversation.response:
        raise RuntimeError
    return 0.1


@pytest.mark.parametrize("outer_tells", [True, False])
def test_a_guarded_stream_inside_another_is_told_of_once(outer_tells):
    hook = RecordingHook()
    outer, inner = (Guard(guard().detector, hooks=[hook] if tells else []) for tells in (outer_tells, not outer_tells))
    model = Model(TURN)

    def inside():
        stream = StreamedCall(inner, Flag(), Hold("gate"), Transcript).run(model.open)
        return Source(stream, stream)

    list(StreamedCall(outer, Flag(), Hold("gate"), Transcript).run(inside))
    assert [(event.label, event.action) for event in hook.events] == [("refusal", "flagged")]


@pytest.mark.parametrize("mode", ["flag", "gate", "full"])
def test_hooks_run_in_the_context_in_which_a_stream_was_opened(mode):
    span, seen = ContextVar("span", default="none"), []
    tells, model = Guard(guard().detector, hooks=[lambda event: seen.append(span.get())]), Model(TURN)

    def opened():
        span.set("the call's")
        return StreamedCall(tells, Flag(), Hold(mode), Transcript).run(model.open)

    stream = copy_context().run(opened)
    assert list(stream) == TURN
    assert tells.events.flush(20)
    assert seen == ["the call's"]
