"""Guarded OpenAI clients, answers in one piece: the real SDK against a server on loopback."""

import asyncio
import threading
import time

import pytest
from either import MESSAGES, events_of, settle
from loopback_openai import LoopbackOpenAI
from model_server import TEXTS

from refusal_guard import Fallback, Flag, Guard, InputError, Raise, RefusalDetected, Replace, Retry, When, report_of

openai = pytest.importorskip("openai")
from pydantic import BaseModel

from refusal_guard_openai import guard_openai


class City(BaseModel):
    city: str


def chat(client, model, **more):
    return settle(client.chat.completions.create(model=model, messages=MESSAGES, **more))


def text_of(response):
    if hasattr(response, "output"):
        return response.output_text
    choice = response.choices[0]
    return choice.text if hasattr(choice, "text") else choice.message.content


ENDPOINTS = {
    "chat": lambda client, model, **more: client.chat.completions.create(model=model, messages=MESSAGES, **more),
    "responses": lambda client, model, **more: client.responses.create(model=model, input="Hello", **more),
    "completions": lambda client, model, **more: client.completions.create(model=model, prompt="Hello", **more),
}
TYPES = {"chat": "ChatCompletion", "responses": "Response", "completions": "Completion"}
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


@every_endpoint
def test_an_answer_is_the_sdks_own_object_with_a_report(openai_run, endpoint):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, "answers"))

    response = openai_run(main)
    assert type(response).__name__ == TYPES[endpoint]
    assert text_of(response) == TEXTS["answers"]
    report = report_of(response)
    assert (report.outcome, report.models, report.usage.total_tokens) == ("answered", ("answers",), 15)
    assert "refusal_guard" not in response.model_dump_json()


@every_endpoint
def test_a_textual_refusal_falls_back(openai_run, endpoint, server):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, "refuses"))

    response = openai_run(main, policy=Retry(1, temperature=0.9).then(Fallback("answers")))
    assert text_of(response) == TEXTS["answers"]
    assert server.models == ["refuses", "refuses", "answers"]
    assert [body.get("temperature") for _, body, _ in server.requests] == [None, 0.9, None]
    assert report_of(response).usage.total_tokens == 45


@every_endpoint
def test_a_nudge_goes_behind_the_conversation(openai_run, endpoint, server):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, "refuses"))

    openai_run(main, policy=Retry(1, nudge="Please do."))
    first, second = (body for _, body, _ in server.requests)
    if endpoint == "completions":
        assert second["prompt"] == f"Hello\n\n{TEXTS['refuses']}\n\nPlease do.\n\n"
        return
    asked = MESSAGES if endpoint == "chat" else [{"role": "user", "content": "Hello"}]
    said = second["messages" if endpoint == "chat" else "input"]
    assert said == [*asked, {"role": "assistant", "content": TEXTS["refuses"]}, {"role": "user", "content": "Please do."}]
    assert first.keys() == second.keys()


@every_endpoint
def test_a_refusal_raises_with_the_response(openai_run, endpoint):
    async def main(client):
        with pytest.raises(RefusalDetected) as refused:
            await settle(ENDPOINTS[endpoint](client, "refuses"))
        return refused.value

    error = openai_run(main, policy=Raise())
    assert text_of(error.response) == TEXTS["refuses"]
    assert report_of(error).outcome == "raised"
    assert TEXTS["refuses"] not in str(error)


@every_endpoint
@pytest.mark.parametrize("model", ["refuses", "blocks"])
def test_a_text_in_place_of_a_refusal_has_the_type_of_an_answer(openai_run, endpoint, model):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, model))

    response = openai_run(main, policy=Replace("Ask a colleague."))
    assert type(response).__name__ == TYPES[endpoint]
    assert text_of(response) == "Ask a colleague."
    assert report_of(response).outcome == "replaced"


