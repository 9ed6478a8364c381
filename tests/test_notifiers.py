"""Notifiers against real servers that work, fail, stall or are gone, and what becomes of notices nobody takes."""

import json
import logging
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from alert_cases import Clock, event

from refusal_guard import InputError
from refusal_guard.alerts import Alerts, AppriseNotifier, Limits, NotifierError, Rule, Webhook
from refusal_guard.alerts.outbox import Outbox

ONE = Rule(name="one", kind="refusals", count=1, by=("model",))
STALL = object()
APPRISE = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # one of Apprise's services imports a module that is on its way out


class Receiver:
    """A webhook server on the loopback interface; `answers` are statuses or STALL, one a request, and 200 thereafter."""

    def __init__(self, *answers):
        self.answers, self.bodies, self.headers = deque(answers), [], []
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/SECRET-PATH"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        receiver = self.receiver
        receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        receiver.headers.append(self.headers)
        answer = receiver.answers.popleft() if receiver.answers else 200
        if answer is STALL:
            receiver.released.wait(30)
            return
        self.send_response(answer)
        if 300 <= answer < 400:
            self.send_header("Location", receiver.url)
        self.send_header("Content-Length", "0")
        self.end_headers()


def alerts(*notifiers, attempts=3, wait=0.001):
    return Alerts([ONE], notifiers, limits=Limits(attempts=attempts, wait=wait), clock=Clock())


def test_a_webhook_gets_every_field_as_json():
    with Receiver() as receiver:
        room = alerts(Webhook(receiver.url, headers={"Authorization": "Bearer key"}))
        room(event(refused=True, conversation_id="c1"))
        assert room.flush(10)
    [body] = receiver.bodies
    assert body["state"] == "raised"
    assert body["key"] == "one|model=small"
    assert body["conversations"] == ["c1"]
    assert {"title", "text", "id", "rate", "samples", "hits", "causes"} <= set(body)
    assert receiver.headers[0]["Authorization"] == "Bearer key"
    assert receiver.headers[0]["Content-Type"] == "application/json"


def test_a_webhook_speaks_to_slack_and_lets_no_label_mention_anybody():
    with Receiver() as receiver:
        room = alerts(Webhook(receiver.url, format="slack"))
        room(event(refused=True, model="<!channel> & co"))
        assert room.flush(10)
    [body] = receiver.bodies
    assert set(body) == {"text"}
    assert "model &lt;!channel&gt; &amp; co" in body["text"]
    assert "<" not in body["text"]


@pytest.mark.parametrize("answer", [500, 503, 429, 404, 302])
def test_a_notice_is_told_again_where_the_server_did_not_take_it(answer, caplog):
    with Receiver(answer, answer) as receiver:
        room = alerts(Webhook(receiver.url))
        room(event(refused=True))
        assert room.flush(10)
    assert (room.stats.told, room.stats.retried, room.stats.lost) == (1, 2, 0)
    assert len({body["id"] for body in receiver.bodies}) == 1
    assert f"Webhook failed: the webhook answered {answer}; trying again" in caplog.text
    assert "SECRET-PATH" not in caplog.text


def test_a_server_that_fails_to_the_last_loses_nothing_silently(caplog):
    with Receiver(500, 500, 500) as receiver:
        room = alerts(Webhook(receiver.url))
        room(event(refused=True))
        assert room.flush(10)
    assert (room.stats.told, room.stats.retried, room.stats.lost) == (0, 2, 1)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "one|model=small" in record.getMessage()
    assert "the webhook answered 500" in record.getMessage()


def test_a_server_that_is_gone_is_asked_again_and_the_loss_is_logged(caplog):
    with Receiver() as receiver:
        pass
    room = alerts(Webhook(receiver.url))
    room(event(refused=True))
    assert room.flush(10)
    assert (room.stats.told, room.stats.lost) == (0, 1)
    assert "the webhook can't be reached" in caplog.text
    assert "SECRET-PATH" not in caplog.text


def test_a_server_that_stalls_holds_up_no_call_and_no_other_notifier():
    others = []
    with Receiver(STALL) as receiver:
        room = alerts(Webhook(receiver.url, timeout=0.2), others.append)
        for model in ("a", "b", "c"):
            room(event(refused=True, model=model))
        assert len(room.open) == 3  # all events are through while the first notice hangs
        assert room.flush(10)
        assert [notice.labels["model"] for notice in others] == ["a", "b", "c"]
        assert [body["labels"]["model"] for body in receiver.bodies] == ["a", "a", "b", "c"]
    assert (room.stats.told, room.stats.retried, room.stats.lost) == (6, 1, 0)


