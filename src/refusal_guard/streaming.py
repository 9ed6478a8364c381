"""Streams under guard, for the adapters of SDKs: what is held back, until when, and what is judged at the end.

An adapter opens streams and reads their events; a StreamedCall does the rest. Text that was released is never asked for again.
What adapters need beside the public names of refusal_guard is named here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, Protocol, get_args

from .attempts import Attempt, Outcome, Report, Stop, carry, report_of
from .errors import InputError, RefusalDetected
from .events import Held, told_of
from .foreign import field, items
from .guard import Guard
from .policy import Chain, Fallback, Flag, Policy, Raise, Reject, State, Step
from .responses import Choice, read_response
from .run import RefusedWhen
from .text import sentences

__all__ = [
    "AsyncChunkStream",
    "ChunkStream",
    "Hold",
    "Policy",
    "RefusedWhen",
    "Source",
    "Step",
    "StreamMode",
    "StreamedCall",
    "Transcript",
    "carry",
]

StreamMode = Literal["flag", "gate", "full"]
SHORTEST_OPENING = 40
LONGEST_OPENING = 400
# Where the stream classes of the SDKs made by Stainless (openai, anthropic) keep the iterator over their events.
ITERATOR = "_iterator"


@dataclass(frozen=True, slots=True)
class Hold:
    """How much of a stream is held back before it is judged.

    "flag" holds nothing, "full" everything, "gate" the opening: `characters` of visible text, or without a number the first sentences, of
    together 40 to 400 characters. An opening with a tool call, or one that the provider declares refused, is enough at once.
    Raises InputError for another mode, and for a number that is none or has no gate.
    """

    mode: StreamMode = "flag"
    characters: int | None = None

    def __post_init__(self) -> None:
        """Refuse what holds nothing sensible."""
        if self.mode not in get_args(StreamMode):
            raise InputError(f"stream must be one of {', '.join(get_args(StreamMode))}")
        if self.characters is None:
            return
        if not isinstance(self.characters, int) or isinstance(self.characters, bool) or self.characters < 1:
            raise InputError("the number of characters to hold must be a whole number of at least 1")
        if self.mode != "gate":
            raise InputError('a number of characters to hold is for stream="gate"')

    def enough(self, body: Any) -> bool:
        """Return whether a response of which so much has arrived can be judged."""
        if self.mode != "gate":
            return self.mode == "flag"
        reading = read_response(body)
        if reading.withheld:
            return True
        ended = [field(choice, "finish_reason") is not None for choice in items(body, "choices")] or [False]
        return all(done or self._opened(choice) for done, choice in zip(ended, reading.choices, strict=False))

    def _opened(self, choice: Choice) -> bool:
        conversation = choice.conversation
        if choice.withheld or any(message.calls_tool or message.refusal for message in conversation.answer):
            return True
        text = conversation.visible_response.lstrip()
        if self.characters is not None or len(text) >= LONGEST_OPENING:
            return len(text) >= (self.characters or LONGEST_OPENING)
        # The last sentence may still go on, so one that another has begun behind is whole.
        return any(sentence.end >= SHORTEST_OPENING for sentence in sentences(text)[:-1])


class Transcript(Protocol):
    """What has arrived of a streamed response; an adapter has one for each kind of stream."""

    def add(self, event: Any) -> None:
        """Take one event."""

    def body(self) -> Any:
        """Return what has arrived as a response, whole or not, in a shape that `Guard.run` reads."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stream that an adapter opened, and what the caller is to get: the stream itself, or the raw response around it."""

    stream: Any
    result: Any


