"""Guarded clients of the real SDKs, blocking and awaiting."""

import asyncio

import pytest
from either import no_task_left, settle
from loopback_anthropic import LoopbackAnthropic
from loopback_openai import LoopbackOpenAI

from refusal_guard import Guard
from refusal_guard.testing import FixedDetector

both_ways = pytest.fixture(params=["sync", "async"])


@pytest.fixture
def detector():
    return FixedDetector(lambda conversation: float("I'm sorry" in conversation.visible_response))


@pytest.fixture
def fixed(detector):
    """A guard that takes every "I'm sorry" for a refusal, and whose detector tells what it saw."""
    return Guard(detector)


@pytest.fixture
def server():
    with LoopbackOpenAI() as running:
        yield running


@pytest.fixture
def anthropic_server():
    with LoopbackAnthropic() as running:
        yield running


@both_ways
def openai_run(request, server, fixed):
    openai = pytest.importorskip("openai")
    from refusal_guard_openai import guard_openai

    return _runner({"sync": openai.OpenAI, "async": openai.AsyncOpenAI}[request.param], guard_openai, server, fixed)


@both_ways
def anthropic_run(request, anthropic_server, fixed):
    anthropic = pytest.importorskip("anthropic")
    from refusal_guard_anthropic import guard_anthropic

    kind = {"sync": anthropic.Anthropic, "async": anthropic.AsyncAnthropic}[request.param]
    return _runner(kind, guard_anthropic, anthropic_server, fixed)


def _runner(kind, guarded, server, guard):
    """Return what runs a test's coroutine with a guarded client, and shows that nothing stays open behind it."""

    async def within(main, client_settings, settings):
        client = kind(**{"base_url": server.url, "api_key": "key", "max_retries": 0, **client_settings})
        try:
            return await main(guarded(client, **{"guard": guard, **settings}))
        finally:
            await settle(client.close())
            assert await no_task_left(), "tasks stayed behind"

    def run(main, *, client=(), **settings):
        done = asyncio.run(within(main, dict(client), settings))
        assert server.drained(), "connections stayed open"
        return done

    run.kind = kind
    return run
