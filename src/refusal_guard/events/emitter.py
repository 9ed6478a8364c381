"""The emitter: makes the events of a guard, from its verdicts and from what the app says about the call, and sends them off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Protocol

from ..conversation import Conversation
from ..errors import DetectorError, InputError
from ..signals import WITHHELD, Signal
from ..verdict import Verdict
from .delivery import CAPACITY, Delivery, Parcel, log_failure
from .event import Hook, ScanEvent, encodable

TEXT_LIMIT = 2_000
_OF_THE_VERDICT = ("label", "score", "threshold", "refused", "detector", "reason", "signal", "error")
_NOTHING: dict[str, str] = {}
_tags: ContextVar[dict[str, str]] = ContextVar("refusal_guard_tags", default=_NOTHING)


@contextmanager
def tagged(*, route: str | None = None, conversation_id: str | None = None, model: str | None = None) -> Iterator[None]:
    """Say more about the calls made inside: their events hold it, also those of tasks begun there and of streams opened there.

    `route` is the part of the app that asks, in place of the guard's own. `model` is for plain scans; a guarded call knows its own.
    Raises InputError for what is no string.
    """
    given = {"route": route, "conversation_id": conversation_id, "model": model}
    tags = {name: checked for name, value in given.items() if (checked := checked_name(value, name)) is not None}
    token = _tags.set(_tags.get() | tags)
    try:
        yield
    finally:
        _tags.reset(token)


@dataclass(slots=True)
class Judged:
    """What came of judging responses together: the verdict on each, and what is known of the call (arguments of `Emitter.emit`)."""

    conversations: Sequence[Conversation]
    verdicts: Sequence[Verdict] = ()
    about: dict[str, Any] = field(default_factory=dict)


class Outlet(Protocol):
    """Where an emitter sends its events: a delivery, or what keeps some of them back."""

    def put(self, parcel: Parcel) -> None:
        """Take a parcel."""


class Texts:
    """Puts prompt and response into events: redacted, then cut to TEXT_LIMIT characters; left out, and counted, when `redact` fails."""

    def __init__(self, redact: Callable[[str], str] | None) -> None:
        self._redact = redact
        self.failures = 0

    def added(self, conversation: Conversation, event: ScanEvent) -> ScanEvent:
        """Return the event with the texts."""
        try:
            texts = {"prompt": self._shown(conversation.prompt), "response": self._shown(conversation.response)}
        except BaseException as error:  # as with hooks: the thread has to live on
            self.failures += 1
            if self.failures == 1:
                log_failure("the redaction of an event's text", error)
            return event
        return event.model_copy(update=texts)

    def _shown(self, text: str) -> str:
        return encodable((text if self._redact is None else self._redact(text))[:TEXT_LIMIT])


class Emitter:
    """Makes a guard's events and sends them to its hooks, which run in a thread of their own; Guard explains the settings.

    `dropped` counts the events that were let go because more than `capacity` were waiting, and `failures`, for each hook, those on which it
    raised.
    """

    def __init__(
        self,
        hooks: Iterable[Hook] = (),
        *,
        route: str | None = None,
        include_text: bool = False,
        redact: Callable[[str], str] | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        if redact is not None and not (include_text and callable(redact)):
            raise InputError("redact is a function from a text to a text, for events with include_text=True")
        self._route, self._texts = checked_name(route, "route"), Texts(redact) if include_text else None
        self._delivery = Delivery(_checked_hooks(hooks), capacity)
        self.outlet: Outlet = self._delivery

    @property
    def active(self) -> bool:
        """Whether there is a hook."""
        return bool(self._delivery.hooks)

    @property
    def dropped(self) -> int:
        """How many events no hook got."""
        return self._delivery.dropped

    @property
    def failures(self) -> tuple[int, ...]:
        """How many events each hook raised on."""
        return tuple(self._delivery.failures)

    @property
    def redaction_failures(self) -> int:
        """How many events have no text since `redact` raised."""
        return 0 if self._texts is None else self._texts.failures

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the hooks have the events made so far; False when that takes longer than `timeout` seconds, or when a hook asks."""
        return self._delivery.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Make no more events, and flush."""
        return self._delivery.close(timeout)

    def through(self, outlet: Outlet) -> Emitter:
        """Return an emitter of the same settings that sends to an outlet, which is to send on to that of this one."""
        other = copy(self)
        other.outlet = outlet
        return other

    @contextmanager
    def judging(self, conversations: Sequence[Conversation], unknown: Callable[..., Verdict], **about: Any) -> Iterator[Judged]:
        """Tell of what is judged inside, put into what this yields; a DetectorError is told, as a verdict `unknown`, and goes through."""
        judged, began = Judged(conversations, about=about), time.perf_counter()
        try:
            yield judged
        except DetectorError as error:
            judged.verdicts = [unknown(error=str(error))] * len(judged.conversations)
            judged.about |= {"action": "failed"}
            raise
        finally:
            latency = (time.perf_counter() - began) / max(1, len(judged.verdicts))
            for conversation, verdict in zip(judged.conversations, judged.verdicts, strict=False):
                self.emit(verdict, conversation, latency=latency, **judged.about)

    def emit(self, verdict: Verdict, conversation: Conversation | None = None, *, signal: Signal | None = None, **about: Any) -> None:
        """Tell of one verdict; `signal` is the provider's word, and `about` holds further fields of ScanEvent."""
        if not self.active:
            return
        told = {"route": self._route} | _tags.get() | {name: value for name, value in about.items() if value is not None}
        event = ScanEvent(time=time.time(), **told_of(verdict, signal), **told)
        complete = partial(self._texts.added, conversation) if self._texts is not None and conversation is not None else None
        self.outlet.put(Parcel(event, complete))


def told_of(verdict: Verdict, signal: Signal | None) -> dict[str, Any]:
    """Return the fields of an event that hold a verdict and the provider's word; what withheld an answer comes before what did not."""
    told: dict[str, Any] = {name: getattr(verdict, name) for name in _OF_THE_VERDICT}
    told["stage"] = "guard" if verdict.error is not None else "input" if verdict.signal == "blocked" else "output"
    if signal is not None and (signal.kind == verdict.signal or verdict.signal not in WITHHELD):
        told |= {"signal": signal.kind, "stage": signal.stage, "provider": signal.provider, "category": signal.category}
    return told


def checked_name(value: Any, setting: str) -> str | None:
    """Return a name or None; raises InputError, which names the setting, for anything else."""
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise InputError(f"the {setting} must be a string that is not empty")
    return value


def _checked_hooks(hooks: Any) -> tuple[Hook, ...]:
    if not isinstance(hooks, Iterable) or isinstance(hooks, str | bytes):
        raise InputError("hooks is a list of functions that take one ScanEvent")
    checked = tuple(hooks)
    for hook in checked:
        if not callable(hook) or isinstance(hook, type):
            raise InputError(f"a hook is a function that takes one ScanEvent; {hook!r} is none")
        if iscoroutinefunction(hook) or iscoroutinefunction(getattr(hook, "__call__", None)):  # noqa: B004
            raise InputError("a hook is a plain function, not a coroutine function: it runs in a thread of its own, where it may block")
    return checked
