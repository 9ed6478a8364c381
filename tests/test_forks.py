"""A forked child can do what its parent was in the middle of: no lock stays with a thread that is not there."""

import pytest
from processes import forking, run_python

pytestmark = forking


WHILE_READING = """
import multiprocessing, sys, threading
from refusal_guard import Guard
reading, forking = threading.Event(), threading.Event()
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("encoder.onnx") and not reading.is_set():
        reading.set()
        forking.wait()
guard = Guard()
sys.addaudithook(watch)
seen = []
def scan():
    seen.append(guard.scan("", "I can't help with that.").refused)
thread = threading.Thread(target=scan)
thread.start()
reading.wait()
child = multiprocessing.get_context("fork").Process(target=scan)
forking.set()
child.start()
thread.join()
child.join(60)
print(child.exitcode, *seen)
child.kill()
"""


def test_a_child_forked_while_the_model_is_read_can_scan():
    assert run_python(WHILE_READING) == ["0", "True"]


HELD = """
import os, threading
from refusal_guard import forks
lock, held, done = forks.ForkLock(), threading.Event(), threading.Event()
def hold():
    with lock:
        held.set()
        WAIT
thread = threading.Thread(target=hold)
thread.start()
held.wait()
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.take(5) else 1)
    return os.waitpid(child, 0)[1]
print(fork())
done.set()
thread.join()
print(lock.take(5))
"""


@pytest.mark.parametrize("wait", ["forks.time.sleep(0.1)", "forks._FORK_SECONDS = 0.1; done.wait()"], ids=["a while", "too long"])
def test_a_child_finds_a_lock_free_that_another_thread_holds(wait):
    assert run_python(HELD.replace("WAIT", wait)) == ["0", "True"]


HELD_BY_ITSELF = """
import os, threading
from refusal_guard.forks import ForkLock
lock = ForkLock()
def free():
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.take(5)))
    thread.start()
    thread.join()
    return taken[0]
with lock:
    child = os.fork()
if child == 0:
    os._exit(0 if free() else 1)
print(os.waitpid(child, 0)[1], free())
"""


def test_a_thread_that_forks_while_it_holds_a_lock_gives_it_back_on_both_sides():
    assert run_python(HELD_BY_ITSELF) == ["0", "True"]
