"""Guarded Anthropic clients, answers in one piece: the real SDK against a server on loopback."""

import asyncio

import pytest
from either import MESSAGES, entered, settle
from model_server import TEXTS

from refusal_guard import Fallback, Flag, Guard, InputError, Label, Raise, RefusalDetected, Replace, Retry, When, report_of
from refusal_guard.testing import FixedDetector

anthropic = pytest.importorskip("anthropic")
from pydantic import BaseModel

from refusal_guard_anthropic import guard_anthropic


class City(BaseModel):
    city: str


def create(client, model, **more):
    return settle(client.messages.create(**{"model": model, "max_tokens": 50, "messages": MESSAGES, **more}))


def beta(client, model, **more):
    return settle(client.beta.messages.create(model=model, max_tokens=50, messages=MESSAGES, **more))


every_endpoint = pytest.mark.parametrize("ask", [create, beta])


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def ended(run, model, **settings):
    """The report of one call."""

    async def main(client):
        return report_of(await create(client, model))

    return run(main, **settings)


@every_endpoint
def test_an_answer_is_the_sdks_own_object_with_a_report(anthropic_run, ask):
    async def main(client):
        return await ask(client, "answers", system="Be brief.")

    message = anthropic_run(main)
    assert type(message).__name__ == {create: "Message", beta: "BetaMessage"}[ask]
    assert text_of(message) == TEXTS["answers"]
    report = report_of(message)
    assert (report.outcome, report.models, report.usage.total_tokens) == ("answered", ("answers",), 15)
    assert "refusal_guard" not in message.model_dump_json()


@every_endpoint
def test_a_textual_refusal_falls_back(anthropic_run, ask, anthropic_server):
    async def main(client):
        return await ask(client, "refuses")

    message = anthropic_run(main, policy=Retry(1, temperature=0.5).then(Fallback("answers")))
    assert text_of(message) == TEXTS["answers"]
    assert anthropic_server.models == ["refuses", "refuses", "answers"]
    assert [body.get("temperature") for _, body, _ in anthropic_server.requests] == [None, 0.5, None]
    assert report_of(message).usage.total_tokens == 45


def test_a_nudge_follows_the_refusal_and_the_system_prompt_stays_where_it_is(anthropic_run, anthropic_server):
    async def main(client):
        return await create(client, "refuses", system="Be brief.")

    anthropic_run(main, policy=Retry(1, nudge="Please do."))
    first, second = (body for _, body, _ in anthropic_server.requests)
    assert second["messages"] == [
        *MESSAGES,
        {"role": "assistant", "content": TEXTS["refuses"]},
        {"role": "user", "content": "Please do."},
    ]
    assert first["system"] == second["system"] == "Be brief."
    assert first.keys() == second.keys()


def test_a_refusal_raises_with_the_message(anthropic_run):
    async def main(client):
        with pytest.raises(RefusalDetected) as refused:
            await create(client, "refuses")
        return refused.value

    error = anthropic_run(main, policy=Raise())
    assert text_of(error.response) == TEXTS["refuses"]
    assert report_of(error).outcome == "raised"
    assert TEXTS["refuses"] not in str(error)


@every_endpoint
def test_a_text_in_place_of_a_refusal_has_the_type_of_an_answer(anthropic_run, ask):
    async def main(client):
        return await ask(client, "refuses")

    message = anthropic_run(main, policy=Replace("Ask a colleague."))
    assert type(message).__name__ in ("Message", "BetaMessage")
    assert (text_of(message), message.model, message.stop_reason) == ("Ask a colleague.", "refuses", "end_turn")
    assert report_of(message).outcome == "replaced"


@pytest.mark.parametrize("policy", [Retry(2), Fallback("declares"), Retry(2).then(Fallback("declares"))])
def test_what_the_provider_declares_needs_no_detector_and_no_second_try(anthropic_run, anthropic_server, detector, policy):
    report = ended(anthropic_run, "declares", policy=policy)
    attempt = report.attempts[0]
    assert (attempt.verdict.signal, attempt.signal.provider, attempt.signal.category) == ("refusal", "anthropic", "cyber")
    assert (report.outcome, report.stopped) == ("flagged", "unchanged")
    assert (anthropic_server.models, detector.seen) == (["declares"], [])


@pytest.mark.parametrize("change", [{}, {"model": "declares"}])
def test_a_client_of_the_same_server_is_not_sent_what_the_model_declared(anthropic_run, anthropic_server, change):
    other = anthropic_run.kind(base_url=anthropic_server.url, api_key="other-key", max_retries=0)

    async def main(client):
        message = await create(client, "declares")
        await settle(other.close())
        return report_of(message)

    report = anthropic_run(main, policy=Fallback(other, **change))
    assert (anthropic_server.models, report.stopped) == (["declares"], "unchanged")


