"""Guarded Anthropic clients, streamed answers: what is held, what is released, what is retried unseen."""

import asyncio

import pytest
from either import MESSAGES, entered, events_of, settle
from model_server import TEXTS

from refusal_guard import Fallback, InputError, Raise, RefusalDetected, Replace, Retry, report_of

anthropic = pytest.importorskip("anthropic")

from refusal_guard_anthropic import guard_anthropic

# The SDK lets the HTTP client's own errors through while a stream is read.
HTTP_ERRORS = (__import__("httpx" if anthropic.__version__.startswith("0.") else "httpx2").HTTPError,)
held = pytest.mark.parametrize("mode", ["gate", "full"])
every_mode = pytest.mark.parametrize("mode", ["flag", "gate", "full"])


def opened(client, model, **more):
    return settle(client.messages.create(model=model, max_tokens=50, messages=MESSAGES, stream=True, **more))


def text_of(events):
    return "".join(getattr(getattr(event, "delta", None), "text", None) or "" for event in events)


def streamed(run, model, **settings):
    """The text of a stream and its report."""

    async def main(client):
        stream = await opened(client, model)
        return text_of(await events_of(stream)), report_of(stream)

    return run(main, **settings)


@every_mode
def test_an_answer_streams_whole_and_in_the_sdks_type(anthropic_run, mode):
    async def main(client):
        stream = await opened(client, "answers")
        return stream, await events_of(stream)

    stream, events = anthropic_run(main, stream=mode)
    assert text_of(events) == TEXTS["answers"]
    assert isinstance(stream, anthropic.Stream | anthropic.AsyncStream)
    report = report_of(stream)
    assert (report.outcome, report.models, report.usage.total_tokens) == ("answered", ("answers",), 15)


def test_flag_has_the_verdict_at_the_end(anthropic_run, detector):
    async def main(client):
        stream = await opened(client, "turns")
        assert detector.seen == []
        return stream, await events_of(stream)

    stream, events = anthropic_run(main)
    assert text_of(events) == TEXTS["turns"]
    assert (report_of(stream).outcome, len(detector.seen)) == ("flagged", 1)


@held
def test_a_held_refusal_is_retried_unseen(anthropic_run, mode, anthropic_server):
    said, report = streamed(anthropic_run, "refuses", stream=mode, policy=Retry(1).then(Fallback("answers")))
    assert said == TEXTS["answers"]
    assert report.models == ("refuses", "refuses", "answers")
    assert report.usage.total_tokens >= 15
    assert anthropic_server.models == ["refuses", "refuses", "answers"]


@pytest.mark.parametrize(("mode", "model"), [("flag", "refuses"), ("gate", "turns")])
def test_text_that_is_out_is_never_retried(anthropic_run, mode, model, anthropic_server):
    said, report = streamed(anthropic_run, model, stream=mode, policy=Retry(1).then(Fallback("answers")))
    assert said == TEXTS[model]
    assert (report.outcome, report.stopped) == ("flagged", "released")
    assert anthropic_server.models == [model]


def test_full_sees_a_refusal_behind_the_opening(anthropic_run):
    assert streamed(anthropic_run, "turns", stream="full", policy=Fallback("answers"))[0] == TEXTS["answers"]


def test_a_refusal_behind_the_gate_raises_at_the_end(anthropic_run):
    async def main(client):
        stream = await opened(client, "turns")
        with pytest.raises(RefusalDetected) as refused:
            await events_of(stream)
        return stream, refused.value

    stream, error = anthropic_run(main, stream="gate", policy=Raise())
    assert error.response is stream
    assert report_of(stream).outcome == "raised"


@held
def test_a_held_refusal_raises_before_there_is_a_stream(anthropic_run, mode):
    async def main(client):
        with pytest.raises(RefusalDetected) as refused:
            await opened(client, "refuses")
        return refused.value.report

    assert anthropic_run(main, stream=mode, policy=Raise()).outcome == "raised"


@pytest.mark.parametrize("model", ["refuses", "declares"])
def test_a_text_in_place_of_a_refusal_streams(anthropic_run, model):
    said, report = streamed(anthropic_run, model, stream="gate", policy=Replace("Ask a colleague."))
    assert (said, report.outcome) == ("Ask a colleague.", "replaced")


@pytest.mark.parametrize("policy", [Retry(2), Fallback("declares"), Retry(2).then(Fallback("declares"))])
def test_what_the_provider_declares_is_not_sent_again(anthropic_run, anthropic_server, policy):
    said, report = streamed(anthropic_run, "declares", stream="gate", policy=policy)
    assert (said, report.attempts[0].verdict.signal, report.stopped) == ("", "refusal", "unchanged")
    assert anthropic_server.models == ["declares"]


def test_a_refusal_declared_behind_text_is_in_the_report(anthropic_run):
    said, report = streamed(anthropic_run, "declares_late")
    assert (said, report.attempts[-1].verdict.signal) == ("Paris is", "refusal")


def test_a_call_of_a_tool_is_released_at_once(anthropic_run):
    _, report = streamed(anthropic_run, "calls", stream="gate", policy=Raise())
    assert report.attempts[-1].verdict.signal == "tool_call"


