"""Rules at work: when an alert is raised, under which label, once, and when it is over."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from alert_cases import Room, event
from pydantic import ValidationError

from refusal_guard import Guard, InputError
from refusal_guard.alerts import DEFAULT_RULES, Alert, Alerts, Limits, Rule, Webhook, log_alert
from refusal_guard.events import flush
from refusal_guard.testing import FixedDetector

REFUSALS = Rule(name="refusals", kind="refusals", rate=0.2)
QUICK = Rule(name="quick", kind="refusals", rate=0.5, min_samples=4, window=60.0, max_window=60.0, cooldown=0.0)
KEY = "refusals|model=small|route=chat"
QUICK_KEY = "quick|model=small|route=chat"


def test_three_refusals_after_a_restart_alarm_nobody_by_default():
    room = Room(*DEFAULT_RULES)
    room.send(*[event(refused=True)] * 3, *[event()] * 200, every=0.5)
    assert room.told() == []


def test_a_jump_is_told_once_under_its_label_and_resolved_once():
    room = Room(*DEFAULT_RULES)
    room.send(*[event(), event(model="large")] * 300)
    room.send(*[event(), event(model="large"), event(refused=True)] * 200)
    assert room.told() == [("raised", KEY)]
    room.send(*[event()] * 600)
    assert room.told() == [("raised", KEY), ("resolved", KEY)]
    assert len({notice.id for notice in room.notices}) == 1


def test_the_alert_says_what_was_seen():
    room = Room(QUICK)
    room.send(event(), event(), event(refused=True, reason="cannot", conversation_id="c1"))
    room.send(event(refused=True, signal="filtered", category="violence", conversation_id="c2"))
    room.told()
    [alert] = room.notices
    assert (alert.hits, alert.samples, alert.rate, alert.threshold, alert.trigger) == (2, 4, 0.5, 0.5, "rate")
    assert alert.labels == {"model": "small", "route": "chat"}
    assert alert.causes == {"violence": 1, "cannot": 1}
    assert alert.conversations == ("c2", "c1")
    assert alert.time == alert.since == room.clock.now
    assert alert.title == "Refusals: model small, route chat"
    assert alert.text == "2 of 4 answers (50%) in the last 60 s; rule quick alerts from 50%. Latest: 1 violence, 1 cannot."
    assert Alert.model_validate_json(alert.model_dump_json()) == alert


def test_an_alert_stays_open_between_the_two_thresholds():
    room = Room(QUICK)
    room.send(*[event(refused=True)] * 4, *[event()] * 4)
    assert room.told() == [("raised", QUICK_KEY)]
    assert [alert.key for alert in room.alerts.open] == [QUICK_KEY]
    room.send(*[event()] * 2)  # 4 of 10 is 0.8 times the threshold: not below it yet
    assert room.told() == [("raised", QUICK_KEY)]
    room.send(event())
    assert room.told()[1:] == [("resolved", QUICK_KEY)]
    assert room.alerts.open == []


def test_each_episode_has_its_id_and_all_have_one_key():
    room = Room(QUICK)
    for _ in range(2):
        room.send(*[event(refused=True)] * 4, *[event()] * 60)
        room.clock.now += 3_600
    room.told()
    ids = [notice.id for notice in room.notices]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert {notice.key for notice in room.notices} == {QUICK_KEY}


def test_ids_are_the_same_for_the_same_traffic():
    rooms = [Room(QUICK), Room(QUICK)]
    for room in rooms:
        room.send(*[event(refused=True)] * 4)
        room.told()
    assert rooms[0].notices == rooms[1].notices


def test_a_cooldown_holds_the_next_alert_back_and_then_lets_it_out():
    room = Room(QUICK.model_copy(update={"cooldown": 300.0}))
    room.send(*[event(refused=True)] * 4, *[event()] * 60, *[event(refused=True)] * 60)
    assert room.told() == [("raised", QUICK_KEY), ("resolved", QUICK_KEY)]
    assert room.alerts.stats.held_back == 1
    room.send(*[event(refused=True)] * 200)
    assert room.told()[2:] == [("raised", QUICK_KEY)]


def test_no_more_alerts_an_hour_than_allowed(caplog):
    room = Room(QUICK, max_per_hour=2)
    for model in ("a", "b", "c", "d"):
        room.send(*[event(refused=True, model=model)] * 5)
    assert [key for _, key in room.told()] == [f"quick|model={model}|route=chat" for model in ("a", "b")]
    assert room.alerts.stats.held_back == 2
    assert "quick|model=c|route=chat is held back" in caplog.text
    room.clock.now += 3_600
    room.send(*[event(refused=True, model="c")] * 4)
    assert ("raised", "quick|model=c|route=chat") in room.told()


@pytest.mark.parametrize(
    ("kind", "hit", "other"),
    [
        ("refusals", {"refused": True}, {"label": "unknown", "signal": "blocked", "refused": True, "stage": "input"}),
        ("blocked_prompts", {"refused": True, "signal": "blocked", "stage": "input"}, {"refused": True}),
        ("flagged_prompts", {"signal": "flagged", "stage": "input"}, {"signal": "flagged", "stage": "output"}),
        ("not_run", {"label": "unknown", "error": "detector failed", "stage": "guard"}, {"refused": True}),
        ("not_run", {"signal": "not_run", "stage": "guard"}, {"label": "unknown", "signal": "empty"}),
    ],
)
def test_each_kind_counts_its_own_and_nothing_else(kind, hit, other):
    room = Room(Rule(name="one", kind=kind, count=3, by=()))
    room.send(*[event(**other)] * 5, *[event()] * 5, *[event(**hit)] * 2)
    assert room.told() == []
    room.send(event(**hit))
    assert room.told() == [("raised", "one")]


@pytest.mark.parametrize(
    "unjudged",
    [
        {"label": "unknown", "signal": "tool_call"},
        {"label": "unknown", "error": "detector failed", "refused": True},
        {"refused": True, "signal": "blocked"},
    ],
)
def test_what_was_not_judged_is_no_answer_in_a_rate_of_refusals(unjudged):
    room = Room(QUICK)
    room.send(*[event(**unjudged)] * 50, *[event(), event(refused=True)] * 2)
    room.told()
    assert [(notice.samples, notice.hits) for notice in room.notices] == [(4, 2)]


def test_a_row_of_hits_is_broken_by_one_other_sample():
    room = Room(Rule(name="down", kind="not_run", consecutive=3, by=()))
    broken = event(label="unknown", error="detector failed")
    room.send(broken, broken, event(), broken, broken)
    assert room.told() == []
    room.send(broken, event())
    assert room.told() == [("raised", "down"), ("resolved", "down")]


def test_several_triggers_of_a_rule_make_one_alert():
    room = Room(*[rule for rule in DEFAULT_RULES if rule.kind == "not_run"])
    room.send(*[event(label="unknown", error="detector failed")] * 300)
    assert room.told() == [("raised", "not_run|model=small|route=chat")]
    assert room.notices[0].trigger == "consecutive"
    assert room.notices[0].samples == 5


def test_a_multiple_of_the_baseline_is_asked_for_too():
    rule = Rule(name="up", kind="refusals", rate=0.2, times_baseline=3.0, min_samples=20, baseline=600.0, by=(), max_window=300.0)
    usual = [event(), event(), event(), event(refused=True)] * 250
    room = Room(rule)
    room.send(*[event(refused=True)] * 200)  # nothing is known of before
    assert room.told() == []
    room = Room(rule)
    room.send(*usual)
    assert room.told() == []
    room.send(*[event(refused=True)] * 240)
    assert room.told() == [("raised", "up")]
    assert room.notices[0].baseline == pytest.approx(0.25, abs=0.01)
    assert room.notices[0].threshold == pytest.approx(0.75, abs=0.03)


def test_a_service_with_few_calls_is_watched_over_a_longer_time():
    room = Room(REFUSALS)
    room.send(*[event()] * 80, *[event(refused=True)] * 20, every=30.0)
    assert room.told() == [("raised", KEY)]
    assert room.notices[0].seconds == pytest.approx(80 * 30, abs=60)


def test_a_count_is_that_of_the_window_whatever_a_rate_reaches_back_for():
    for rate in (None, 0.99):
        room = Room(Rule(name="many", kind="refusals", rate=rate, count=5, by=()))
        room.send(*[event(refused=True)] * 4, *[event()] * 3)
        room.clock.now += 400
        room.send(*[event(refused=True)] * 4)
        assert room.told() == []
        room.send(event(refused=True))
        assert room.told() == [("raised", "many")]


def test_alerts_can_be_pickled_with_the_guard_they_watch():
    alerts = Alerts([QUICK], [Webhook("http://127.0.0.1:9/"), log_alert], limits=Limits(max_keys=3))
    copied = pickle.loads(pickle.dumps(alerts))
    assert (copied.rules, copied.limits) == (alerts.rules, alerts.limits)
    guard = pickle.loads(pickle.dumps(Guard(FixedDetector(0.1), hooks=[alerts])))
    guard.scan_many([("p", "r")] * 4)
    assert guard.events.flush(10)
    assert guard.events.failures == (0,)


def test_an_alert_is_over_when_nothing_more_comes():
    room = Room(REFUSALS, Rule(name="down", kind="not_run", consecutive=3, by=()))
    room.send(*[event(refused=True)] * 80, *[event(label="unknown", error="detector failed")] * 3)
    assert room.told() == [("raised", KEY), ("raised", "down")]
    room.clock.now += 14_500
    room.alerts.tick()
    assert room.told()[2:] == [("resolved", KEY), ("resolved", "down")]


def test_a_rule_keeps_to_the_labels_it_names():
    room = Room(QUICK.model_copy(update={"only": {"model": frozenset({"large"})}}))
    room.send(*[event(refused=True)] * 10)
    assert room.told() == []
    room.send(*[event(refused=True, model="large")] * 4)
    assert room.told() == [("raised", "quick|model=large|route=chat")]


def test_a_clock_that_goes_back_raises_and_loses_nothing():
    room = Room(REFUSALS)
    room.send(*[event()] * 200)
    room.clock.now -= 86_400
    room.send(*[event()] * 200, *[event(refused=True)] * 100)
    assert room.told() == [("raised", KEY)]
    room.clock.now -= 10 * 86_400
    room.send(*[event()] * 600)
    assert room.told() == [("raised", KEY), ("resolved", KEY)]


def test_missing_and_odd_labels_are_counted_as_unknown_or_as_text():
    odd = [
        SimpleNamespace(**event(refused=True).model_dump() | {"model": value}) for value in (None, "", " \n", True, 1.5, ["x"], object())
    ]
    room = Room(QUICK.model_copy(update={"by": ("model",)}))
    room.send(*odd, event(refused=True, model="line\nbreak\x1b[31m"), SimpleNamespace(**event(refused=True).model_dump() | {"model": 4}))
    assert room.told() == [("raised", "quick|model=unknown")]
    room.send(*[event(refused=True, model="a\nb" + "x" * 1_000)] * 4)
    assert room.told()[1][1] == "quick|model=ab" + "x" * 197


def test_ten_thousand_labels_share_what_is_left_and_are_seen_still():
    room = Room(QUICK, max_keys=100)
    room.send(*[event(refused=True, model=f"m{number}") for number in range(10_000)], every=0.001)
    assert room.told() == [("raised", "quick|model=other|route=other")]
    [watch] = room.alerts._watches
    assert len(watch._tracks) == 101
    room.clock.now += 3_600
    room.send(event(refused=True, model="new"), every=100.0)
    assert len(watch._tracks) < 5


def test_sixty_four_threads_lose_no_event():
    rule = Rule(name="all", kind="refusals", count=64 * 500, by=(), window=3_600.0)
    notices = []
    alerts = Alerts([rule], [notices.append])
    refused = event(refused=True)
    threads = [threading.Thread(target=lambda: [alerts(refused) for _ in range(500)]) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alerts.flush(10)
    assert [(notice.state, notice.hits, notice.samples) for notice in notices] == [("raised", 64 * 500, 64 * 500)]


def test_alerts_are_a_hook_of_a_guard_and_hold_no_text():
    notices = []
    alerts = Alerts([QUICK], [notices.append])
    guard = Guard(FixedDetector(0.9), hooks=[alerts], include_text=True, route="chat")
    guard.scan_many([("CANARY-PROMPT", "CANARY-RESPONSE")] * 4)
    assert flush(10)
    assert alerts.flush(10)
    assert [notice.key for notice in notices] == ["quick|model=unknown|route=chat"]
    assert "CANARY" not in notices[0].model_dump_json() + notices[0].title + notices[0].text
    assert "CANARY" not in repr(alerts._watches[0]._tracks)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "can never fire"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"count": 0}, "count"),
        ({"consecutive": -1}, "consecutive"),
        ({"rate": 0.2, "window": -5.0}, "window"),
        ({"rate": 0.2, "window": float("inf")}, "window"),
        ({"rate": 0.2, "window": 300.0, "max_window": 60.0}, "max_window"),
        ({"rate": 0.2, "window": 100.0}, "max_window"),
        ({"rate": 0.2, "window": 1e-300}, "window"),
        ({"rate": 0.2, "min_samples": 0}, "min_samples"),
        ({"rate": 0.2, "cooldown": -1.0}, "cooldown"),
        ({"rate": 0.2, "resolve": 0.0}, "resolve"),
        ({"rate": 0.2, "times_baseline": 1.0}, "times_baseline"),
        ({"count": 5, "times_baseline": 2.0}, "needs a rate"),
        ({"rate": 0.2, "by": ("model", "model")}, "twice"),
        ({"rate": 0.2, "by": ("conversation_id",)}, "by"),
        ({"rate": 0.2, "by": ("category",)}, "category"),
        ({"consecutive": 3, "only": {"provider": {"openai"}}}, "provider"),
        ({"rate": 0.2, "only": {"model": set()}}, "only"),
        ({"rate": 0.2, "kind": "crashes"}, "kind"),
        ({"rate": 0.2, "name": "a b"}, "name"),
        ({"rate": 0.2, "thresold": 0.3}, "thresold"),
    ],
)
def test_a_rule_that_can_not_work_is_an_error_when_it_is_made(settings, says):
    with pytest.raises(ValidationError, match=says):
        Rule(**{"name": "r", "kind": "refusals"} | settings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": []}, "no rules"),
        ({"rules": [QUICK, QUICK]}, "same name: quick"),
        ({"rules": ["refusals"]}, "Rule"),
        ({"notifiers": ["http://localhost"]}, "blocking function"),
        ({"notifiers": []}, "no notifiers"),
    ],
)
def test_alerts_that_tell_nobody_are_an_error(arguments, says):
    with pytest.raises(InputError, match=says):
        Alerts(**arguments)


@pytest.mark.parametrize(
    "limits", [{"max_per_hour": 0}, {"max_keys": 0}, {"attempts": 0}, {"wait": -1.0}, {"wait": float("inf")}, {"most": 1}]
)
def test_limits_out_of_range_are_an_error(limits):
    with pytest.raises(ValidationError, match=next(iter(limits))):
        Limits(**limits)


def test_an_open_alert_is_looked_at_again_without_events():
    code = """
