"""Guarded clients of the real SDK, blocking and awaiting."""

import asyncio

import pytest
from either import no_task_left, settle
from loopback_openai import LoopbackOpenAI

from refusal_guard import Guard
from refusal_guard.testing import FixedDetector


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


@pytest.fixture(params=["sync", "async"])
def openai_run(request, server, fixed):
    """Run a test's coroutine with a guarded client, and show that nothing stays open behind it."""
    openai = pytest.importorskip("openai")
    from refusal_guard_openai import guard_openai

    kind = {"sync": openai.OpenAI, "async": openai.AsyncOpenAI}[request.param]

    async def within(main, client_settings, settings):
        client = kind(**{"base_url": server.url, "api_key": "key", "max_retries": 0, **client_settings})
        try:
            return await main(guard_openai(client, **{"guard": fixed, **settings}))
        finally:
            await settle(client.close())
            assert await no_task_left(), "tasks stayed behind"

    def run(main, *, client=(), **settings):
        done = asyncio.run(within(main, dict(client), settings))
        assert server.drained(), "connections stayed open"
        return done

    run.kind = kind
    return run
