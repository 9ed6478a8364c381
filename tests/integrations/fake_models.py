"""Chat models for LangChain that answer from a script, in one piece or word by word."""

import asyncio
from collections.abc import Iterator

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

REFUSAL = "I'm sorry, but I can't help with that. It would not be right, and so I will leave it there."
ANSWER = "The capital of France is Paris. It has been so for a long time, and it lies on the Seine."
CALLS_TOOL = AIMessage("I'm sorry, I have to look it up.", tool_calls=[{"name": "look_up", "args": {"city": "Paris"}, "id": "call-1"}])
DECLARED = {
    "a field": AIMessage("", additional_kwargs={"refusal": "No."}),
    "a block": AIMessage([{"type": "refusal", "refusal": "No."}]),
    "a filter": AIMessage("The capi", response_metadata={"finish_reason": "content_filter"}),
    "a stop reason": AIMessage("", response_metadata={"stop_reason": "refusal", "stop_details": {"category": "cyber"}}),
    "a safety filter": AIMessage("", response_metadata={"finish_reason": "SAFETY"}),
}


class PromptBlockedError(Exception):
    """What an SDK raises when the provider does not take the prompt."""

    code = "content_policy_violation"


class ScriptedChatModel(BaseChatModel):
    """Answers from a script, over and over: texts, messages, lists of them (several choices), or errors. Remembers what it was asked."""

    script: list = Field(default=[ANSWER])
    model_name: str = "scripted"
    asked: list = Field(default_factory=list)
    options: list = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _answers(self, messages, options) -> list[AIMessage]:
        answer = self.script[len(self.asked) % len(self.script)]
        self.asked.append(messages)
        self.options.append(options)
        if isinstance(answer, Exception):
            raise answer
        answers = [AIMessage(one) if isinstance(one, str) else one for one in (answer if isinstance(answer, list) else [answer])]
        told = {"model_name": options.get("model", self.model_name)}
        return [one.model_copy(update={"response_metadata": told | one.response_metadata}) for one in answers]

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=message) for message in self._answers(messages, kwargs)])

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools, **kwargs)


class StreamingChatModel(ScriptedChatModel):
    """Streams word by word, and tells in the last chunk what its provider tells; counts the streams that ended, in whatever way."""

    ended: list = Field(default_factory=list)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        [answer] = self._answers(messages, kwargs)
        try:
            for word in answer.text.split(" ") if answer.text else []:
                chunk = ChatGenerationChunk(message=AIMessageChunk(word + " "))
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            calls = [{"name": call["name"], "args": '{"city": "Paris"}', "id": call["id"], "index": 0} for call in answer.tool_calls]
            told = {"finish_reason": "stop", **answer.response_metadata}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=calls), generation_info=told)
        finally:
            self.ended.append(len(self.asked))


class Way:
    """How a test asks a runnable: blocking, or awaiting in a loop of its own."""

    def __init__(self, awaits):
        self.awaits = awaits

    def invoke(self, runnable, *args, **kwargs):
        return asyncio.run(runnable.ainvoke(*args, **kwargs)) if self.awaits else runnable.invoke(*args, **kwargs)

    def stream(self, runnable, *args, into=None, **kwargs):
        """The chunks of a stream, in a list; in `into` where given, so that they are there when it breaks off."""
        chunks = [] if into is None else into

        async def collect():
            async for chunk in runnable.astream(*args, **kwargs):
                chunks.append(chunk)

        if self.awaits:
            asyncio.run(collect())
            return chunks
        for chunk in runnable.stream(*args, **kwargs):
            chunks.append(chunk)
        return chunks

    def take(self, runnable, count, *args, **kwargs):
        """The first chunks of a stream that is abandoned then."""

        async def collect():
            stream = runnable.astream(*args, **kwargs)
            taken = [await anext(stream) for _ in range(count)]
            await stream.aclose()
            return taken

        if self.awaits:
            return asyncio.run(collect())
        stream = runnable.stream(*args, **kwargs)
        taken = [next(stream) for _ in range(count)]
        stream.close()
        return taken


both_ways = pytest.mark.parametrize("way", [Way(False), Way(True)], ids=["sync", "async"])


def text_of(chunks):
    return "".join(chunk if isinstance(chunk, str) else chunk.text for chunk in chunks).strip()


def merged(chunks):
    first, *others = chunks
    for chunk in others:
        first = first + chunk
    return first
