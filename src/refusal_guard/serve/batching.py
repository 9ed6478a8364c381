"""Judges the responses of many requests in a few threads: what waits when a thread becomes free goes to the detector as one batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition, Thread

from ..conversation import Conversation
from ..detectors.embedded import EmbeddedDetector
from ..errors import DetectorError, RefusalGuardError
from ..guard import Guard
from ..verdict import Verdict
from .limits import Limits

_MOST_STUCK = 16


class Overloaded(DetectorError):
    """Too much waits for the detector already, or none of its threads is left."""


class TimedOut(DetectorError):
    """The detector did not answer in time."""


@dataclass(eq=False)
class _Job:
    """The responses of one request; the future is cancelled when the request stops waiting."""

    conversations: Sequence[Conversation]
    verdicts: Future[list[Verdict]] = field(default_factory=Future)


@dataclass(eq=False)
class _Worker:
    """A thread that detects; `since` is when its batch began, None while it waits. `stuck`: given up, another one does its work."""

    since: float | None = None
    stuck: bool = False


class Batcher:
    """Judges with a guard, in `limits.threads` threads.

    Nothing waits for a batch to fill: batches grow by themselves while the threads are busy. The embedded model reads one text at a time,
    so its batches are single requests. A text that breaks the detector fails its own request, not those in its batch.

    A detector that hangs can't be interrupted. Its thread is given up after `limits.timeout` seconds and replaced, up to sixteen times;
    one that comes back takes up work again. The threads are daemons: a hanging one does not keep the process from ending.
    """

    def __init__(self, guard: Guard, limits: Limits) -> None:
        self._guard = copy(guard)
        self._guard.on_error = "pass"  # a failure is then the verdict of its own text, and not an exception for the batch
        self._limits = limits
        self._batch_size = 1 if isinstance(guard.detector, EmbeddedDetector) else limits.batch_size
        self._jobs: deque[_Job] = deque()
        self._changed = Condition()
        self._closed = False
        self._workers: set[_Worker] = set()
        for _ in range(limits.threads):
            self._start()

    @property
    def threshold(self) -> float:
        """The guard's threshold."""
        return self._guard.threshold

    @property
    def ready(self) -> bool:
        """Whether a thread is left that does not hang, and there is room to wait for it."""
        with self._changed:
            self._give_up_stuck()
            return self._has_room(1)

    async def judge(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """Return the verdicts, in order, and tell the guard's hooks of them.

        Raises DetectorError when the detector fails on any of them, `Overloaded` when too much waits already, and `TimedOut` when the
        verdicts are not there in time; what still waits then is not read any more.
        """
        if not conversations:
            return []
        with self._guard.events.judging(conversations, self._guard.unknown) as judged:
            judged.verdicts = verdicts = await self._answered(_Job(conversations))
        return verdicts

    def close(self) -> None:
        """Let the threads end when nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many responses wait."""
        with self._changed:
            return self._waiting

    @property
    def detector(self) -> str:
        """The detector's name."""
        return self._guard.detector.name

    @property
    def _waiting(self) -> int:
        return sum(len(job.conversations) for job in self._jobs)

    @property
    def _working(self) -> int:
        return sum(not worker.stuck for worker in self._workers)

    async def _answered(self, job: _Job) -> list[Verdict]:
        self._put(job)
        try:
            verdicts = await asyncio.wait_for(asyncio.wrap_future(job.verdicts), self._limits.timeout)
        except TimeoutError:
            self._withdraw(job)
            raise TimedOut(f"no verdict within {self._limits.timeout:g} seconds", detector=self.detector) from None
        for verdict in verdicts:
            if verdict.error:
                raise DetectorError(verdict.error, detector=verdict.detector)
        return verdicts

    def _has_room(self, responses: int) -> bool:
        return self._working > 0 and self._waiting + responses <= self._limits.max_waiting

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._give_up_stuck()
            if not self._has_room(len(job.conversations)):
                raise Overloaded("too many responses wait for the detector: try again later", detector=self.detector)
            self._jobs.append(job)
            self._changed.notify()

    def _withdraw(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def _start(self) -> None:
        worker = _Worker()
        self._workers.add(worker)
        Thread(target=self._work, args=(worker,), name="refusal-guard-serve", daemon=True).start()

    def _give_up_stuck(self) -> None:
        """Replace workers whose batch takes longer than any request waits for it."""
        latest = time.monotonic() - self._limits.timeout
        for worker in list(self._workers):
            if worker.stuck or worker.since is None or worker.since > latest:
                continue
            worker.stuck = True
            if len(self._workers) - self._working < _MOST_STUCK:
                self._start()

    def _work(self, worker: _Worker) -> None:
        while jobs := self._next_batch(worker):
            self._judge(jobs)

    def _next_batch(self, worker: _Worker) -> list[_Job]:
        """Wait for jobs and take as many as a batch holds; nothing when the worker is not needed any more."""
        with self._changed:
            worker.since = None
            needed = not worker.stuck or self._working < self._limits.threads
            worker.stuck = False
            batch: list[_Job] = []
            while needed and not (batch := self._taken()) and not self._closed:
                self._changed.wait()
            if batch:
                worker.since = time.monotonic()
            else:
                self._workers.discard(worker)
            return batch

    def _taken(self) -> list[_Job]:
        batch: list[_Job] = []
        size = 0
        while self._jobs and (not batch or size + len(self._jobs[0].conversations) <= self._batch_size):
            job = self._jobs.popleft()
            if job.verdicts.set_running_or_notify_cancel():
                batch.append(job)
                size += len(job.conversations)
        return batch

    def _judge(self, jobs: Sequence[_Job]) -> None:
        """Settle every job, whatever happens: no request is left without an answer, and no exception ends the thread."""
        try:
            verdicts = iter(self._guard.judge([conversation for job in jobs for conversation in job.conversations]))
            results = [list(islice(verdicts, len(job.conversations))) for job in jobs]
        except BaseException as error:
            known = isinstance(error, RefusalGuardError)
            failure = error if known else DetectorError(f"detector {self.detector} failed: {type(error).__name__}", detector=self.detector)
            for job in jobs:
                job.verdicts.set_exception(failure)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.verdicts.set_result(result)
