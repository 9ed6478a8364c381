"""Guarded OpenAI clients tell their guard's hooks: one event for each judged answer, streamed or not, and none of its text."""

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest
from either import MESSAGES, events_of, settle
from loopback_openai import TEXTS

from refusal_guard import Fallback, Flag, Guard, Raise, RefusalDetected, Retry
from refusal_guard.events import tagged
from refusal_guard.testing import RecordingHook

openai = pytest.importorskip("openai")


@pytest.fixture
def hook():
    return RecordingHook()


@pytest.fixture
def fixed(detector, hook):
    return Guard(detector, hooks=[hook], route="chat")


async def asked(client, model, stream=False):
    with tagged(conversation_id="c-1"):
        answer = await settle(client.chat.completions.create(model=model, messages=MESSAGES, stream=stream))
    return await events_of(answer) if stream else answer


FALLBACK = Retry(1).then(Fallback("answers"))
HELD = {"stream": "gate"}


@pytest.mark.parametrize(
    ("model", "settings", "streamed", "told"),
    [
        ("answers", {}, False, [("answers", "compliance", None, "answered")]),
        ("answers", {}, True, [("answers", "compliance", None, "answered")]),
        ("answers", HELD, True, [("answers", "compliance", None, "answered")]),
        ("turns", {}, True, [("turns", "refusal", None, "flagged")]),
        ("turns", HELD, True, [("turns", "refusal", None, "flagged")]),
        ("turns", {"policy": Raise(), **HELD}, True, [("turns", "refusal", None, "raised")]),
        ("declares", {}, False, [("declares", "refusal", "refusal", "flagged")]),
        ("declares", HELD, True, [("declares", "refusal", "refusal", "flagged")]),
        ("filters", {}, False, [("filters", "refusal", "filtered", "flagged")]),
        ("blocks", {}, False, [("blocks", "refusal", "blocked", "flagged")]),
        ("blocks", {}, True, [("blocks", "refusal", "blocked", "flagged")]),
        ("calls", {}, False, [("calls", "unknown", "tool_call", "answered")]),
        ("breaks", {}, False, []),
        *(
            (
                "refuses",
                {"policy": FALLBACK, "stream": mode},
                streamed,
                [
                    ("refuses", "refusal", None, "retried"),
                    ("refuses", "refusal", None, "fell_back"),
                    ("answers", "compliance", None, "answered"),
                ],
            )
            for mode, streamed in (("flag", False), ("gate", True), ("full", True))
        ),
    ],
)
def test_each_judged_answer_is_one_event(openai_run, hook, model, settings, streamed, told):
    async def main(client):
        with suppress(openai.OpenAIError, RefusalDetected):
            await asked(client, model, streamed)

    openai_run(main, **settings)
    assert [(event.model, event.label.value, event.signal, event.action) for event in hook.events] == told
    assert [event.attempt for event in hook.events] == list(range(1, len(told) + 1))
    assert {(event.route, event.conversation_id) for event in hook.events} <= {("chat", "c-1")}
    assert not [text for text in TEXTS.values() if text and text in repr(hook.events)]


def test_a_stream_that_is_left_in_the_middle_is_told_by_its_opening(openai_run, hook):
    async def main(client):
        stream = await settle(client.chat.completions.create(model="turns", messages=MESSAGES, stream=True))
        assert hook.events == []
        await settle(stream.close())
        gone = weakref.ref(stream)
        del stream
        while gone() is not None:  # the SDK's generators are closed by the loop
            await asyncio.sleep(0)
            gc.collect()

    openai_run(main, stream="gate", policy=Flag())
    gc.collect()
    assert [(event.label.value, event.action) for event in hook.events] == [("compliance", "answered")]