def test_a_search_does_not_open_the_gate(anthropic_run):
    said, report = streamed(anthropic_run, "searches", stream="gate", policy=Fallback("answers"))
    assert (said, report.models) == (TEXTS["answers"], ("searches", "answers"))


@pytest.mark.parametrize(("policy", "text"), [(Fallback("answers"), TEXTS["answers"]), (Replace("Ask a colleague."), "Ask a colleague.")])
def test_the_helper_gives_its_snapshot(anthropic_run, policy, text):
    async def main(client):
        async with entered(client.messages.stream(model="refuses", max_tokens=50, messages=MESSAGES)) as stream:
            said = "".join(await events_of(stream.text_stream))
            return said, await settle(stream.get_final_message()), report_of(stream)

    said, message, report = anthropic_run(main, stream="gate", policy=policy)
    assert said == message.content[0].text == text
    assert message.stop_reason == "end_turn"
    assert report.outcome in ("answered", "replaced")


def test_raw_streams_are_held_too(anthropic_run):
    async def main(client):
        asked = {"model": "refuses", "max_tokens": 50, "messages": MESSAGES, "stream": True}
        raw = await settle(client.messages.with_raw_response.create(**asked))
        events = await events_of(await settle(raw.parse()))
        async with entered(client.messages.with_streaming_response.create(**asked)) as response:
            by_hand = await events_of(await settle(response.parse()))
        return events, by_hand, report_of(raw), report_of(response)

    events, by_hand, *reports = anthropic_run(main, stream="gate", policy=Fallback("answers"))
    assert text_of(events) == text_of(by_hand) == TEXTS["answers"]
    assert [report.models for report in reports] == [("refuses", "answers")] * 2


def test_a_text_for_a_raw_stream_is_refused(anthropic_run, anthropic_server):
    async def main(client):
        with pytest.raises(InputError, match="raw"):
            await settle(client.messages.with_raw_response.create(model="m", max_tokens=9, messages=MESSAGES, stream=True))

    anthropic_run(main, policy=Replace("no"), stream="gate")
    assert anthropic_server.requests == []


def test_a_fallback_client_streams_too(anthropic_run, anthropic_server):
    other = anthropic_run.kind(base_url=anthropic_server.url, api_key="other", max_retries=0)

    async def main(client):
        events = await events_of(await opened(client, "refuses"))
        await settle(other.close())
        return events

    assert text_of(anthropic_run(main, stream="gate", policy=Fallback(other, model="answers"))) == TEXTS["answers"]


@every_mode
def test_a_guard_of_a_guarded_client_judges_once(anthropic_run, mode, detector):
    async def main(client):
        stream = await opened(guard_anthropic(client, stream=mode), "turns")
        return stream, await events_of(stream)

    stream, events = anthropic_run(main, stream=mode)
    assert text_of(events) == TEXTS["turns"]
    assert report_of(stream).outcome == "flagged"
    assert len(detector.seen) == (2 if mode == "gate" else 1)  # the opening, and the whole


@every_mode
@pytest.mark.parametrize("model", ["cuts", "fails"])
def test_a_stream_that_breaks_raises_what_the_sdk_raises(anthropic_run, mode, model, anthropic_server):
    async def main(client):
        with pytest.raises((anthropic.APIError, *HTTP_ERRORS)):
            await events_of(await opened(client, model))

    anthropic_run(main, stream=mode, policy=Retry(2).then(Fallback("answers")))
    assert anthropic_server.models == [model]


@pytest.mark.parametrize("model", ["limits", "breaks"])
def test_errors_at_opening_go_through(anthropic_run, model, anthropic_server):
    async def main(client):
        with pytest.raises(anthropic.APIStatusError):
            await opened(client, model)

    anthropic_run(main, stream="gate", policy=Retry(2))
    assert len(anthropic_server.requests) == 1


def test_a_body_that_is_no_stream_is_an_empty_one(anthropic_run):
    said, report = streamed(anthropic_run, "garbage", stream="gate")
    assert (said, report.attempts[-1].verdict.signal) == ("", "empty")


@pytest.mark.parametrize("mode", ["flag", "gate"])
def test_leaving_early_closes_the_connection(anthropic_run, mode, detector):
    async def main(client):
        stream = await opened(client, "answers")
        await settle(stream.close())
        return report_of(stream)

    anthropic_run(main, stream=mode)
    assert len(detector.seen) == (mode == "gate")


@held
def test_cancelling_while_holding_hangs_up(anthropic_server, fixed, mode):
    async def main():
        async with anthropic.AsyncAnthropic(base_url=anthropic_server.url, api_key="key", max_retries=0) as client:
            guarded = guard_anthropic(client, fixed, Retry(3), mode, hold=10_000 if mode == "gate" else None)
            task = asyncio.create_task(opened(guarded, "stalls"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(anthropic_server.hung_up.wait, 5)

    asyncio.run(main())
    assert anthropic_server.drained()
    assert len(anthropic_server.requests) == 1


def test_a_stream_that_stalls_while_held_times_out(anthropic_run, anthropic_server):
    async def main(client):
        with pytest.raises((anthropic.APITimeoutError, *HTTP_ERRORS)) as late:
            await opened(client, "stalls")
        return type(late.value).__name__

    assert "Timeout" in anthropic_run(main, client={"timeout": 0.4}, stream="full", policy=Retry(3))
    assert len(anthropic_server.requests) == 1
