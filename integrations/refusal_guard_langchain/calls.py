"""A call of a guarded chat model: how it is asked, what stands in for its answer, and how the answer tells what happened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from refusal_guard import Fallback, Guard, Replace, Report, report_of
from refusal_guard.streaming import AsyncChunkStream, ChunkStream, Hold, Policy, RefusedWhen, Source, Step, StreamedCall, carry

from .bodies import KEY, ChunkTranscript, as_chunk, body_of, message_from, record_of
from .errors import langchain_errors


@dataclass(frozen=True, slots=True)
class Terms:
    """What the calls of a model are guarded on."""

    guard: Guard
    policy: Policy
    hold: Hold
    refused_when: RefusedWhen


class ModelCall:
    """One call of a model under a guard. `args` and `options` are what LangChain passes behind the messages.

    `run` and `arun` make it in one piece, `stream` and `astream` in chunks, of which the last tells what happened.
    """

    def __init__(
        self, terms: Terms, model: BaseChatModel, messages: list[BaseMessage], args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._terms, self._model, self._messages, self._args, self._options = terms, model, messages, args, options
        self._answered: dict[str, Any] = {"messages": messages, "refused_when": terms.refused_when}
        self._transcript = ChunkTranscript()

    def run(self) -> ChatResult:
        """Make the call."""
        with langchain_errors(self._message):
            policy = self._policy(_generate, _result)
            return _told(self._terms.guard.run(self._asking(_generate, self._model), policy=policy, read=_read, **self._answered))

    async def arun(self) -> ChatResult:
        """Make the call, awaiting."""
        with langchain_errors(self._message):
            policy = self._policy(_agenerate, _result)
            return _told(await self._terms.guard.arun(self._asking(_agenerate, self._model), policy=policy, read=_read, **self._answered))

    def stream(self) -> Generator[ChatGenerationChunk]:
        """Make the call, and yield what the hold releases."""
        with langchain_errors(self._message):
            stream = self._streamed(_open, _one_chunk).run(self._asking(_open, self._model))
            try:
                yield from stream
            finally:
                stream.close()
        yield _telling(report_of(stream))

    async def astream(self) -> AsyncGenerator[ChatGenerationChunk]:
        """Make the call, awaiting, and yield what the hold releases."""
        with langchain_errors(self._message):
            stream = await self._streamed(_aopen, _one_achunk).arun(self._asking(_aopen, self._model))
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                await stream.close()
        yield _telling(report_of(stream))

    def _streamed(self, ask: Callable[..., Any], made: Callable[[BaseMessage], Any]) -> StreamedCall:
        return StreamedCall(self._terms.guard, self._policy(ask, made), self._terms.hold, self._new_transcript, **self._answered)

    def _new_transcript(self) -> ChunkTranscript:
        self._transcript = ChunkTranscript()
        return self._transcript

    def _asking(self, ask: Callable[..., Any], target: BaseChatModel) -> Callable[..., Any]:
        """Return the call that `Guard.run` makes: it takes what a policy changes, and its default tells the model."""
        options = self._options if target is self._model else {name: value for name, value in self._options.items() if name != "model"}
        own = options.get("model") or name_of(target)

        def call(*, model: str | None = None, messages: list[Any] | None = None, temperature: float | None = None) -> Any:
            changes = {"model": None if model == own else model, "temperature": temperature}
            changed = {**options, **{name: value for name, value in changes.items() if value is not None}}
            added = convert_to_messages((messages or [])[len(self._messages) :])
            return ask(target, [*self._messages, *added], *self._args, **changed)

        return partial(call, model=own)

    def _policy(self, ask: Callable[..., Any], made: Callable[[BaseMessage], Any]) -> Policy:
        """Return the policy with calls in place of models, and with answers in place of texts."""

        def adapted(step: Step) -> Step:
            if isinstance(step, Fallback) and not isinstance(step.targets[0], str):
                return Fallback(self._asking(ask, step.targets[0]), model=step.model, when=step.when)
            if isinstance(step, Replace):
                return Replace(lambda refused: made(message_from(step.instead_of(self._message(refused)))), when=step.when)
            return step

        return self._terms.policy.adapted(adapted)

    def _message(self, response: Any) -> BaseMessage | None:
        """Return the (first) message of a response, or of what has arrived of a stream; None for none."""
        if isinstance(response, ChatResult):
            return response.generations[0].message if response.generations else None
        return None if response is None else self._transcript.message()


def implements(kind: type[BaseChatModel], name: str) -> bool:
    """Return whether a class of chat models has a method of its own in place of the general one."""
    return getattr(kind, name) is not getattr(BaseChatModel, name)


def name_of(model: BaseChatModel) -> str | None:
    """Return the name under which a model asks its provider; None where it does not say."""
    names = (getattr(model, name, None) for name in ("model_name", "model"))
    return next((name for name in names if isinstance(name, str) and name), None)


def _generate(model: BaseChatModel, /, *args: Any, **options: Any) -> ChatResult:
    return model._generate(*args, **options)


async def _agenerate(model: BaseChatModel, /, *args: Any, **options: Any) -> ChatResult:
    return await model._agenerate(*args, **options)


def _open(model: BaseChatModel, /, *args: Any, **options: Any) -> Source:
    stream = ChunkStream(_chunks(model, *args, **options))
    return Source(stream=stream, result=stream)


async def _aopen(model: BaseChatModel, /, *args: Any, **options: Any) -> Source:
    stream = AsyncChunkStream(_achunks(model, *args, **options))
    return Source(stream=stream, result=stream)


def _chunks(model: BaseChatModel, /, *args: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
    """Yield what a model streams, or else its answer; what a guarded model tells of itself is left out, since this call tells it."""
    if not implements(type(model), "_stream"):
        yield as_chunk(_generate(model, *args, **options).generations[0])
        return
    for chunk in model._stream(*args, **options):
        if KEY not in chunk.message.response_metadata:
            yield chunk


async def _achunks(model: BaseChatModel, /, *args: Any, **options: Any) -> AsyncIterator[ChatGenerationChunk]:
    """Yield what `_chunks` yields."""
    if not any(implements(type(model), name) for name in ("_stream", "_astream")):
        yield as_chunk((await _agenerate(model, *args, **options)).generations[0])
        return
    async for chunk in model._astream(*args, **options):
        if KEY not in chunk.message.response_metadata:
            yield chunk


def _read(result: ChatResult) -> dict[str, Any]:
    return body_of(result.generations, result.llm_output)


def _result(message: BaseMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _one_chunk(message: BaseMessage) -> ChunkStream:
    return ChunkStream(iter([as_chunk(message)]))


def _one_achunk(message: BaseMessage) -> AsyncChunkStream:
    async def chunks() -> AsyncIterator[ChatGenerationChunk]:
        yield as_chunk(message)

    return AsyncChunkStream(chunks())


def _told(result: ChatResult) -> ChatResult:
    """Return a result whose messages tell what happened."""
    report = report_of(result)
    for generation in result.generations:
        message = carry(generation.message, report)
        message.response_metadata = {**message.response_metadata, KEY: record_of(report)}
    return result


def _telling(report: Report) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata={KEY: record_of(report)}))
