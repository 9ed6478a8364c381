"""How events reach hooks: all of them, in order, off the caller's thread; and what happens when a hook is slow, raises or is gone."""

import gc
import multiprocessing
import threading
import weakref

import pytest
from processes import forking, run_python

from refusal_guard import Guard, ScanEvent
from refusal_guard.events import Emitter, flush, tagged
from refusal_guard.events.delivery import Delivery, Parcel
from refusal_guard.testing import FixedDetector, RecordingHook
from refusal_guard.verdict import Label, Verdict

PATIENCE = 20
VERDICT = Verdict(label=Label.REFUSAL, score=0.9, threshold=0.5, refused=True, detector="fixed")


def told(emitter, count, first=0):
    for number in range(first, first + count):
        emitter.emit(VERDICT, attempt=number + 1)


def attempts(events):
    return [event.attempt for event in events]


class Gate:
    """A hook that waits until it is opened."""

    def __init__(self):
        self.open, self.entered, self.events = threading.Event(), threading.Event(), []

    def __call__(self, event):
        self.entered.set()
        assert self.open.wait(PATIENCE)
        self.events.append(event)


@pytest.fixture
def gate():
    waiting = Gate()
    yield waiting
    waiting.open.set()


def test_every_hook_gets_every_event_in_order():
    hooks = [RecordingHook(), RecordingHook()]
    told(Emitter(hooks), 500)
    assert [attempts(hook.events) for hook in hooks] == [list(range(1, 501))] * 2


