"""What mypy and pyright infer of guarded Anthropic clients; run by nox -s anthropic, never imported."""

from typing import assert_type

from anthropic import Anthropic, AsyncAnthropic, AsyncStream, Stream
from anthropic.lib.vertex import AnthropicVertex
from anthropic.types import Message, MessageParam, RawMessageStreamEvent

from refusal_guard import Fallback, Guard, Raise, Report, Retry
from refusal_guard_anthropic import guard_anthropic, report_of

messages: list[MessageParam] = [{"role": "user", "content": "Hello"}]
client = guard_anthropic(Anthropic(), Guard(), Retry(1).then(Fallback("other", Anthropic())).then(Raise()), "gate", hold=80)
assert_type(client, Anthropic)
assert_type(guard_anthropic(AnthropicVertex(region="r")), AnthropicVertex)
assert_type(client.with_options(timeout=3), Anthropic)
message = client.messages.create(model="m", max_tokens=9, messages=messages)
assert_type(message, Message)
assert_type(client.messages.create(model="m", max_tokens=9, messages=messages, stream=True), Stream[RawMessageStreamEvent])
assert_type(report_of(message), Report)


async def awaiting() -> None:
    """Ask an awaiting client."""
    client = guard_anthropic(AsyncAnthropic())
    assert_type(client, AsyncAnthropic)
    assert_type(await client.messages.create(model="m", max_tokens=9, messages=messages), Message)
    stream = await client.messages.create(model="m", max_tokens=9, messages=messages, stream=True)
    assert_type(stream, AsyncStream[RawMessageStreamEvent])