@pytest.mark.parametrize(
    ("endpoint", "model", "kind"),
    [
        ("chat", "declares", "refusal"),
        ("chat", "filters", "filtered"),
        ("responses", "declares", "refusal"),
        ("responses", "filters", "filtered"),
    ],
)
def test_what_the_provider_declares_needs_no_detector_and_no_second_try(openai_run, endpoint, model, kind, detector, server):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, model))

    response = openai_run(main, policy=Retry(2))
    report = report_of(response)
    assert (report.attempts[0].verdict.signal, report.stopped, report.outcome) == (kind, "unchanged", "flagged")
    assert (server.models, detector.seen) == ([model], [])


@pytest.mark.parametrize("stream", [None, "gate"])
@pytest.mark.parametrize(("change", "then"), [({}, Raise()), ({"model": "declares"}, Retry(1).then(Fallback("declares")).then(Raise()))])
def test_a_client_of_the_same_server_is_not_sent_what_the_model_declared(openai_run, server, stream, change, then):
    other = openai_run.kind(base_url=f"{server.url}/", api_key="other-key", max_retries=0)

    async def main(client):
        with pytest.raises(RefusalDetected) as refused:
            await chat(client, "declares", **({"stream": True} if stream else {}))
        await settle(other.close())
        return refused.value.report

    report = openai_run(main, stream=stream or "flag", policy=Fallback(other, **change).then(then))
    assert (server.models, report.stopped) == (["declares"], "unchanged")
    assert report.attempts[0].address == f"{server.url}/"


@pytest.mark.parametrize("stream", [None, "gate"])
def test_a_client_of_another_server_has_another_model_of_the_same_name(openai_run, server, stream):
    async def main(client):
        response = await chat(client, "declares", **({"stream": True} if stream else {}))
        if stream:
            await events_of(response)
        await settle(other.close())
        return report_of(response)

    with LoopbackOpenAI() as elsewhere:
        other = openai_run.kind(base_url=elsewhere.url, api_key="other-key", max_retries=0)
        policy = Fallback(other).then(Retry(1)).then(Fallback("declares", other))
        report = openai_run(main, policy=policy, stream=stream or "flag")
    assert (server.models, elsewhere.models, report.stopped) == (["declares"], ["declares"], "unchanged")
    assert [attempt.address for attempt in report.attempts] == [f"{server.url}/", f"{elsewhere.url}/"]


@pytest.mark.parametrize("policy", [Retry(1), Fallback("declares"), Retry(1).then(Fallback("declares"))])
def test_a_guard_around_a_guarded_client_does_not_repeat_what_was_declared_inside(openai_run, server, policy):
    async def main(client):
        return report_of(await chat(guard_openai(client, policy=policy), "declares"))

    report = openai_run(main, policy=Fallback("refuses"))
    assert (server.models, report.stopped) == (["declares", "refuses"], "unchanged")


@every_endpoint
def test_a_blocked_prompt_falls_back_and_flagged_is_raised_again(openai_run, endpoint, server):
    async def main(client):
        response = await settle(ENDPOINTS[endpoint](client, "blocks"))
        plain = guard_openai(client)  # a guard around a guarded client
        server.script.extend(["blocks", "blocks"])
        with pytest.raises(openai.BadRequestError) as blocked:
            await settle(ENDPOINTS[endpoint](plain, "other"))
        return response, blocked.value

    response, error = openai_run(main, policy=Fallback("answers"))
    assert [attempt.verdict.signal for attempt in report_of(response).attempts] == ["blocked", None]
    assert report_of(error).attempts[-1].signal.category == "violence"


def test_a_fallback_to_another_client_takes_no_credentials_along(openai_run, server):
    other = openai_run.kind(base_url=server.url, api_key="other-key", max_retries=0)

    async def main(client):
        headers = {"Authorization": "Bearer mine", "Idempotency-Key": "1", "X-Trace": "7"}
        response = await chat(client, "refuses", extra_headers=headers)
        await settle(other.close())
        return response

    response = openai_run(main, policy=Retry(1).then(Fallback(other, model="answers")))
    assert report_of(response).models == ("refuses", "refuses", "answers")
    sent = [{name.lower(): value for name, value in headers.items()} for _, _, headers in server.requests]
    assert [headers["authorization"] for headers in sent] == ["Bearer mine", "Bearer mine", "Bearer other-key"]
    assert [headers.get("idempotency-key") for headers in sent] == ["1", None, None]
    assert [headers["x-trace"] for headers in sent] == ["7"] * 3