def test_the_prompt_and_the_system_prompt_reach_the_detector(anthropic_run, detector):
    async def main(client):
        await create(client, "answers", system=[{"type": "text", "text": "Be kind."}])

    anthropic_run(main)
    (seen,) = detector.seen
    assert [(message.role, message.content) for message in seen.messages[:1]] == [("system", "Be kind.")]
    assert seen.prompt == MESSAGES[0]["content"]


@pytest.mark.parametrize(
    ("model", "outcome", "signal"),
    [
        ("calls", "answered", "tool_call"),  # whatever is said beside it
        ("blank", "answered", "empty"),
        ("thinks", "answered", None),
        ("searches", "flagged", None),  # a tool of the server's own
        ("odd", "flagged", None),
    ],
)
def test_of_the_blocks_the_texts_are_judged_and_calls_that_the_caller_has_to_make(anthropic_run, model, outcome, signal):
    report = ended(anthropic_run, model)
    assert (report.outcome, report.attempts[0].verdict.signal) == (outcome, signal)


def test_a_condition_takes_up_an_answer_without_a_text(anthropic_run):
    assert ended(anthropic_run, "blank", policy=Fallback("answers", when=When(signal="empty"))).models == ("blank", "answers")


def test_a_fallback_to_another_client_takes_no_credentials_along(anthropic_run, anthropic_server):
    other = anthropic_run.kind(base_url=anthropic_server.url, api_key="other-key", max_retries=0)

    async def main(client):
        headers = {"X-Api-Key": "mine", "Idempotency-Key": "1", "X-Trace": "7"}
        message = await create(client, "refuses", extra_headers=headers)
        await settle(other.close())
        return message

    message = anthropic_run(main, policy=Fallback(other, model="answers"))
    assert report_of(message).models == ("refuses", "answers")
    first, second = ({name.lower(): value for name, value in headers.items()} for _, _, headers in anthropic_server.requests)
    assert (first["x-api-key"], first["idempotency-key"], first["x-trace"]) == ("mine", "1", "7")
    assert "other-key" in second.get("x-api-key", second.get("authorization"))  # newer SDKs send the key as a bearer token
    assert (second.get("idempotency-key"), second["x-trace"]) == (None, "7")
    assert "mine" not in second.values()


def test_what_extra_body_says_gives_way_to_the_policy(anthropic_run, anthropic_server):
    async def main(client):
        return await create(client, "ignored", extra_body={"model": "refuses"})

    assert anthropic_run(main, policy=Fallback("answers")).model == "answers"
    assert anthropic_server.models == ["refuses", "answers"]


def test_messages_from_a_generator_are_there_for_every_attempt(anthropic_run, anthropic_server):
    async def main(client):
        return await create(client, "refuses", messages=(message for message in MESSAGES))

    anthropic_run(main, policy=Retry(1))
    assert [body["messages"] for _, body, _ in anthropic_server.requests] == [MESSAGES, MESSAGES]


@pytest.mark.parametrize("more", [{"container": "c_1"}, {"mcp_servers": [{"type": "url", "url": "http://127.0.0.1/", "name": "m"}]}])
def test_what_leaves_traces_is_not_asked_again(anthropic_run, anthropic_server, more):
    async def main(client):
        return await create(client, "refuses", extra_body=more)

    report = report_of(anthropic_run(main, policy=Retry(3)))
    assert (len(anthropic_server.requests), report.outcome, report.stopped) == (1, "flagged", "attempts")


def test_parse_gives_the_parsed_type_and_a_refusal_instead_of_json_is_seen_first(anthropic_run):
    async def main(client):
        parse = client.messages.parse
        with pytest.raises(ValueError, match="City") as unparsed:
            await settle(parse(model="answers", max_tokens=9, messages=MESSAGES, output_format=City))
        assert report_of(unparsed.value).outcome == "answered"
        return await settle(parse(model="refuses", max_tokens=9, messages=MESSAGES, output_format=City))

    message = anthropic_run(main, policy=Fallback("parses"))
    assert message.parsed_output == City(city="Paris")
    assert message._request_id == "req-1"
    assert report_of(message).models == ("refuses", "parses")


def test_raw_responses_stay_raw(anthropic_run):
    async def main(client):
        raw = await settle(client.messages.with_raw_response.create(model="refuses", max_tokens=9, messages=MESSAGES))
        return raw, await settle(raw.parse())

    raw, parsed = anthropic_run(main, policy=Fallback("answers"))
    assert raw.headers["request-id"] == "req-1"
    assert text_of(parsed) == TEXTS["answers"]
    assert report_of(raw).models == ("refuses", "answers")


