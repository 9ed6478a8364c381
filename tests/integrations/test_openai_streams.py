"""Guarded OpenAI clients, streamed answers: what is held, what is released, what is retried unseen."""

import asyncio
import threading
import time

import pytest
from either import MESSAGES, events_of, settle
from model_server import TEXTS

from refusal_guard import Fallback, Flag, InputError, Raise, RefusalDetected, Replace, Retry, report_of

openai = pytest.importorskip("openai")

from refusal_guard_openai import guard_openai

# The SDK before 3 lets the HTTP client's own errors through while a stream is read.
HTTP_ERRORS = (__import__("httpx").HTTPError,) if openai.__version__ < "3" else ()


def opened(client, model, **more):
    return settle(client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **more))


OPENINGS = {
    "chat": opened,
    "responses": lambda client, model, **more: settle(client.responses.create(model=model, input="Hello", stream=True, **more)),
    "completions": lambda client, model, **more: settle(client.completions.create(model=model, prompt="Hello", stream=True, **more)),
}
every_endpoint = pytest.mark.parametrize("endpoint", OPENINGS)
held = pytest.mark.parametrize("mode", ["gate", "full"])


def text_of(events):
    return "".join(map(_text, events))


def _text(event):
    if hasattr(event, "choices"):
        return "".join(
            getattr(getattr(choice, "delta", choice), "content", None) or getattr(choice, "text", "") for choice in event.choices
        )
    return event.delta if event.type == "response.output_text.delta" else ""


@every_endpoint
@pytest.mark.parametrize("mode", ["flag", "gate", "full"])
def test_an_answer_streams_whole_and_in_the_sdks_type(openai_run, endpoint, mode):
    async def main(client):
        stream = await OPENINGS[endpoint](client, "answers")
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream=mode)
    assert text_of(events) == TEXTS["answers"]
    assert type(stream).__name__ in ("Stream", "AsyncStream")
    report = report_of(stream)
    assert (report.outcome, report.models, report.attempts[0].verdict.label) == ("answered", ("answers",), "compliance")


@every_endpoint
def test_flag_has_the_verdict_at_the_end(openai_run, endpoint, detector):
    async def main(client):
        stream = await OPENINGS[endpoint](client, "turns")
        assert detector.seen == []
        return stream, await events_of(stream)

    stream, events = openai_run(main)
    assert text_of(events) == TEXTS["turns"]
    assert (report_of(stream).outcome, len(detector.seen)) == ("flagged", 1)


@every_endpoint
@held
def test_a_held_refusal_is_retried_unseen(openai_run, endpoint, mode, server):
    async def main(client):
        stream = await OPENINGS[endpoint](client, "refuses")
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream=mode, policy=Retry(1).then(Fallback("answers")))
    assert text_of(events) == TEXTS["answers"]
    assert report_of(stream).models == ("refuses", "refuses", "answers")
    assert server.models == ["refuses", "refuses", "answers"]


@every_endpoint
@pytest.mark.parametrize(("mode", "model"), [("flag", "refuses"), ("gate", "turns")])
def test_text_that_is_out_is_never_retried(openai_run, endpoint, mode, model, server):
    async def main(client):
        stream = await OPENINGS[endpoint](client, model)
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream=mode, policy=Retry(1).then(Fallback("answers")))
    assert text_of(events) == TEXTS[model]
    assert (report_of(stream).outcome, report_of(stream).stopped) == ("flagged", "released")
    assert server.models == [model]


@every_endpoint
def test_full_sees_a_refusal_behind_the_opening(openai_run, endpoint):
    async def main(client):
        return await events_of(await OPENINGS[endpoint](client, "turns"))

    assert text_of(openai_run(main, stream="full", policy=Fallback("answers"))) == TEXTS["answers"]


def test_a_refusal_behind_the_gate_raises_at_the_end(openai_run):
    async def main(client):
        stream = await opened(client, "turns")
        with pytest.raises(RefusalDetected) as refused:
            await events_of(stream)
        return stream, refused.value

    stream, error = openai_run(main, stream="gate", policy=Raise())
    assert error.response is stream
    assert report_of(stream).outcome == "raised"


@held
def test_a_held_refusal_raises_before_there_is_a_stream(openai_run, mode):
    async def main(client):
        with pytest.raises(RefusalDetected) as refused:
            await opened(client, "refuses")
        return refused.value.report

    assert openai_run(main, stream=mode, policy=Raise()).outcome == "raised"


@every_endpoint
@pytest.mark.parametrize("model", ["refuses", "blocks"])
def test_a_text_in_place_of_a_refusal_streams(openai_run, endpoint, model):
    async def main(client):
        stream = await OPENINGS[endpoint](client, model)
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream="gate", policy=Replace("Ask a colleague."))
    assert text_of(events) == "Ask a colleague."
    assert report_of(stream).outcome == "replaced"