def test_parse_gives_the_parsed_type_and_a_refusal_instead_of_json_is_seen_first(openai_run, server):
    async def main(client):
        server.script.extend(["refuses", "parses"])
        completion = await settle(client.chat.completions.parse(model="m", messages=MESSAGES, response_format=City))
        server.script.extend(["refuses", "parses"])
        response = await settle(client.responses.parse(model="m", input="Hello", text_format=City))
        return completion, response

    completion, response = openai_run(main, policy=Retry(1))
    assert completion.choices[0].message.parsed == City(city="Paris")
    assert response.output_parsed == City(city="Paris")
    assert completion._request_id == response._request_id == "req-1"
    assert len(report_of(completion).attempts) == len(report_of(response).attempts) == 2


def test_parse_raises_what_the_sdk_raises_and_the_error_has_the_report(openai_run, server):
    async def main(client):
        with pytest.raises(openai.ContentFilterFinishReasonError) as filtered:
            await settle(client.chat.completions.parse(model="filters", messages=MESSAGES, response_format=City))
        with pytest.raises(ValueError, match="City"):
            await settle(client.chat.completions.parse(model="refuses", messages=MESSAGES, response_format=City))
        return filtered.value

    error = openai_run(main)
    assert report_of(error).attempts[0].verdict.signal == "filtered"


def test_raw_responses_stay_raw(openai_run, server):
    async def main(client):
        raw = await settle(client.chat.completions.with_raw_response.create(model="refuses", messages=MESSAGES))
        parsed = await settle(raw.parse())
        server.script.append("parses")
        typed = await settle(client.chat.completions.with_raw_response.parse(model="m", messages=MESSAGES, response_format=City))
        return raw, parsed, await settle(typed.parse())

    raw, parsed, typed = openai_run(main, policy=Retry(1).then(Fallback("answers")))
    assert raw.headers["x-request-id"] == "req-1"
    assert text_of(parsed) == TEXTS["answers"]
    assert report_of(raw).models == ("refuses", "refuses", "answers")
    assert typed.choices[0].message.parsed == City(city="Paris")


def test_a_raw_response_that_is_no_json_goes_through(openai_run):
    async def main(client):
        return await settle(client.chat.completions.with_raw_response.create(model="garbage", messages=MESSAGES))

    raw = openai_run(main, policy=Raise())
    assert "It works!" in raw.text
    assert report_of(raw).attempts[0].verdict.signal == "empty"


def test_a_text_for_a_raw_response_is_refused_before_anything_is_sent(openai_run, server):
    async def main(client):
        with pytest.raises(InputError, match="raw"):
            await settle(client.chat.completions.with_raw_response.create(model="refuses", messages=MESSAGES))

    openai_run(main, policy=Replace("no"))
    assert server.requests == []


def test_a_body_that_the_caller_reads_goes_through(openai_run, detector):
    async def main(client):
        manager = client.chat.completions.with_streaming_response.create(model="refuses", messages=MESSAGES)
        if hasattr(manager, "__aenter__"):
            async with manager as response:
                return await response.text()
        with manager as response:
            return response.text()

    assert TEXTS["refuses"] in openai_run(main, policy=Raise())
    assert detector.seen == []


@pytest.mark.parametrize("make", ["with_options", "copy"])
def test_options_keep_the_guard(openai_run, make):
    async def main(client):
        return await chat(getattr(client, make)(timeout=7), "refuses")

    response = openai_run(main, policy=Fallback("answers"))
    assert report_of(response).models == ("refuses", "answers")


def test_the_callers_client_stays_as_it_is(server, fixed):
    with openai.OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        before = dict(vars(client))
        guarded = guard_openai(client, fixed, Raise())
        assert type(guarded) is openai.OpenAI
        assert vars(client) == before
        response = client.chat.completions.create(model="refuses", messages=MESSAGES)
        with pytest.raises(InputError):
            report_of(response)