def test_a_text_for_a_raw_response_is_refused_before_anything_is_sent(anthropic_run, anthropic_server):
    async def main(client):
        with pytest.raises(InputError, match="raw"):
            await settle(client.messages.with_raw_response.create(model="refuses", max_tokens=9, messages=MESSAGES))

    anthropic_run(main, policy=Replace("no"))
    assert anthropic_server.requests == []


def test_a_body_that_the_caller_reads_goes_through(anthropic_run, detector):
    async def main(client):
        manager = client.messages.with_streaming_response.create(model="refuses", max_tokens=9, messages=MESSAGES)
        async with entered(manager) as response:
            return await settle(response.text())

    assert TEXTS["refuses"] in anthropic_run(main, policy=Raise())
    assert detector.seen == []


@pytest.mark.parametrize("make", ["with_options", "copy"])
def test_options_keep_the_guard(anthropic_run, make):
    async def main(client):
        return await create(getattr(client, make)(timeout=7), "refuses")

    assert report_of(anthropic_run(main, policy=Fallback("answers"))).models == ("refuses", "answers")


def test_the_callers_client_stays_as_it_is(anthropic_server, fixed):
    with anthropic.Anthropic(base_url=anthropic_server.url, api_key="key", max_retries=0) as client:
        before = dict(vars(client))
        guarded = guard_anthropic(client, fixed, Raise())
        assert type(guarded) is anthropic.Anthropic
        assert vars(client) == before
        message = client.messages.create(model="refuses", max_tokens=9, messages=MESSAGES)
        with pytest.raises(InputError):
            report_of(message)


@pytest.mark.skipif(not hasattr(anthropic, "AccessToken"), reason="newer SDKs take credentials that are no key")
def test_a_copy_keeps_credentials_that_are_no_key(anthropic_server, fixed):
    sent = []

    def credentials(*arguments, **more):
        sent.append(True)
        return anthropic.AccessToken(token="t", expires_at=None)

    with anthropic.Anthropic(credentials=credentials, base_url=anthropic_server.url, max_retries=0) as plain:
        guarded = guard_anthropic(plain, fixed).with_options(timeout=5)
        assert report_of(guarded.messages.create(model="answers", max_tokens=9, messages=MESSAGES)).outcome == "answered"
    assert sent


def test_vertex_clients_are_guarded_and_fall_back_to_another_model(anthropic_server, fixed):
    url = anthropic_server.url
    with anthropic.AnthropicVertex(region="r", project_id="p", access_token="t", base_url=url, max_retries=0) as client:
        anthropic_server.script.extend(["refuses", "answers"])  # its requests name the model in the path
        guarded = guard_anthropic(client, fixed, Fallback("second"))
        assert type(guarded) is anthropic.AnthropicVertex
        message = guarded.messages.create(model="first", max_tokens=9, messages=MESSAGES)
    assert report_of(message).models == ("first", "second")
    assert [path.rpartition("/")[2] for path, _, _ in anthropic_server.requests] == ["first:rawPredict", "second:rawPredict"]


def test_a_guard_of_a_guarded_client_judges_once(anthropic_run, detector, anthropic_server):
    async def main(client):
        with pytest.raises(RefusalDetected):
            await create(guard_anthropic(client, Guard(detector), Raise()), "refuses")
        return await Guard(detector).arun(lambda: create(client, "answers"))

    message = anthropic_run(main, policy=Retry(1))
    assert len(detector.seen) == len(anthropic_server.requests) == 3
    assert report_of(message).outcome == "answered"


@pytest.mark.skipif(not hasattr(anthropic, "BetaRefusalFallbackMiddleware"), reason="newer SDKs have it")
@pytest.mark.parametrize("streamed", [False, True])
def test_the_sdks_own_fallback_takes_declared_refusals_first(anthropic_run, anthropic_server, streamed):
    middleware = anthropic.BetaRefusalFallbackMiddleware([{"model": "refuses"}])

    async def main(client):
        return report_of(await beta(client, "declares", **({"stream": True} if streamed else {})))

    report = anthropic_run(main, client={"middleware": [middleware]}, policy=Fallback("answers"), stream="gate")
    assert anthropic_server.models == ["declares", "refuses", "answers"]
    assert len(report.attempts) == 2


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("limits", "RateLimitError"),
        ("breaks", "InternalServerError"),
        ("overloads", "InternalServerError"),
        ("cuts", "APIConnectionError"),
    ],
)
def test_errors_that_are_no_refusals_go_through_unchanged(anthropic_run, model, error, anthropic_server):
    async def main(client):
        with pytest.raises(anthropic.APIError) as raised:
            await create(client, model)
        return raised.value

    raised = anthropic_run(main, policy=Retry(2).then(Fallback("answers")))
    assert isinstance(raised, getattr(anthropic, error)) or raised.status_code == 529
    assert len(anthropic_server.requests) == 1


