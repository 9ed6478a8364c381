"""What mypy and pyright infer of guarded OpenAI clients; run by nox -s openai, never imported."""

from typing import assert_type

from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, AzureOpenAI, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.responses import Response

from refusal_guard import Fallback, Guard, Raise, Report, Retry
from refusal_guard_openai import guard_openai, report_of

messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
client = guard_openai(OpenAI(), Guard(), Retry(1).then(Fallback("other", OpenAI())).then(Raise()), "gate", hold=80, refused_when="any")
assert_type(client, OpenAI)
assert_type(guard_openai(AzureOpenAI()), AzureOpenAI)
assert_type(guard_openai(AsyncAzureOpenAI()), AsyncAzureOpenAI)
assert_type(client.with_options(timeout=3), OpenAI)
response = client.chat.completions.create(model="m", messages=messages)
assert_type(response, ChatCompletion)
assert_type(client.chat.completions.create(model="m", messages=messages, stream=True), Stream[ChatCompletionChunk])
assert_type(client.responses.create(model="m", input="Hello"), Response)
assert_type(report_of(response), Report)


async def awaiting() -> None:
    """Ask an awaiting client."""
    client = guard_openai(AsyncOpenAI())
    assert_type(client, AsyncOpenAI)
    assert_type(await client.chat.completions.create(model="m", messages=messages), ChatCompletion)
    assert_type(await client.chat.completions.create(model="m", messages=messages, stream=True), AsyncStream[ChatCompletionChunk])