@pytest.mark.parametrize(("rule", "outcome"), [("all", "answered"), ("any", "flagged")])
def test_of_several_choices_each_has_its_verdict(openai_run, rule, outcome):
    async def main(client):
        return await chat(client, "two", n=2)

    report = report_of(openai_run(main, refused_when=rule))
    assert [verdict.refused for verdict in report.attempts[0].verdicts] == [False, True]
    assert report.outcome == outcome


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_call_of_a_tool_is_no_refusal(openai_run, endpoint, detector):
    async def main(client):
        return await settle(ENDPOINTS[endpoint](client, "calls"))

    report = report_of(openai_run(main, policy=Raise()))
    assert (report.outcome, report.attempts[0].verdict.signal, detector.seen) == ("answered", "tool_call", [])


@pytest.mark.parametrize(
    "more", [{"extra_body": {"conversation": "c1"}}, {"background": True}, {"extra_body": {"tools": [{"type": "mcp"}]}}]
)
def test_what_leaves_traces_is_not_asked_again(openai_run, more, server):
    async def main(client):
        return await settle(client.responses.create(model="refuses", input="Hello", **more))

    report = report_of(openai_run(main, policy=Retry(3)))
    assert (len(server.requests), report.outcome, report.stopped) == (1, "flagged", "attempts")


def test_azure_clients_are_guarded_and_fall_back_to_another_deployment(server, fixed):
    with openai.AzureOpenAI(azure_endpoint=server.url, api_key="key", api_version="2024-10-21", max_retries=0) as client:
        guarded = guard_openai(client, fixed, Fallback("answers"))
        assert isinstance(guarded, openai.AzureOpenAI)
        response = guarded.chat.completions.create(model="blocks", messages=MESSAGES)
    assert report_of(response).models == ("blocks", "answers")
    assert [path.split("?")[0] for path, _, _ in server.requests] == [
        f"/v1/openai/deployments/{model}/chat/completions" for model in ("blocks", "answers")
    ]


def test_the_prompt_reaches_the_detector(openai_run, detector):
    async def main(client):
        await settle(client.responses.create(model="answers", input="Hello", instructions="Be kind."))
        items = [{"role": "user", "content": [{"type": "input_text", "text": "And now?"}]}, {"type": "function_call_output", "output": "7"}]
        await settle(client.responses.create(model="answers", input=items))

    openai_run(main)
    assert [(seen.messages[0].content, seen.prompt) for seen in detector.seen] == [("Be kind.", "Hello"), ("And now?", "And now?")]


def test_reasoning_is_not_judged(openai_run):
    async def main(client):
        return await chat(client, "thinks")

    assert report_of(openai_run(main)).outcome == "answered"


def test_a_guard_of_a_guarded_client_judges_once(openai_run, detector, server):
    async def main(client):
        twice = guard_openai(client, Guard(detector), Raise())
        with pytest.raises(RefusalDetected):
            await chat(twice, "refuses")
        return await Guard(detector).arun(lambda: chat(client, "answers"))

    response = openai_run(main, policy=Retry(1))
    assert len(detector.seen) == len(server.requests) == 3
    assert report_of(response).outcome == "answered"


@pytest.mark.parametrize(
    ("model", "error"), [("limits", "RateLimitError"), ("breaks", "InternalServerError"), ("cuts", "APIConnectionError")]
)
def test_errors_that_are_no_refusals_go_through_unchanged(openai_run, model, error, server):
    async def main(client):
        with pytest.raises(getattr(openai, error)):
            await chat(client, model)

    openai_run(main, policy=Retry(2).then(Fallback("answers")))
    assert len(server.requests) == 1


def test_an_error_after_a_refusal_has_the_report_of_what_was_tried(openai_run):
    async def main(client):
        with pytest.raises(openai.RateLimitError) as limited:
            await chat(client, "refuses")
        return limited.value

    report = report_of(openai_run(main, policy=Fallback("limits")))
    assert (report.outcome, len(report.attempts)) == ("failed", 1)