DECLARED = [(endpoint, model) for endpoint in OPENINGS for model in ("declares", "filters", "blocks")]
DECLARED.remove(("completions", "declares"))  # there is no such thing


@pytest.mark.parametrize(("endpoint", "model"), DECLARED)
def test_what_the_provider_declares_is_seen_in_the_stream(openai_run, endpoint, model, server):
    async def main(client):
        return report_of(await OPENINGS[endpoint](client, model))

    report = openai_run(main, stream="full", policy=Retry(1).then(Fallback("answers")))
    assert [attempt.verdict.signal for attempt in report.attempts] == [
        {"declares": "refusal", "filters": "filtered", "blocks": "blocked"}[model],
        None,
    ]
    assert server.models == [model, "answers"]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_call_of_a_tool_is_released_at_once(openai_run, endpoint):
    async def main(client):
        stream = await OPENINGS[endpoint](client, "calls")
        verdict = report_of(stream).attempts[-1].verdict
        return verdict, await events_of(stream)

    verdict, events = openai_run(main, stream="gate", policy=Raise())
    assert verdict.signal == "tool_call"
    assert events


@held
def test_every_choice_counts(openai_run, mode):
    async def main(client):
        stream = await opened(client, "two", n=2)
        await events_of(stream)
        return report_of(stream)

    report = openai_run(main, stream=mode, refused_when="any")
    assert [verdict.refused for verdict in report.attempts[0].verdicts] == [False, True]
    assert report.outcome == "flagged"


def test_usage_is_summed_over_attempts(openai_run):
    async def main(client):
        stream = await opened(client, "refuses", stream_options={"include_usage": True})
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream="full", policy=Fallback("answers"))
    assert events[-1].usage.total_tokens == 15
    assert report_of(stream).usage.total_tokens == 30


def test_the_helpers_give_their_snapshots(openai_run):
    async def main(client):
        managers = [
            client.chat.completions.stream(model="refuses", messages=MESSAGES),
            client.responses.stream(model="refuses", input="Hello"),
        ]
        found = []
        for manager in managers:
            if hasattr(manager, "__aenter__"):
                async with manager as stream:
                    await events_of(stream)
                    final = await (
                        stream.get_final_completion() if "chat" in type(stream).__name__.lower() else stream.get_final_response()
                    )
            else:
                with manager as stream:
                    list(stream)
                    final = stream.get_final_completion() if "chat" in type(stream).__name__.lower() else stream.get_final_response()
            found.append((final, report_of(stream)))
        return found

    (completion, first), (response, second) = openai_run(main, stream="gate", policy=Fallback("answers"))
    assert completion.choices[0].message.content == response.output_text == TEXTS["answers"]
    assert first.models == second.models == ("refuses", "answers")


def test_raw_streams_are_held_too(openai_run):
    async def main(client):
        raw = await settle(client.chat.completions.with_raw_response.create(model="refuses", messages=MESSAGES, stream=True))
        events = await events_of(await settle(raw.parse()))
        manager = client.chat.completions.with_streaming_response.create(model="refuses", messages=MESSAGES, stream=True)
        if hasattr(manager, "__aenter__"):
            async with manager as response:
                by_hand = await events_of(await response.parse())
        else:
            with manager as response:
                by_hand = list(response.parse())
        return events, by_hand, report_of(raw), report_of(response)

    events, by_hand, *reports = openai_run(main, stream="gate", policy=Fallback("answers"))
    assert text_of(events) == text_of(by_hand) == TEXTS["answers"]
    assert [report.models for report in reports] == [("refuses", "answers")] * 2


def test_a_fallback_client_streams_too(openai_run, server):
    other = openai_run.kind(base_url=server.url, api_key="other", max_retries=0)

    async def main(client):
        events = await events_of(await opened(client, "refuses"))
        await settle(other.close())
        return events

    assert text_of(openai_run(main, stream="gate", policy=Fallback(other, model="answers"))) == TEXTS["answers"]


@pytest.mark.parametrize("mode", ["flag", "gate", "full"])
def test_a_guard_of_a_guarded_client_judges_once(openai_run, mode, detector):
    async def main(client):
        stream = await opened(guard_openai(client, stream=mode), "turns")
        return stream, await events_of(stream)

    stream, events = openai_run(main, stream=mode)
    assert text_of(events) == TEXTS["turns"]
    assert report_of(stream).outcome == "flagged"
    assert len(detector.seen) == (2 if mode == "gate" else 1)  # the opening, and the whole


