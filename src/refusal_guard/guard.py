"""The guard: a detector, a threshold, what to do when the detector fails, and calls run under a policy."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args, overload

from .conversation import Conversation
from .detectors import Detector, load_detector, one_each
from .errors import DetectorError, InputError, RefusalGuardError
from .events import Emitter, Hook, Outlet
from .policy import Flag, Policy
from .run import Exchange, RefusedWhen, Terms, prior_messages
from .signals import Signal
from .verdict import Detection, Label, Verdict, is_threshold

R = TypeVar("R")

OnError = Literal["raise", "pass", "refuse"]
Scannable = Conversation | tuple[str | None, str | None] | Sequence[Mapping[str, Any]]
DEFAULT_THRESHOLD = 0.5
_PROVIDER = "provider"
_MISSING: Final = object()


class Guard:
    """Scores responses for refusal.

    `detector` is a name, a model folder, a server's URL or any detector object. `threshold` lies in (0, 1); without one the detector's own
    is taken, or 0.5. `on_error` says what happens when the detector fails: "raise" a DetectorError, "pass" the response, or
    "refuse" it; the verdict then carries the error. Raises InputError for a bad setting.

    Each of the `hooks`, functions of one argument, gets a ScanEvent of every response judged, and of what could not be judged. They run in
    a thread of their own, so they may block; what they raise is counted and logged. `guard.events` has the counts and `flush`. `route`
    names the part of the app that asks (see also `events.tagged`). Events hold no text unless `include_text` is True, and then what
    `redact`, a function from a text to a text, leaves of it, cut to 2,000 characters.

    One guard serves many threads.
    """

    def __init__(
        self,
        detector: str | Path | Detector = "embedded",
        *,
        threshold: float | None = None,
        on_error: OnError = "raise",
        hooks: Iterable[Hook] = (),
        route: str | None = None,
        include_text: bool = False,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        if on_error not in get_args(OnError):
            raise InputError(f"on_error must be one of {', '.join(get_args(OnError))}")
        self.events = Emitter(hooks, route=route, include_text=include_text, redact=redact)
        self.detector = load_detector(detector)
        self.on_error = on_error
        self.threshold = _checked(getattr(self.detector, "threshold", DEFAULT_THRESHOLD) if threshold is None else threshold)

    @overload
    def scan(self, prompt: str | None, response: str | None) -> Verdict: ...

    @overload
    def scan(self, prompt: Conversation | Sequence[Mapping[str, Any]], /) -> Verdict: ...

    def scan(self, prompt: Any, response: Any = _MISSING) -> Verdict:
        """Return the verdict on one response.

        Takes a prompt and a response, or a Conversation or a list of chat messages alone. Raises InputError for anything else and
        DetectorError when the detector fails (see `on_error`).
        """
        paired = prompt is None or isinstance(prompt, str | bytes)
        if paired and response is _MISSING:
            raise InputError("a prompt needs its response: scan(prompt, response)")
        if not paired and response is not _MISSING:
            raise InputError("a conversation holds its response already: pass it alone")
        return self.scan_many([(prompt, response) if paired else prompt])[0]

    def scan_many(self, items: Iterable[Scannable]) -> list[Verdict]:
        """Return the verdicts on many responses, in order.

        Each item is a Conversation, a (prompt, response) tuple or a list of chat messages.
        """
        conversations = [as_conversation(item) for item in items]
        with self.events.judging(conversations, self.unknown) as judged:
            judged.verdicts = verdicts = self.judge(conversations)
        return verdicts

    def judge(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """Return the verdicts on conversations and tell no hook of them: for what tells in its own way, with `events.judging`."""
        verdicts = [self._settled(conversation) for conversation in conversations]
        return _filled(verdicts, self._judge(_unsettled(conversations, verdicts)))

    async def _ajudge_all(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        adetect = getattr(self.detector, "adetect", None)
        if adetect is None:
            from asyncio import to_thread  # dear to import, and whoever awaits has it already

            return await to_thread(self.judge, conversations) if conversations else []
        verdicts = [self._settled(conversation) for conversation in conversations]
        return _filled(verdicts, await self._ajudge(_unsettled(conversations, verdicts), adetect))

    def run(
        self,
        call: Callable[..., R],
        *,
        policy: Policy = Flag(),
        prompt: str | None = None,
        messages: Sequence[Any] | None = None,
        read: Callable[[Any], Any] | None = None,
        refused_when: RefusedWhen = "all",
        clock: Callable[[], float] = time.monotonic,
    ) -> R:
        """Make a call, judge its response, and do what the policy says.

        `call()` makes the first attempt as it is. What a policy changes comes as keywords: `model` (a fallback to a name), `messages` (a
        nudge: the conversation, the refusal and the nudge), `temperature`. So `functools.partial(client.chat.completions.create,
        model=..., messages=...)` is a call for all of them, and `lambda: ...` one for `Flag`, `Raise`, `Replace` and a plain `Retry`.
        `prompt` or `messages` say what the response answers. `read` turns a response into text, messages, a conversation or the body of a
        chat API; without it those are read, and SDKs' objects of such bodies. Of several choices all must be refused, or with
        `refused_when="any"` one. `clock` tells seconds.

        Returns what the call returned, the same object; `report_of(response)` has the verdicts. Only a str, bytes, dict, list or tuple
        comes back as an equal object of a subclass, since it can't carry a report; what can carry none at all (a class with
        `__slots__`, a number, None) comes without. Raises RefusalDetected when the policy says so, and InputError for a policy that the
        call can't follow or a response that can't be read. An error of the call goes through unchanged; one by which the provider
        refuses (a blocked prompt) is a refusal, and accepting it raises it again. A failing detector follows `on_error`.
        """
        exchange = Exchange(call, Terms(policy, prior_messages(prompt, messages), read, refused_when, clock, self))
        while exchange.open:
            with exchange.attempt():
                exchange.response = exchange.ask()
            with exchange.judging():
                exchange.judge(self.judge(exchange.conversations()))
        return cast(R, exchange.result())

    async def arun(
        self,
        call: Callable[..., Awaitable[R]],
        *,
        policy: Policy = Flag(),
        prompt: str | None = None,
        messages: Sequence[Any] | None = None,
        read: Callable[[Any], Any] | None = None,
        refused_when: RefusedWhen = "all",
        clock: Callable[[], float] = time.monotonic,
    ) -> R:
        """Do what `run` does, awaiting the call; the detector runs in a thread, or is awaited where it has an `adetect`.

        Cancelling goes through to what is awaited at once.
        """
        exchange = Exchange(call, Terms(policy, prior_messages(prompt, messages), read, refused_when, clock, self))
        while exchange.open:
            with exchange.attempt():
                answer = exchange.ask()
                exchange.response = await answer if inspect.isawaitable(answer) else answer
            with exchange.judging():
                exchange.judge(await self._ajudge_all(exchange.conversations()))
        return cast(R, exchange.result())

    def telling(self, outlet: Outlet) -> Guard:
        """Return the guard with its events sent to an outlet, which is to send on to that of this one."""
        other = copy(self)
        other.events = self.events.through(outlet)
        return other

    def declared(self, signal: Signal) -> Verdict:
        """Return the verdict on what a provider declared."""
        return self._verdict(Detection(score=1.0, detector=_PROVIDER, label=Label.REFUSAL), signal=signal.kind)

    def unknown(self, *, refused: bool = False, signal: str | None = None, error: str | None = None) -> Verdict:
        """Return the verdict on what no detector judged."""
        return Verdict(
            label=Label.UNKNOWN,
            score=0.0,
            threshold=self.threshold,
            refused=refused,
            detector=self.detector.name,
            signal=signal,
            error=error,
        )

    def _settled(self, conversation: Conversation) -> Verdict | None:
        """Return the verdict that needs no detector: a declared refusal, or nothing to read."""
        if any(message.refusal is not None for message in conversation.answer):
            return self.declared(Signal(kind="refusal", provider=_PROVIDER, stage="output"))
        if conversation.visible_response.strip():
            return None
        calls_tool = any(message.calls_tool for message in conversation.answer)
        return self.unknown(signal="tool_call" if calls_tool else "empty")

    def _judge(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        if not conversations:
            return []
        try:
            with self._detecting():
                detections = one_each(self.detector, self.detector.detect(conversations), conversations)
        except DetectorError as error:
            if len(conversations) > 1 and self.on_error != "raise":  # one that breaks the detector must not take its neighbours along
                return [verdict for conversation in conversations for verdict in self._judge([conversation])]
            return [self._failed(error)]
        return [self._decided(detection) for detection in detections]

    async def _ajudge(self, conversations: Sequence[Conversation], adetect: Callable[..., Awaitable[Any]]) -> list[Verdict]:
        """Do what `_judge` does; the choices of one response are so few that they fail together."""
        if not conversations:
            return []
        try:
            with self._detecting():
                detections = one_each(self.detector, await adetect(conversations), conversations)
        except DetectorError as error:
            return [self._failed(error)] * len(conversations)
        return [self._decided(detection) for detection in detections]

    @contextmanager
    def _detecting(self) -> Iterator[None]:
        try:
            yield
        except RefusalGuardError:
            raise
        except Exception as error:
            raise DetectorError(f"detector {self.detector.name} failed: {type(error).__name__}", detector=self.detector.name) from error

    def _decided(self, detection: Detection | None) -> Verdict:
        return self.unknown() if detection is None else self._verdict(detection)

    def _failed(self, error: DetectorError) -> Verdict:
        if self.on_error == "raise":
            raise error
        return self.unknown(refused=self.on_error == "refuse", error=str(error))

    def _verdict(self, detection: Detection, signal: str | None = None) -> Verdict:
        refused = detection.score >= self.threshold
        declined = detection.label if detection.label in (Label.REFUSAL, Label.PARTIAL) else Label.REFUSAL
        return Verdict(
            label=declined if refused else Label.COMPLIANCE,
            score=detection.score,
            threshold=self.threshold,
            refused=refused,
            detector=detection.detector,
            reason=detection.reason if refused else None,
            evidence=detection.evidence if refused else None,
            truncated=detection.truncated,
            signal=signal,
        )


def as_conversation(item: Scannable) -> Conversation:
    """Return the conversation of a pair, of chat messages, or the conversation itself."""
    if isinstance(item, Conversation):
        return item
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], Mapping):
        return Conversation.from_pair(*item)
    return Conversation.from_messages(cast(Sequence[Mapping[str, Any]], item))


def _unsettled(conversations: Sequence[Conversation], verdicts: Sequence[Verdict | None]) -> list[Conversation]:
    return [conversation for conversation, verdict in zip(conversations, verdicts, strict=True) if verdict is None]


def _filled(verdicts: Sequence[Verdict | None], judged: Iterable[Verdict]) -> list[Verdict]:
    """Return the verdicts with those of the detector in the gaps."""
    waiting = iter(judged)
    return [next(waiting) if verdict is None else verdict for verdict in verdicts]


def _checked(threshold: Any) -> float:
    if not is_threshold(threshold):
        raise InputError("the threshold must be a number between 0 and 1, both excluded")
    return float(threshold)