def test_the_sdks_own_retries_go_on_inside(openai_run, server):
    async def main(client):
        server.script.append("limits")
        return await chat(client, "answers")

    assert len(report_of(openai_run(main, client={"max_retries": 1})).attempts) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize("model", ["empty", "none", "nothing", "errs", "odd", "garbage", "fails"])
def test_odd_answers_come_as_the_sdk_gives_them(openai_run, endpoint, model):
    async def main(client):
        plain = client.__class__(base_url=client.base_url, api_key="key", max_retries=0)
        expected = await settle(ENDPOINTS[endpoint](plain, model))
        await settle(plain.close())
        return expected, await settle(ENDPOINTS[endpoint](client, model))

    expected, got = openai_run(main)
    assert type(got).__name__.lstrip("_").lower() == type(expected).__name__.lower()
    assert got == expected
    assert report_of(got).outcome in ("answered", "flagged")


def test_unknown_parts_do_not_hide_a_refusal(openai_run):
    async def main(client):
        return await chat(client, "odd")

    assert report_of(openai_run(main)).outcome == "flagged"


def test_a_condition_limits_the_policy(openai_run, server):
    async def main(client):
        return await chat(client, "refuses")

    report = report_of(openai_run(main, policy=Retry(1, when=When(signal="filtered"))))
    assert (report.stopped, len(server.requests)) == ("unmatched", 1)


def test_cancelling_goes_through_at_once(server, fixed):
    async def main():
        async with openai.AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
            task = asyncio.create_task(guard_openai(client, fixed, Retry(3)).chat.completions.create(model="stalls", messages=MESSAGES))
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert server.hung_up.wait(5)
            return time.monotonic() - began

    assert asyncio.run(main()) < 3
    assert server.drained()


def test_a_timeout_of_the_client_holds_and_is_not_retried(openai_run, server):
    async def main(client):
        with pytest.raises(openai.APITimeoutError):
            await chat(client, "stalls")

    openai_run(main, client={"timeout": 0.3}, policy=Retry(3))
    assert len(server.requests) == 1


def test_no_thread_stays_behind(server, fixed):
    before = threading.active_count()
    with openai.OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        guarded = guard_openai(client, fixed, Retry(1), "full")
        for _ in range(20):
            guarded.chat.completions.create(model="refuses", messages=MESSAGES)
            list(guarded.chat.completions.create(model="refuses", messages=MESSAGES, stream=True))
    assert server.drained()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_other_endpoints_go_through(openai_run, server, detector):
    async def main(client):
        with pytest.raises(openai.APIError):
            await settle(client.moderations.create(input="x", model="breaks"))

    openai_run(main)
    assert detector.seen == []


@pytest.mark.parametrize(
    "settings",
    [
        {"guard": "embedded"},
        {"policy": "flag"},
        {"policy": Flag},
        {"policy": Fallback(lambda: "x")},
        {"stream": "gates"},
        {"hold": 0},
        {"hold": 10},
        {"stream": "gate", "hold": "10"},
        {"refused_when": "most"},
    ],
)
def test_bad_settings_are_refused(settings):
    with openai.OpenAI(api_key="key") as client, pytest.raises(InputError):
        guard_openai(client, **settings)


@pytest.mark.parametrize("client", [None, "client", openai, openai.OpenAI, object()])
def test_only_clients_are_guarded(client):
    with pytest.raises(InputError, match="takes an OpenAI"):
        guard_openai(client)


def test_a_blocking_client_does_not_fall_back_to_an_awaiting_one():
    with openai.OpenAI(api_key="key") as client, pytest.raises(InputError, match="OpenAI clients"):
        guard_openai(client, policy=Fallback(openai.AsyncOpenAI(api_key="key")))


@pytest.mark.parametrize("messages", [[], [{}], [{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}], "text", None])
def test_odd_requests_get_the_servers_answer(server, fixed, messages):
    with openai.OpenAI(base_url=server.url, api_key="key", max_retries=0) as client:
        response = guard_openai(client, fixed).chat.completions.create(model="answers", messages=messages)
    assert report_of(response).outcome == "answered"
