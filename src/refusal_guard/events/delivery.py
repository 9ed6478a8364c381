"""Delivery: hands events to hooks in a thread of its own, so that no hook can delay or break the call that an event is about."""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cache
from threading import Condition, Thread, current_thread, get_ident
from typing import Any
from weakref import ref

from ..forks import at_fork
from .event import Hook, ScanEvent

CAPACITY = 10_000
IDLE_SECONDS = 10.0
_EXIT_SECONDS = 5.0
_FORK_SECONDS = 1.0
_LOGGER = logging.getLogger("refusal_guard")
_deliveries: dict[int, ref[Delivery]] = {}


@dataclass(frozen=True, slots=True)
class Parcel:
    """An event on its way: `complete` adds what is not made on the caller's time, and hooks run in the `context` of the call."""

    event: ScanEvent
    complete: Callable[[ScanEvent], ScanEvent] | None = None
    context: Context = field(default_factory=copy_context)


class Delivery:
    """A bounded queue of events and the one thread that empties it, begun with the first event.

    When more than `capacity` events wait, the oldest is let go and counted in `dropped`. A hook that raises is counted in `failures`, which
    has a number for each hook, and logged once. After `idle_seconds` without an event the thread ends, until the next one, so that a
    guard that is let go leaves nothing behind. A forked process begins with an empty queue: what waits is the parent's. What waits when
    the process ends is delivered within five seconds.
    """

    def __init__(self, hooks: Sequence[Hook], capacity: int = CAPACITY, idle_seconds: float = IDLE_SECONDS) -> None:
        self.hooks, self.capacity, self._idle_seconds = tuple(hooks), capacity, idle_seconds
        self._closed = False
        self.begin_anew()
        key = id(self)
        _deliveries[key] = ref(self, lambda gone: _deliveries.pop(key, None))

    def begin_anew(self) -> None:
        """Forget what waits and was counted."""
        self.dropped, self.failures = 0, [0] * len(self.hooks)
        self._changed = Condition()  # reentrant, as the garbage collector may run code that scans at any point
        self._forking: set[int] = set()  # threads, not a count: a fork under way when this is made ends without having begun here
        self._waiting: deque[tuple[int, Parcel]] = deque()
        self._accepted = 0
        self._under_way: int | None = None
        self._worker: Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the settings: the thread and what waits stay where they are."""
        return type(self), (self.hooks, self.capacity, self._idle_seconds)

    def put(self, parcel: Parcel) -> None:
        """Take a parcel; waits for no hook."""
        with self._changed:
            if self._closed:
                self.dropped += 1
                return
            self._accepted += 1
            self._waiting.append((self._accepted, parcel))
            if len(self._waiting) > self.capacity:
                self._waiting.popleft()
                self.dropped += 1
            if not self._staffed:
                self._start()
            elif len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put so far is delivered; False when that takes longer than `timeout` seconds, or when a hook asks."""
        if current_thread() is self._worker:
            return False
        with self._changed:
            last = self._accepted
            if self._waiting and not self._staffed:
                self._start()
            return self._changed.wait_for(lambda: self._oldest > last, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Take no more events (they count as dropped), and flush."""
        with self._changed:
            self._closed = True
        return self.flush(timeout)

    @property
    def _staffed(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    @property
    def _oldest(self) -> float:
        """The number of the oldest event that is not delivered yet."""
        if self._under_way is not None:
            return self._under_way
        return self._waiting[0][0] if self._waiting else float("inf")

    def _start(self) -> None:
        _flush_at_exit()
        worker = Thread(target=self._work, name="refusal-guard-events", daemon=True)
        try:
            worker.start()
        except RuntimeError:  # no thread to be had: what waits does so until the next event
            return
        self._worker = worker

    def _work(self) -> None:
        while (parcel := self._next()) is not None:
            parcel.context.run(self._hand_over, parcel)

    def _next(self) -> Parcel | None:
        """Return the next parcel; None when there has been none for a while, and then the worker is off duty."""
        with self._changed:
            self._under_way = None
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._waiting and not self._forking, self._idle_seconds):
                self._worker = None
                return None
            self._under_way, parcel = self._waiting.popleft()
            return parcel

    def _hand_over(self, parcel: Parcel) -> None:
        event = parcel.event if parcel.complete is None else parcel.complete(parcel.event)
        for index, hook in enumerate(self.hooks):
            try:
                hook(event)
            except BaseException as error:  # not even an exit may end the thread that the other hooks live on
                self.failures[index] += 1
                if self.failures[index] == 1:
                    log_failure(f"hook {name_of(hook)}", error)

    def before_fork(self) -> None:
        """Wait, for a second at most, until no hook is at work: the child would inherit its locks, held for ever."""
        with self._changed:
            self._forking.add(get_ident())
            if current_thread() is not self._worker:
                self._changed.wait_for(lambda: self._under_way is None, _FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._changed:
            self._forking.discard(get_ident())
            if self._waiting and not self._staffed:
                self._start()
            self._changed.notify_all()


def log_failure(what: str, error: BaseException) -> None:
    """Log that something of the caller's raised; its message is left out, since it may quote the event."""
    _LOGGER.warning("%s raised %s; further failures are only counted", what, type(error).__name__)


def name_of(hook: object) -> str:
    """Return what a hook is called in a log."""
    return getattr(hook, "__qualname__", type(hook).__qualname__)


def _alive() -> list[Delivery]:
    return [delivery for known in list(_deliveries.values()) if (delivery := known()) is not None]


def flush(timeout: float | None = None) -> bool:
    """Wait until the events of all guards are delivered; False when that takes longer than `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    done = [delivery.flush(None if deadline is None else max(0.0, deadline - time.monotonic())) for delivery in _alive()]
    return all(done)


@cache
def _flush_at_exit() -> None:
    """Have what waits delivered at exit; registered with the first event, so that it comes before the exits of what hooks write to."""
    atexit.register(flush, _EXIT_SECONDS)
    processes = sys.modules.get("multiprocessing.util")
    if processes is not None:  # its workers end without atexit
        processes.Finalize(None, flush, args=(_EXIT_SECONDS,), exitpriority=0)


def _before_fork() -> None:
    for delivery in _alive():
        delivery.before_fork()


def _after_fork_in_parent() -> None:
    for delivery in _alive():
        delivery.after_fork_in_parent()


def _after_fork_in_child() -> None:
    _flush_at_exit.cache_clear()
    for delivery in _alive():
        delivery.begin_anew()


at_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
