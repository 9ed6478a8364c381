"""The outbox: has one notifier told of alerts in a thread of its own, again and again where it fails, and loses none silently."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from inspect import iscoroutinefunction
from threading import Condition, Event, Thread

from ..errors import InputError
from .alert import Alert
from .notifiers import Notifier, NotifierError

CAPACITY = 1_000
_LONGEST_WAIT = 300.0
_MOST_DOUBLINGS = 60
_IDLE_SECONDS = 10.0  # after which the worker ends, so that nothing is left behind
_LOGGER = logging.getLogger("refusal_guard.alerts")


class Outbox:
    """A bounded queue of notices for one notifier, and the one thread that empties it.

    A notice is tried `attempts` times, with waits that double from `wait` seconds up to five minutes. `told`, `retried` and `lost` count:
    lost is what failed to the last, the oldest where more than `capacity` wait, and what was left when it was closed; each is logged.
    """

    def __init__(self, notifier: Notifier, *, attempts: int, wait: float, capacity: int = CAPACITY) -> None:
        if not callable(notifier) or iscoroutinefunction(notifier):
            raise InputError(
                f"a notifier is a blocking function of one alert, not a {type(notifier).__name__} that has to be awaited or can't be called"
            )
        self._notifier, self._attempts, self._wait, self._capacity = notifier, attempts, wait, capacity
        self._name = getattr(notifier, "__name__", type(notifier).__name__)
        self._changed, self._given_up = Condition(), Event()
        self._waiting: deque[Alert] = deque()
        self._in_hand = False
        self._worker: Thread | None = None
        self.told = self.retried = self.lost = 0

    def put(self, alert: Alert) -> None:
        """Take a notice; never waits for the notifier."""
        with self._changed:
            self._waiting.append(alert)
            if len(self._waiting) > self._capacity:
                self._lose(self._waiting.popleft(), "too many wait")
            if self._given_up.is_set():
                self.give_up()
            elif self._worker is None:
                self._worker = begun(self._work, self._name)
            self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits; False when that takes longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._in_hand, timeout)

    def give_up(self) -> None:
        """Take nothing more, and lose what waits. A notice that is just being told may still come through."""
        with self._changed:
            self._given_up.set()
            while self._waiting:
                self._lose(self._waiting.popleft(), "the alerts are closed")
            self._changed.notify_all()

    def _work(self) -> None:
        while (alert := self._next()) is not None:
            self._tell(alert)

    def _next(self) -> Alert | None:
        with self._changed:
            self._in_hand = False
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._waiting, _IDLE_SECONDS):
                self._worker = None
                return None
            self._in_hand = True
            return self._waiting.popleft()

    def _tell(self, alert: Alert) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                self._notifier(alert)
            except BaseException as error:  # not even an exit may end the thread that later notices need
                why = str(error) if isinstance(error, NotifierError) else type(error).__name__
            else:
                with self._changed:
                    self.told += 1
                return
            if attempt == self._attempts or self._given_up.wait(self._pause(attempt)):
                break
            self.retried += 1
            _LOGGER.warning("%s failed: %s; trying again", self._name, why)
        self._lose(alert, why)

    def _pause(self, attempt: int) -> float:
        return min(_LONGEST_WAIT, self._wait * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))

    def _lose(self, alert: Alert, why: str) -> None:
        with self._changed:
            self.lost += 1
        _LOGGER.error("%s was not told that %s (id %s) is %s: %s", self._name, alert.key, alert.id, alert.state, why)


def begun(work: Callable[[], None], name: str) -> Thread | None:
    """Begin a daemon thread; None where there is none to be had, so that the next notice tries again."""
    thread = Thread(target=work, name=f"refusal-guard-alerts-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
