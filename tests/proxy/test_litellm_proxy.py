"""Guarded clients and the embedded model, end to end against a real LiteLLM proxy."""

import asyncio

import pytest

openai = pytest.importorskip("openai")

from refusal_guard import Fallback, Guard, Raise, RefusalDetected
from refusal_guard_openai import guard_openai, report_of

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "Paris is the capital of France, and its largest city by far. It lies on the Seine."


@pytest.fixture(scope="module")
def guard():
    return Guard()


@pytest.fixture
def plain(proxy):
    url, key = proxy
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield client


def test_an_answer_comes_through(plain, guard):
    completion = guard_openai(plain, guard, Raise()).chat.completions.create(model="answers", messages=ASKED)
    assert completion.choices[0].message.content == ANSWER
    assert report_of(completion).outcome == "answered"
    assert report_of(completion).usage.total_tokens > 0


def test_a_refusal_is_raised(plain, guard):
    with pytest.raises(RefusalDetected) as caught:
        guard_openai(plain, guard, Raise()).chat.completions.create(model="refuses", messages=ASKED)
    assert caught.value.verdict.detector == "embedded"


def test_a_refusal_falls_back(plain, guard):
    completion = guard_openai(plain, guard, Fallback("answers")).chat.completions.create(model="refuses", messages=ASKED)
    assert completion.choices[0].message.content == ANSWER
    assert report_of(completion).models == ("refuses", "answers")


def test_a_streamed_refusal_is_never_seen(plain, guard):
    client = guard_openai(plain, guard, Fallback("answers"), "gate")
    stream = client.chat.completions.create(model="refuses", messages=ASKED, stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said == ANSWER
    assert report_of(stream).models == ("refuses", "answers")


def test_an_awaiting_client_falls_back(proxy, guard):
    url, key = proxy

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            return await guard_openai(client, guard, Fallback("answers")).chat.completions.create(model="refuses", messages=ASKED)

    assert report_of(asyncio.run(ask())).models == ("refuses", "answers")


def test_a_rate_limit_is_an_error_and_no_refusal(plain, guard):
    with pytest.raises(openai.RateLimitError):
        guard_openai(plain, guard, Fallback("answers")).chat.completions.create(model="limits", messages=ASKED)


def test_an_unknown_model_is_an_error_and_no_refusal(plain, guard):
    with pytest.raises(openai.BadRequestError):
        guard_openai(plain, guard, Fallback("answers")).chat.completions.create(model="unknown", messages=ASKED)


def test_an_unknown_fallback_is_an_error_with_the_report_of_the_refusal(plain, guard):
    with pytest.raises(openai.BadRequestError) as caught:
        guard_openai(plain, guard, Fallback("unknown")).chat.completions.create(model="refuses", messages=ASKED)
    assert (report_of(caught.value).outcome, report_of(caught.value).models) == ("failed", ("refuses",))


def test_guard_run_does_the_same_around_the_plain_client(plain, guard):
    def ask(*, model="refuses"):
        return plain.chat.completions.create(model=model, messages=ASKED)

    completion = guard.run(ask, messages=ASKED, policy=Fallback("answers"))
    assert report_of(completion).models == ("refuses", "answers")


def test_the_proxy_as_anthropic_falls_back_too(proxy, guard):
    """In one piece only: asked to stream, its Messages endpoint answers a mock response as JSON."""
    anthropic = pytest.importorskip("anthropic")
    from refusal_guard_anthropic import guard_anthropic

    url, key = proxy
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as plain:
        message = guard_anthropic(plain, guard, Fallback("answers")).messages.create(model="refuses", max_tokens=50, messages=ASKED)
    assert message.content[0].text == ANSWER
    assert report_of(message).models == ("refuses", "answers")
