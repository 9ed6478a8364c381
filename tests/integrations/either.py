"""What a blocking client returns and an awaiting one will, in one way, for tests that are written once for both."""

import asyncio
import inspect
from contextlib import asynccontextmanager

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


async def settle(result):
    """What a blocking client returned, or an awaiting one will."""
    return await result if inspect.isawaitable(result) else result


async def events_of(stream):
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


async def no_task_left(seconds=5.0):
    """Return whether all other tasks end within the time: asyncio closes abandoned generators of the SDK in tasks of its own."""
    until = asyncio.get_running_loop().time() + seconds
    while (others := len(asyncio.all_tasks()) - 1) and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0)
    return not others


@asynccontextmanager
async def entered(manager):
    """Enter what either client returns to be entered."""
    if hasattr(manager, "__aenter__"):
        async with manager as inside:
            yield inside
    else:
        with manager as inside:
            yield inside
