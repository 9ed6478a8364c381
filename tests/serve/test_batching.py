"""What requests share: batches, and detectors that raise, hang or are asked too much."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")

from served import ANSWER, CANARY, REFUSAL, Scripted, Served, until

from refusal_guard import Guard, InputError
from refusal_guard.detectors.embedded import EmbeddedDetector
from refusal_guard.serve.app import create_app
from refusal_guard.serve.limits import Limits


@pytest.fixture
def detector():
    detector = Scripted()
    yield detector
    detector.release.set()


def waiting(served):
    line = next(line for line in served.client.get("/metrics").text.splitlines() if line.startswith("refusal_guard_waiting_responses "))
    return float(line.split()[1])


def while_one_hangs(served, detector, responses):
    """Send responses while the only thread is busy, let it go on when all wait, and return the answers, the busy one's first."""
    with ThreadPoolExecutor(len(responses) + 1) as pool:
        first = pool.submit(served.scan, "hang")
        detector.entered.acquire()
        others = [pool.submit(served.scan, response) for response in responses]
        until(lambda: waiting(served) == len(responses))
        detector.release.set()
        return [future.result() for future in (first, *others)]


def test_requests_that_wait_are_judged_in_one_batch(detector):
    with Served(detector, threads=1, batch_size=4) as served:
        answers = while_one_hangs(served, detector, ["sorry", "fine"] * 3)
    assert detector.sizes == [1, 4, 2]
    assert [answer.json()["refused"] for answer in answers] == [False, *[True, False] * 3]


def test_a_response_that_breaks_the_detector_takes_no_other_along(detector):
    with Served(detector, threads=1) as served:
        answers = while_one_hangs(served, detector, ["sorry", f"raise {CANARY}", "fine"])
    assert [answer.status_code for answer in answers] == [200, 200, 503, 200]
    assert answers[2].json() == {"error": "detector scripted failed: ValueError"}


def test_the_embedded_model_reads_one_request_at_a_time():
    class Watched(EmbeddedDetector):
        entered, release, sizes = threading.Semaphore(0), threading.Event(), []

        def detect(self, conversations):
            self.sizes.append(len(conversations))
            self.entered.release()
            self.release.wait(60)
            return super().detect(conversations)

    watched = Watched()
    with Served(watched, threads=1) as served:
        answers = while_one_hangs(served, watched, [REFUSAL, ANSWER])
    assert watched.sizes == [1, 1, 1]
    assert [answer.json()["refused"] for answer in answers] == [False, True, False]


@pytest.mark.parametrize("fault", ["raise", "exit"])
def test_a_detector_that_raises_is_answered_with_503_and_asked_again(detector, fault, caplog):
    with Served(detector, threads=1) as served:
        answer = served.scan(f"{fault} {CANARY}")
        assert served.scan(ANSWER).status_code == 200
    assert answer.status_code == 503
    assert CANARY not in answer.text + caplog.text
    assert "detector scripted failed" in caplog.text


def test_a_list_with_one_response_that_fails_has_no_verdicts(detector):
    with Served(detector) as served:
        answer = served.client.post("/v1/scan", json=[{"response": "fine"}, {"response": "raise"}])
    assert (answer.status_code, list(answer.json())) == (503, ["error"])


def test_a_detector_that_hangs_is_answered_with_504_and_its_thread_replaced(detector):
    with Served(detector, threads=1, timeout=0.2) as served:
        for _ in range(3):
            assert served.scan("hang").status_code == 504
            until(lambda: served.scan(ANSWER).status_code == 200)
        assert served.client.get("/readyz").status_code == 200


def test_with_too_many_hanging_threads_the_service_lives_but_is_not_ready_until_one_comes_back(detector):
    with Served(detector, threads=16, timeout=0.1) as served:
        with ThreadPoolExecutor(32) as pool:
            assert {answer.status_code for answer in pool.map(served.scan, ["hang"] * 32)} <= {503, 504}
        while served.client.get("/readyz").status_code == 200:
            served.scan("hang")
        assert served.client.get("/healthz").status_code == 200
        refused = served.scan(ANSWER)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        detector.release.set()
        until(lambda: served.scan(ANSWER).status_code == 200)
        assert served.client.get("/readyz").status_code == 200


def test_more_than_may_wait_is_told_to_come_back(detector):
    with Served(detector, threads=1, max_waiting=2) as served, ThreadPoolExecutor(3) as pool:
        first = pool.submit(served.scan, "hang")
        detector.entered.acquire()
        others = [pool.submit(served.scan, ANSWER) for _ in range(2)]
        until(lambda: waiting(served) == 2)
        refused = served.scan(ANSWER)
        ready = served.client.get("/readyz").status_code
        detector.release.set()
        assert [future.result().status_code for future in (first, *others)] == [200] * 3
    assert (refused.status_code, refused.headers["Retry-After"], ready) == (503, "1", 503)


@pytest.mark.parametrize(
    "name", ["max_body", "max_items", "max_waiting", "max_connections", "body_timeout", "timeout", "threads", "batch_size"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_an_input_error(name, value):
    with pytest.raises(InputError, match=name):
        Limits(**{name: value})


def test_the_guard_handed_over_is_not_changed(detector):
    guard = Guard(detector, on_error="refuse")
    create_app(guard)
    assert guard.on_error == "refuse"