def test_64_threads_lose_and_double_nothing():
    seen = []
    guard = Guard(FixedDetector(0.9), hooks=[seen.append])

    def scan(number):
        with tagged(conversation_id=str(number)):
            for _ in range(100):
                guard.scan("", "No.")

    threads = [threading.Thread(target=scan, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.events.flush(PATIENCE)
    assert sorted(event.conversation_id for event in seen) == sorted(str(number) for number in range(64) for _ in range(100))
    assert (guard.events.dropped, guard.events.failures) == (0, (0,))


def test_a_hook_that_blocks_delays_no_call(gate):
    guard = Guard(FixedDetector(0.9), hooks=[gate])
    assert [guard.scan("", "No.").refused for _ in range(10)] == [True] * 10
    assert gate.events == []
    assert not guard.events.flush(0.01)
    gate.open.set()
    assert guard.events.flush(PATIENCE)
    assert len(gate.events) == 10


def test_when_too_many_wait_the_oldest_are_dropped_and_counted(gate):
    emitter = Emitter([gate], capacity=5)
    told(emitter, 1)
    assert gate.entered.wait(PATIENCE)
    told(emitter, 12, first=1)
    gate.open.set()
    assert emitter.flush(PATIENCE)
    assert attempts(gate.events) == [1, 9, 10, 11, 12, 13]
    assert emitter.dropped == 7


def test_flush_waits_for_an_event_under_way_even_if_later_ones_were_dropped(gate):
    emitter = Emitter([gate], capacity=1)
    told(emitter, 1)
    assert gate.entered.wait(PATIENCE)
    assert not emitter.flush(0.01)
    told(emitter, 3, first=1)
    assert not emitter.flush(0.01)
    gate.open.set()
    assert emitter.flush(PATIENCE)
    assert attempts(gate.events) == [1, 4]


@pytest.mark.parametrize("error", [ValueError("canary"), SystemExit(), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_hook_that_raises_is_counted_logged_once_and_breaks_nothing(error, caplog):
    def broken(event):
        raise error

    hook = RecordingHook()
    guard = Guard(FixedDetector(0.9), hooks=[broken, hook])
    assert all(guard.scan("", "No.").refused for _ in range(5))
    assert len(hook.events) == 5
    assert guard.events.failures == (5, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "broken" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "canary" not in caplog.text


def test_hooks_run_in_the_context_of_the_call():
    seen = []
    emitter = Emitter([lambda event: Emitter([seen.append]).emit(VERDICT)])
    with tagged(conversation_id="c-1"):
        told(emitter, 1)
    assert emitter.flush(PATIENCE)
    assert flush(PATIENCE)
    assert [event.conversation_id for event in seen] == ["c-1"]


def test_closing_delivers_what_waits_and_counts_what_comes_later(gate):
    emitter = Emitter([gate])
    told(emitter, 3)
    gate.open.set()
    assert emitter.close(PATIENCE)
    told(emitter, 2)
    assert emitter.close(PATIENCE)
    assert (attempts(gate.events), emitter.dropped) == ([1, 2, 3], 2)


def test_a_hook_may_flush_without_waiting_for_itself():
    seen = []
    emitter = Emitter([lambda event: seen.append(emitter.flush())])
    told(emitter, 1)
    assert emitter.flush(PATIENCE)
    assert seen == [False]


def test_a_hook_may_scan_with_a_guard_of_its_own():
    hook = RecordingHook()
    inner = Guard(FixedDetector(0.9), hooks=[hook])
    outer = Emitter([lambda event: inner.scan("", "No.")])
    told(outer, 3)
    assert outer.flush(PATIENCE)
    assert len(hook.events) == 3


def test_a_guard_without_hooks_starts_no_thread():
    before = threading.active_count()
    Guard(FixedDetector(0.9)).scan("", "No.")
    assert threading.active_count() == before


def test_there_is_one_thread_from_the_first_event_on():
    emitter = Emitter([RecordingHook()])
    mine = set(threading.enumerate())
    told(emitter, 100)
    assert flush(PATIENCE)
    told(emitter, 100)
    started = {thread for thread in threading.enumerate() if thread not in mine}
    assert [(thread.name, thread.daemon) for thread in started] == [("refusal-guard-events", True)]


def test_a_worker_that_has_nothing_to_do_ends_and_another_begins():
    seen = []
    delivery = Delivery([seen.append], idle_seconds=0.01)
    mine = set(threading.enumerate())
    for count in (1, 2):
        delivery.put(Parcel(ScanEvent(time=0.0, **VERDICT.model_dump(include={"label", "score", "threshold", "refused", "detector"}))))
        for worker in set(threading.enumerate()) - mine:
            worker.join(PATIENCE)
        assert set(threading.enumerate()) <= mine
        assert len(seen) == count
    gone = weakref.ref(delivery)
    del delivery
    gc.collect()
    assert gone() is None


AT_EXIT = """
import sys, time
from refusal_guard import Guard
from refusal_guard.testing import FixedDetector
def hook(event):
    time.sleep(0.002)
    print(event.label, flush=True)
guard = Guard(FixedDetector(0.9), hooks=[hook])
for _ in range(20):
    guard.scan("", "No.")
"""


@pytest.mark.parametrize("end", ["", "sys.exit()", "raise SystemExit(0)"])
def test_what_waits_at_exit_is_delivered(end):
    assert run_python(AT_EXIT + end) == ["refusal"] * 20


SCAN_AT_EXIT = """
import atexit
from refusal_guard import Guard
from refusal_guard.testing import FixedDetector
guard = Guard(FixedDetector(0.9), hooks=[lambda event: None])
atexit.register(lambda: print(guard.scan("", "No.").refused))
"""


def test_a_scan_at_exit_breaks_nothing():
    assert run_python(SCAN_AT_EXIT) == ["True"]


def _scan_in_child(guard, hook, answer):
    guard.scan("", "No.")
    answer.send((guard.events.flush(PATIENCE), len(hook.events), guard.events.dropped))


@forking
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_tells_its_own_events_and_not_its_parents(gate):
    hook = RecordingHook()
    guard = Guard(FixedDetector(0.9), hooks=[gate, hook])
    gate.open.set()
    guard.scan("", "No.")
    assert len(hook.events) == 1
    mine, childs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_scan_in_child, args=(guard, hook, childs))
    child.start()
    assert mine.poll(PATIENCE)
    assert mine.recv() == (True, 2, 0)  # the one it was born with, and its own
    child.join()
    guard.scan("", "No.")
    assert len(hook.events) == 2


# Each event costs a turn of the scheduler, which on a busy machine may take long: there are few of them, and the patience is great.
IN_CHILDREN = """
import multiprocessing, threading, time
from refusal_guard import Guard
from refusal_guard.events import delivery
from refusal_guard.testing import FixedDetector
delivery._FORK_SECONDS = 60
lock, told = threading.Lock(), []
def hook(event):
    with lock:  # a child that is born in here would wait for ever
        time.sleep(0.001)
        told.append(event)
guard = Guard(FixedDetector(0.9), hooks=[hook])
def scan(times):
    for _ in range(times):
        guard.scan("", "No.")
def scan_in_child():
    told.clear()
    scan(3)
    raise SystemExit(0 if guard.events.flush(60) and len(told) == 3 else 1)
threads = [threading.Thread(target=scan, args=(25,)) for _ in range(4)]
for thread in threads:
    thread.start()
children = [multiprocessing.get_context("fork").Process(target=scan_in_child) for _ in range(10)]
for child in children:
    child.start()
for waited in threads + children:
    waited.join()
assert guard.events.flush(60)
print([child.exitcode for child in children].count(0), len(told))
"""


@forking
def test_children_forked_while_hooks_are_at_work_tell_everything():
    assert run_python(IN_CHILDREN) == ["10", "100"]


MADE_WHILE_FORKING = """
import os
made, told = [], []
os.register_at_fork(before=lambda: made.append(Guard(FixedDetector(0.9), hooks=[told.append])))  # registered first, it comes last
from refusal_guard import Guard
from refusal_guard.testing import FixedDetector
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
made[0].scan("", "No.")
print(made[0].events.flush(60), len(told))
"""


@forking
def test_a_guard_made_while_the_process_forks_tells_its_events():
    assert run_python(MADE_WHILE_FORKING) == ["True", "1"]