def test_closing_gives_up_a_wait_and_counts_what_is_lost(caplog):
    def broken(alert):
        raise OSError("SECRET-MESSAGE")

    room = alerts(broken, wait=3_600.0, attempts=9)
    room(event(refused=True))
    room(event(refused=True, model="large"))
    assert not room.close(0.05)
    assert room.flush(10)
    room(event(refused=True, model="late"))
    assert (room.stats.told, room.stats.lost) == (0, 3)
    assert caplog.text.count("was not told that") == 3
    assert "SECRET-MESSAGE" not in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RecursionError])
def test_whatever_a_notifier_raises_the_next_notice_is_told(error):
    told = deque()

    def once_broken(alert):
        told.append(alert.labels["model"])
        if len(told) == 1:
            raise error

    room = alerts(once_broken, attempts=1)
    room(event(refused=True, model="a"))
    room(event(refused=True, model="b"))
    assert room.flush(10)
    assert list(told) == ["a", "b"]
    assert (room.stats.told, room.stats.lost) == (1, 1)


def test_waits_double_up_to_five_minutes_however_often_it_is_tried():
    outbox = Outbox(print, attempts=5_000, wait=1.0)
    assert [outbox._pause(attempt) for attempt in (1, 2, 3, 9, 10, 5_000)] == [1.0, 2.0, 4.0, 256.0, 300.0, 300.0]


def test_a_notifier_that_has_to_be_awaited_is_an_error():
    async def notify(alert):
        pass

    with pytest.raises(InputError, match="awaited"):
        alerts(notify)


def test_more_than_can_wait_are_lost_oldest_first_and_logged(caplog):
    gate, told = threading.Event(), []

    def slow(alert):
        gate.wait(10)
        told.append(alert.labels["model"])

    outbox = Outbox(slow, attempts=1, wait=0.0, capacity=2)
    room = alerts(lambda alert: outbox.put(alert))
    for model in "abcde":
        room(event(refused=True, model=model))
        assert room.flush(10)
        assert wait_until(lambda: outbox._in_hand)
    gate.set()
    assert outbox.flush(10)
    assert told == ["a", "d", "e"]
    assert outbox.lost == 2
    assert caplog.text.count("too many wait") == 2


def wait_until(holds):
    return any(holds() or threading.Event().wait(0.01) for _ in range(500))


def test_the_default_notifier_logs_a_warning_and_then_an_info(caplog):
    caplog.set_level(logging.INFO, logger="refusal_guard.alerts")
    clock = Clock()
    room = Alerts([ONE], clock=clock)
    room(event(refused=True))
    clock.now += 14_500
    room.tick()
    assert room.flush(10)
    raised, resolved = caplog.records
    assert (raised.levelname, resolved.levelname) == ("WARNING", "INFO")
    assert raised.getMessage().startswith("Refusals: model small: 1 of 1 answers (100%)")
    assert resolved.getMessage().startswith("Resolved: Refusals: model small: 0 of 0 answers")
    assert raised.refusal_guard_alert["key"] == "one|model=small"


@APPRISE
def test_apprise_hands_alerts_to_its_services():
    pytest.importorskip("apprise", reason="needs the extra apprise")
    with Receiver() as receiver:
        room = alerts(AppriseNotifier(receiver.url.replace("http://", "json://")))
        room(event(refused=True))
        assert room.flush(10)
    [body] = receiver.bodies
    assert body["title"] == "Refusals: model small"
    assert body["type"] == "warning"
    assert room.stats.told == 1


@APPRISE
def test_apprise_that_reaches_nobody_is_an_error():
    pytest.importorskip("apprise", reason="needs the extra apprise")
    with Receiver(500) as receiver:
        notify = AppriseNotifier(receiver.url.replace("http://", "json://"))
        room = alerts(notify, attempts=1)
        room(event(refused=True))
        assert room.flush(10)
        assert room.stats.lost == 1
        with pytest.raises(InputError, match="kind of URL"):
            AppriseNotifier("nosuchservice://host")
    with pytest.raises(NotifierError, match="could not"):
        notify(*raised_alert())


def raised_alert():
    notices = []
    room = alerts(notices.append)
    room(event(refused=True))
    assert room.flush(10)
    return notices


@pytest.mark.parametrize("url", ["", "example.com/hook", "file:///etc/passwd", "ftp://host/", "http://", None, 5])
def test_a_webhook_needs_a_web_address(url):
    with pytest.raises(InputError, match="http"):
        Webhook(url)


def test_a_webhook_needs_a_known_format():
    with pytest.raises(InputError, match="json, slack"):
        Webhook("http://localhost/", format="teams")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "5"])
def test_a_webhook_needs_a_timeout(timeout):
    with pytest.raises(InputError, match="timeout"):
        Webhook("http://localhost/", timeout=timeout)
