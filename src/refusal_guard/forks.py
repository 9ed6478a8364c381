"""What a fork may do to us: the child is born without the threads that held its locks, and would wait for them for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import RLock, get_ident
from weakref import WeakValueDictionary

_FORK_SECONDS = 30.0


def at_fork(
    *, before: Callable[[], object] | None = None, in_parent: Callable[[], object] | None = None, in_child: Callable[[], object]
) -> None:
    """Have functions called around each fork, where there are forks; `before` comes before the locks below are taken.

    So a hook that is waited for still gets a lock that it wants.
    """
    if hasattr(os, "register_at_fork"):
        given = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
        os.register_at_fork(**{when: function for when, function in given.items() if function is not None})


class ForkLock:
    """A lock that a fork waits for, and that is free in the child.

    So what it guards is whole in the child, and so are the modules that are imported under it, whose locks Python does not free. When it
    is not to be had for 30 seconds (whoever holds it might wait for something that the forking thread has), the child gets a new one.
    """

    def __init__(self) -> None:
        self.begin_anew()
        _locks[id(self)] = self

    def begin_anew(self) -> None:
        """Forget who holds it."""
        self._lock = RLock()  # reentrant, as whoever holds it may fork

    def take(self, seconds: float = -1) -> bool:
        """Take the lock; False when that takes longer than so many seconds."""
        return self._lock.acquire(timeout=seconds)

    def give_back(self) -> None:
        """Free what was taken."""
        self._lock.release()

    def __enter__(self) -> None:
        """Take the lock."""
        self.take()

    def __exit__(self, *raised: object) -> None:
        """Give it back."""
        self.give_back()


_locks: WeakValueDictionary[int, ForkLock] = WeakValueDictionary()
_taken: dict[int, list[ForkLock]] = {}  # by the thread that forks


def _alive() -> list[ForkLock]:
    return [lock for known in _locks.valuerefs() if (lock := known()) is not None]


def _take_all() -> None:
    deadline = time.monotonic() + _FORK_SECONDS
    taken: list[ForkLock] = []
    _taken[get_ident()] = taken  # before they are taken: an interrupt must not leave them so
    taken.extend(lock for lock in _alive() if lock.take(max(0.0, deadline - time.monotonic())))


def _give_back() -> list[ForkLock]:
    taken = _taken.pop(get_ident(), [])
    for lock in taken:
        lock.give_back()
    return taken


def _free_all() -> None:
    """Free the locks in the child: those taken for it are given back, as the thread that forked may hold them besides."""
    taken = {id(lock) for lock in _give_back()}
    _taken.clear()
    for lock in _alive():
        if id(lock) not in taken:
            lock.begin_anew()


at_fork(before=_take_all, in_parent=_give_back, in_child=_free_all)
