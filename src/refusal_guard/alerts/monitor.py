"""Alerts: the hook that watches events by rules and has notifiers told."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from threading import Event, Lock, Thread
from typing import Annotated, Any
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..events import ScanEvent, flush
from ..forks import at_fork
from .alert import Alert
from .notifiers import Notifier, log_alert
from .outbox import Outbox, begun
from .rules import DEFAULT_RULES, Rule
from .watch import Budget, Moment, Watch
from .window import Elapsed

_TICK_SECONDS = 10.0
_EXIT_SECONDS = 5.0
_all: WeakSet[Alerts] = WeakSet()


@dataclass(frozen=True, slots=True)
class AlertStats:
    """What became of notices: `told` to a notifier, tried again (`retried`), `lost` after the last try or because too many waited.

    Each notifier counts for itself. `held_back` are alerts that a cooldown or `max_per_hour` kept from being raised.
    """

    told: int
    retried: int
    lost: int
    held_back: int


class Limits(BaseModel):
    """How much is told and kept.

    At most `max_per_hour` alerts are raised in an hour, over all rules. Each rule tells `max_keys` combinations of labels apart; further
    ones share the labels "other". A notifier that raises is asked again, `attempts` times in all, with waits that double from `wait`
    seconds up to five minutes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_per_hour: Annotated[int, Field(ge=1)] = 20
    max_keys: Annotated[int, Field(ge=1)] = 500
    attempts: Annotated[int, Field(ge=1)] = 10
    wait: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 1.0


class Alerts:
    """A hook for `Guard(hooks=[Alerts()])`: raises alerts by rules and resolves them, and tells notifiers of both.

    `rules` have different names. A notifier is any callable that takes an Alert: `log_alert`, `Webhook`, `AppriseNotifier` or your own;
    each has a thread and a queue of its own. `clock` tells seconds since 1970; when it goes back, the windows stand still. Raises
    InputError for bad rules and notifiers.

    One object serves many threads, and sees those events only that its own process hands it.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = DEFAULT_RULES,
        notifiers: Sequence[Notifier] = (log_alert,),
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_rules(rules)
        if not notifiers:
            raise InputError("no notifiers: nobody would ever be told")
        self.rules, self.notifiers = tuple(rules), tuple(notifiers)
        self.limits, self._clock = limits, clock
        self.begin_anew()
        _all.add(self)
        _close_at_exit()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the settings: what was seen stays in its process."""
        return partial(type(self), limits=self.limits, clock=self._clock), (self.rules, self.notifiers)

    def begin_anew(self) -> None:
        """Forget every event, open alert and waiting notice; a forked process begins so, as they are its parent's."""
        limits = self.limits
        self._lock, self._closed = Lock(), Event()
        self._ticker: Thread | None = None
        self._outboxes = [Outbox(notifier, attempts=limits.attempts, wait=limits.wait) for notifier in self.notifiers]
        self._budget = Budget(limits.max_per_hour)
        self._watches = [Watch(rule, self._budget, limits.max_keys) for rule in self.rules]
        self._elapsed = Elapsed(self._clock)

    def __call__(self, event: ScanEvent) -> None:
        """Take an event; waits for no notifier."""
        with self._lock:
            now = self._now()
            self._tell(alert for watch in self._watches for alert in watch.take(event, now))

    def tick(self) -> None:
        """Resolve what is over by the passing of time alone; happens by itself every ten seconds while an alert is open."""
        with self._lock:
            now = self._now()
            self._tell(alert for watch in self._watches for alert in watch.tick(now))

    @property
    def open(self) -> list[Alert]:
        """The alerts that are raised and not resolved."""
        with self._lock:
            return [alert for watch in self._watches for alert in watch.open]

    @property
    def stats(self) -> AlertStats:
        """What became of the notices so far."""
        told, retried, lost = (sum(getattr(outbox, name) for outbox in self._outboxes) for name in ("told", "retried", "lost"))
        return AlertStats(told=told, retried=retried, lost=lost, held_back=self._budget.held_back)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every notice so far is told or lost; False when that takes longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        done = [outbox.flush(None if deadline is None else max(0.0, deadline - time.monotonic())) for outbox in self._outboxes]
        return all(done)

    def close(self, timeout: float | None = None) -> bool:
        """Flush, and tell nothing more; what is not told by then is lost, counted and logged."""
        done = self.flush(timeout)
        self._closed.set()
        for outbox in self._outboxes:
            outbox.give_up()
        return done

    def _now(self) -> Moment:
        return Moment(self._elapsed(), self._clock())

    def _tell(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            for outbox in self._outboxes:
                outbox.put(alert)
            if alert.state == "raised" and self._ticker is None:
                self._ticker = begun(self._tick_while_open, "tick")

    def _tick_while_open(self) -> None:
        while not self._closed.wait(_TICK_SECONDS):
            self.tick()
            with self._lock:
                if not any(watch.open for watch in self._watches):
                    self._ticker = None
                    return


def _check_rules(rules: Sequence[Rule]) -> None:
    if not all(isinstance(rule, Rule) for rule in rules):
        raise InputError("rules are Rule objects, such as Rule(name='refusals', kind='refusals', rate=0.2)")
    names = [rule.name for rule in rules]
    if not names:
        raise InputError("no rules: nobody would ever be told")
    if len(set(names)) < len(names):
        raise InputError(f"two rules have the same name: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")


@cache
def _close_at_exit() -> None:
    """Have what waits told at exit."""
    atexit.register(_close_all)


def _close_all() -> None:
    flush(_EXIT_SECONDS)  # events that wait may raise an alert yet
    for alerts in list(_all):
        alerts.close(_EXIT_SECONDS)


def _after_fork() -> None:
    for alerts in list(_all):
        alerts.begin_anew()


at_fork(in_child=_after_fork)