class ChunkStream:
    """A stream over an iterator, for hosts whose streams are nothing more; closing it closes a generator."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self._iterator = self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        """Iterate over what is released."""
        return self._iterator

    def close(self) -> None:
        """Close the generator, if it is one."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class AsyncChunkStream:
    """A stream over an async iterator, like ChunkStream."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._iterator = self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over what is released."""
        return self._iterator

    async def close(self) -> None:
        """Close the generator, if it is one."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


class _Relay:
    """Stands in for the iterator of a stream: hands out what was held, then what arrives, then has the end judged."""

    def __init__(self, source: Any, transcript: Transcript, hold: Hold) -> None:
        self.source, self.transcript, self.hold = source, transcript, hold
        self.ended = False
        self.finish: Callable[[], Any] | None = None
        self._held: deque[Any] = deque()

    def _hold_back(self, event: Any) -> bool:
        """Keep an event back; return whether there is enough now."""
        self._held.append(event)
        self.transcript.add(event)
        return self.hold.enough(self.transcript.body()) if self.hold.mode == "gate" else False


class _SyncRelay(_Relay, Iterator[Any]):
    def fill(self) -> None:
        if self.hold.mode != "flag":
            self.ended = not any(self._hold_back(event) for event in self.source)

    def __next__(self) -> Any:
        if self._held:
            return self._held.popleft()
        if self.ended:
            raise StopIteration
        try:
            event = next(self.source)
        except StopIteration:
            self.ended = True
            if self.finish is not None:
                self.finish()
            raise
        self.transcript.add(event)
        return event


class _AsyncRelay(_Relay, AsyncIterator[Any]):
    async def fill(self) -> None:
        if self.hold.mode == "flag":
            return
        async for event in self.source:
            if self._hold_back(event):
                return
        self.ended = True

    async def __anext__(self) -> Any:
        if self._held:
            return self._held.popleft()
        if self.ended:
            raise StopAsyncIteration
        try:
            event = await anext(self.source)
        except StopAsyncIteration:
            self.ended = True
            if self.finish is not None:
                await self.finish()
            raise
        self.transcript.add(event)
        return event


class StreamedCall:
    """One streamed call under a guard; `run` and `arun` make it, once.

    `transcript` makes the transcript of an attempt. `messages` are those before the answer. `run` takes a function that opens a stream
    (`arun` a coroutine function), with what a policy changes as keywords, and returns a Source; fallbacks that are no names are such
    functions too. They return `Source.result`, and the report is on it and on the stream. A refusal that the hold lets see is dealt
    with before anything is released: the refused stream is closed, unseen. What is released is judged again at the end, which brings
    the report up to date; there only the policy's `Raise` still acts.
    """

    def __init__(
        self,
        guard: Guard,
        policy: Policy,
        hold: Hold,
        transcript: Callable[[], Transcript],
        *,
        messages: Sequence[Any] | None = None,
        refused_when: RefusedWhen = "all",
    ) -> None:
        self._told = Held(guard.events.outlet)
        self._guard, self._policy, self._hold, self._transcript = guard.telling(self._told), policy, hold, transcript
        self._terms: dict[str, Any] = {"messages": messages, "refused_when": refused_when}
        self._source: Source | None = None
        self._relay: _Relay | None = None

    def run(self, open_stream: Callable[..., Source]) -> Any:
        """Make the call."""
        policy = self._policy.adapted(lambda step: _with_target(step, self._holding))
        try:
            result = self._guard.run(self._holding(open_stream), policy=policy, read=self._read, **self._terms)
            handed_over = self._hand_over(result, self._finish)
        except BaseException:
            self._close()
            raise
        if not handed_over:
            self._close()
        return result

    async def arun(self, open_stream: Callable[..., Any]) -> Any:
        """Make the call, awaiting."""
        policy = self._policy.adapted(lambda step: _with_target(step, self._aholding))
        try:
            result = await self._guard.arun(self._aholding(open_stream), policy=policy, read=self._read, **self._terms)
            handed_over = self._hand_over(result, self._afinish)
        except BaseException:
            await self._aclose()
            raise
        if not handed_over:
            await self._aclose()
        return result

    def _holding(self, open_stream: Callable[..., Source]) -> Callable[..., Any]:
        @wraps(open_stream)
        def ask(**changes: Any) -> Any:
            self._close()
            source = open_stream(**changes)
            self._attach(source, relay := _SyncRelay(getattr(source.stream, ITERATOR), self._transcript(), self._hold))
            relay.fill()
            return source.result

        return ask

    def _aholding(self, open_stream: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(open_stream)
        async def ask(**changes: Any) -> Any:
            await self._aclose()
            source = await open_stream(**changes)
            self._attach(source, relay := _AsyncRelay(getattr(source.stream, ITERATOR), self._transcript(), self._hold))
            await relay.fill()
            return source.result

        return ask

    def _attach(self, source: Source, relay: _Relay) -> None:
        self._source, self._relay = source, relay
        setattr(source.stream, ITERATOR, relay)

    def _close(self) -> None:
        source, self._source = self._source, None
        self._told.release()
        if source is not None:
            source.stream.close()

    async def _aclose(self) -> None:
        source, self._source = self._source, None
        self._told.release()
        if source is not None:
            await source.stream.close()

    def _read(self, result: Any) -> Any:
        assert self._relay is not None  # a result is read after it was opened
        return self._relay.transcript.body()

    def _hand_over(self, result: Any, finish: Callable[[], Any]) -> bool:
        """Put the report on the stream and have its end judged; False when something stands in for the stream."""
        source, relay = self._source, self._relay
        if source is None or relay is None or result is not source.result or report_of(result).outcome == "replaced":
            return False
        carry(source.stream, report_of(result))
        relay.finish = finish
        if relay.ended:
            self._told.release()
        elif self._hold.mode == "flag":
            self._told.forget()
        return True

    def _finish(self) -> None:
        self._conclude(None if self._judged_inside else self._guard.run(self._body, **self._terms))

    async def _afinish(self) -> None:
        async def body() -> Any:
            return self._body()

        self._conclude(None if self._judged_inside else await self._guard.arun(body, **self._terms))

    @property
    def _judged_inside(self) -> bool:
        """Whether the stream is that of a guarded client inside this one, which has judged the end already."""
        return self._relay is not None and isinstance(self._relay.source, _Relay)

    def _body(self) -> Any:
        assert self._relay is not None
        return self._relay.transcript.body()

    def _conclude(self, judged: Any) -> None:
        """Bring the report up to date with the whole response, and raise where the policy says so."""
        assert self._source is not None
        stream, result = self._source.stream, self._source.result
        opened = report_of(stream)
        *earlier, last = opened.attempts
        final = last if judged is None else _completed(last, report_of(judged).attempts[-1])
        possible = Chain(tuple(step for step in self._policy.steps if isinstance(step, Raise | Flag)))
        decided = possible.decide(State((final.model_copy(update={"step": -1}),)))
        raised = isinstance(decided.action, Reject)
        outcome: Outcome = "raised" if raised else "flagged" if final.verdict.refused else "answered"
        too_late = decided.stopped is Stop.UNMATCHED and len(possible.steps) < len(self._policy.steps)
        stopped = opened.stopped if opened.outcome == "flagged" else Stop.RELEASED
        report = Report(attempts=(*earlier, final), outcome=outcome, stopped=stopped if too_late else decided.stopped or Stop.POLICY)
        self._told.release(action=outcome, **told_of(final.verdict, final.signal))
        for owner in (stream, result):
            carry(owner, report)
        if raised:
            raise carry(RefusalDetected(final.verdict, response=result, report=report), report)


def _completed(opened: Attempt, whole: Attempt) -> Attempt:
    """Return an attempt judged by its opening as it is judged by the whole."""
    known = {"model": opened.model or whole.model, "usage": whole.usage or opened.usage, "signal": whole.signal or opened.signal}
    return opened.model_copy(update={"verdict": whole.verdict, "verdicts": whole.verdicts, **known})


def _with_target(step: Step, holding: Callable[..., Any]) -> Step:
    if not isinstance(step, Fallback) or isinstance(step.targets[0], str):
        return step
    return Fallback(holding(step.targets[0]), model=step.model, when=step.when)