def test_an_error_after_a_refusal_has_the_report_of_what_was_tried(anthropic_run):
    async def main(client):
        with pytest.raises(anthropic.RateLimitError) as limited:
            await create(client, "refuses")
        return limited.value

    report = report_of(anthropic_run(main, policy=Fallback("limits")))
    assert (report.outcome, len(report.attempts)) == ("failed", 1)


def test_the_sdks_own_retries_go_on_inside(anthropic_run, anthropic_server):
    anthropic_server.script.extend(["limits", "refuses", "limits", "answers"])
    assert len(ended(anthropic_run, "m", client={"max_retries": 1}, policy=Retry(1)).attempts) == 2
    assert len(anthropic_server.requests) == 4


@pytest.mark.parametrize("model", ["garbage", "errs"])
@pytest.mark.parametrize("raw", [False, True])
def test_what_is_no_message_comes_as_it_is_and_says_nothing(anthropic_run, model, raw):
    async def main(client):
        messages = client.messages.with_raw_response if raw else client.messages
        return report_of(await settle(messages.create(model=model, max_tokens=9, messages=MESSAGES)))

    assert anthropic_run(main, policy=Raise()).attempts[-1].verdict.signal == "empty"


@pytest.mark.parametrize(("on_error", "outcome"), [("pass", "answered"), ("refuse", "flagged")])
def test_a_failing_detector_follows_on_error(anthropic_run, on_error, outcome):
    def fails(conversation):
        raise RuntimeError("secret")

    report = ended(anthropic_run, "answers", guard=Guard(FixedDetector(fails), on_error=on_error))
    assert report.outcome == outcome
    assert report.attempts[-1].verdict.error


def test_cancelling_goes_through_at_once(anthropic_server, fixed):
    async def main():
        async with anthropic.AsyncAnthropic(base_url=anthropic_server.url, api_key="key", max_retries=0) as client:
            task = asyncio.create_task(create(guard_anthropic(client, fixed, Retry(3)), "stalls"))
            while not anthropic_server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(anthropic_server.hung_up.wait, 5)

    asyncio.run(main())
    assert anthropic_server.drained()
    assert len(anthropic_server.requests) == 1


def test_a_timeout_of_the_client_holds_and_is_not_retried(anthropic_run, anthropic_server):
    async def main(client):
        with pytest.raises(anthropic.APITimeoutError):
            await create(client, "stalls")

    anthropic_run(main, client={"timeout": 0.3}, policy=Retry(3))
    assert len(anthropic_server.requests) == 1


def test_other_endpoints_go_through(anthropic_run, detector):
    async def main(client):
        counted = await settle(client.messages.count_tokens(model="counts", messages=MESSAGES))
        with pytest.raises(InputError):
            report_of(counted)
        return counted

    assert anthropic_run(main).input_tokens == 3
    assert detector.seen == []


@pytest.mark.parametrize(
    "settings",
    [
        {"guard": "embedded"},
        {"policy": "flag"},
        {"policy": Flag},
        {"policy": Fallback(lambda: "x")},
        {"policy": Retry(temperature=1.5)},
        {"stream": "gates"},
        {"hold": 0},
        {"hold": 10},
        {"stream": "gate", "hold": "10"},
    ],
)
def test_bad_settings_are_refused(settings):
    with anthropic.Anthropic(api_key="key") as client, pytest.raises(InputError):
        guard_anthropic(client, **settings)


@pytest.mark.parametrize("client", [None, "client", anthropic, anthropic.Anthropic, object()])
def test_only_clients_are_guarded(client):
    with pytest.raises(InputError, match="takes an Anthropic"):
        guard_anthropic(client)


def test_a_blocking_client_does_not_fall_back_to_an_awaiting_one():
    with anthropic.Anthropic(api_key="key") as client, pytest.raises(InputError, match="Anthropic clients"):
        guard_anthropic(client, policy=Fallback(anthropic.AsyncAnthropic(api_key="key")))


@pytest.mark.parametrize(
    "messages", [[], "text", None, [{"role": "user", "content": None}], [{"role": "user", "content": [{"type": "hologram"}]}]]
)
def test_odd_requests_get_the_servers_answer(anthropic_server, fixed, messages):
    with anthropic.Anthropic(base_url=anthropic_server.url, api_key="key", max_retries=0) as client:
        message = guard_anthropic(client, fixed).messages.create(model="answers", max_tokens=9, messages=messages)
    assert report_of(message).outcome == "answered"
    assert report_of(message).attempts[0].verdict.label == Label.COMPLIANCE