@pytest.mark.parametrize("mode", ["flag", "gate", "full"])
def test_a_cut_stream_raises_what_the_sdk_raises(openai_run, mode, server):
    async def main(client):
        with pytest.raises((openai.APIConnectionError, *HTTP_ERRORS)):
            await events_of(await opened(client, "cuts"))

    openai_run(main, stream=mode, policy=Retry(2))
    assert len(server.requests) == 1


@pytest.mark.parametrize("model", ["limits", "breaks"])
def test_errors_at_opening_go_through(openai_run, model, server):
    async def main(client):
        with pytest.raises(openai.APIStatusError):
            await opened(client, model)

    openai_run(main, stream="gate", policy=Retry(2))
    assert len(server.requests) == 1


@pytest.mark.parametrize("mode", ["flag", "gate"])
def test_an_event_that_tells_an_error_is_no_answer(openai_run, mode):
    async def main(client):
        stream = await OPENINGS["responses"](client, "errors")
        return await events_of(stream), report_of(stream)

    events, report = openai_run(main, stream=mode, policy=Raise())
    assert events[-1].type == "error"
    assert report.outcome == "answered"
    assert report.attempts[0].verdict.label == "unknown"


@pytest.mark.parametrize("model", ["nothing", "garbage"])
def test_a_body_that_is_no_stream_is_an_empty_one(openai_run, model):
    async def main(client):
        stream = await opened(client, model)
        return await events_of(stream), report_of(stream)

    events, report = openai_run(main, stream="gate")
    assert events == []
    assert report.attempts[0].verdict.signal == "empty"


@pytest.mark.parametrize("mode", ["flag", "gate"])
def test_leaving_early_closes_the_connection(openai_run, mode, detector):
    async def main(client):
        stream = await opened(client, "answers")
        if hasattr(stream, "__aiter__"):
            async for _ in stream:
                break
        else:
            next(iter(stream))
        await settle(stream.close())
        return report_of(stream)

    openai_run(main, stream=mode)
    assert len(detector.seen) == (mode == "gate")


def test_the_first_token_waits_for_the_opening_only(openai_run, server):
    server.pause = 0.05

    async def main(client):
        began, seen = time.monotonic(), []
        stream = await opened(client, "answers")
        if hasattr(stream, "__aiter__"):
            async for event in stream:
                seen.append((time.monotonic() - began, event))  # noqa: PERF401
        else:
            seen = [(time.monotonic() - began, event) for event in stream]
        return seen

    seen = openai_run(main, stream="gate", hold=10)
    first = next(at for at, event in seen if text_of([event]))
    assert first < seen[-1][0] / 2


@pytest.mark.parametrize("mode", ["gate", "full"])
def test_cancelling_while_holding_hangs_up(server, fixed, mode):
    async def main():
        async with openai.AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            guarded = guard_openai(client, fixed, Retry(3), mode, hold=10_000 if mode == "gate" else None)
            task = asyncio.create_task(guarded.chat.completions.create(model="stalls", messages=MESSAGES, stream=True))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.hung_up.wait, 5)

    asyncio.run(main())
    assert server.drained()
    assert len(server.requests) == 1


def test_a_stream_that_stalls_while_held_times_out(openai_run, server):
    async def main(client):
        with pytest.raises((openai.APITimeoutError, *HTTP_ERRORS)) as late:
            await opened(client, "stalls")
        return type(late.value).__name__

    assert "Timeout" in openai_run(main, client={"timeout": 0.4}, stream="full", policy=Retry(3))
    assert len(server.requests) == 1


def test_many_threads_share_a_guarded_client(server, fixed):
    texts, lock = [], threading.Lock()
    with openai.OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        guarded = guard_openai(client, fixed, Fallback("answers"), "gate")

        def work(model):
            text = text_of(guarded.chat.completions.create(model=model, messages=MESSAGES, stream=True))
            with lock:
                texts.append(text)

        threads = [threading.Thread(target=work, args=("refuses" if i % 2 else "answers",)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == [TEXTS["answers"]] * 32
    assert server.drained()


def test_a_text_for_a_raw_stream_is_refused(openai_run, server):
    async def main(client):
        with pytest.raises(InputError, match="raw"):
            await settle(client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True))

    openai_run(main, policy=Replace("no"), stream="gate")
    assert server.requests == []


def test_until_the_end_a_flagged_stream_has_no_verdict(openai_run):
    async def main(client):
        stream = await opened(client, "refuses")
        before = report_of(stream).attempts[-1].verdict
        await events_of(stream)
        return before, report_of(stream).attempts[-1].verdict

    before, after = openai_run(main, policy=Flag())
    assert (before.label, before.refused, after.refused) == ("unknown", False, True)