import time
from alert_cases import Clock, event
from refusal_guard.alerts import Alerts, Rule, monitor
monitor._TICK_SECONDS = 0.01
clock, notices = Clock(), []
alerts = Alerts([Rule(name="one", kind="refusals", count=1, by=(), max_window=300.0)], [notices.append], clock=clock)
alerts(event(refused=True))
clock.now += 301
while alerts.open:
    time.sleep(0.01)
alerts.flush()
print([notice.state for notice in notices])
"""
    assert in_python(code).stdout.strip() == "['raised', 'resolved']"


def test_what_waits_at_exit_is_told():
    code = """
from alert_cases import event
from refusal_guard import Guard
from refusal_guard.alerts import Alerts, Rule
from refusal_guard.testing import FixedDetector
rule = Rule(name="one", kind="refusals", count=1, by=())
Guard(FixedDetector(0.9), hooks=[Alerts([rule], [lambda alert: print(alert.title, flush=True)])]).scan("p", "r")
"""
    assert in_python(code).stdout.strip() == "Refusals"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_begins_anew():
    code = """
import os, time
from alert_cases import event
from refusal_guard.alerts import Alerts, Rule
told = lambda alert: print(os.getpid(), alert.state, flush=True)
alerts = Alerts([Rule(name="one", kind="refusals", count=2, by=())], [told])
alerts(event(refused=True))
child = os.fork()
alerts(event(refused=True))
alerts.flush(10)
if child:
    os.waitpid(child, 0)
    print("parent", os.getpid(), flush=True)
else:
    os._exit(0)
"""
    lines = in_python(code).stdout.split()
    assert lines == [lines[0], "raised", "parent", lines[0]]


def in_python(code):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment)
