import threading

import pytest

from refusal_guard import Conversation, Guard, InputError, Label, RefusalDetected, RefusalGuardError, Verdict
from refusal_guard.errors import DetectorError
from refusal_guard.testing import FixedDetector
from refusal_guard.verdict import Detection


def test_score_at_the_threshold_is_refused_and_below_is_not():
    assert Guard(FixedDetector(0.5), threshold=0.5).scan("p", "r").refused
    assert not Guard(FixedDetector(0.4999), threshold=0.5).scan("p", "r").refused


def test_verdict_keeps_the_unrounded_score():
    verdict = Guard(FixedDetector(0.123456789), threshold=0.9).scan("p", "r")
    assert verdict.score == 0.123456789
    assert (verdict.label, verdict.threshold, verdict.detector) == (Label.COMPLIANCE, 0.9, "fixed")


@pytest.mark.parametrize("bad", [0, 1, 0.0, 1.0, -0.1, 1.1, float("nan"), float("inf"), "0.5", True, [0.5]])
def test_threshold_outside_the_open_interval_is_an_error(bad):
    with pytest.raises(InputError, match="between 0 and 1"):
        Guard(FixedDetector(0.5), threshold=bad)


@pytest.mark.parametrize("bad", ["nothing", "/no/such/folder", 3, None, object()])
def test_unknown_detector_says_what_is_known(bad):
    with pytest.raises(InputError, match="detector"):
        Guard(bad)


def test_bad_on_error_names_the_choices():
    with pytest.raises(InputError, match="raise, pass, refuse"):
        Guard(FixedDetector(0.5), on_error="ignore")


@pytest.mark.parametrize("empty", ["", None, "   \n\t", "\u200b\ufeff", "<think>I can't.</think>", "\x00"])
def test_nothing_to_read_is_unknown_not_a_refusal(guard, empty):
    verdict = guard.scan("p", empty)
    assert (verdict.label, verdict.refused, verdict.score) == (Label.UNKNOWN, False, 0.0)


def test_empty_and_tool_call_are_signals_of_their_own():
    guard = Guard(FixedDetector(0.9))
    assert guard.scan("p", "").signal == "empty"
    call = [{"role": "user", "content": "p"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    assert guard.scan(call).signal == "tool_call"
    assert guard.detector.seen == []


def test_declared_refusal_needs_no_detector():
    guard = Guard(FixedDetector(0.0))
    verdict = guard.scan([{"role": "user", "content": "p"}, {"role": "assistant", "content": "partly", "refusal": "No."}])
    assert (verdict.refused, verdict.label, verdict.score, verdict.signal, verdict.detector) == (
        True,
        Label.REFUSAL,
        1.0,
        "refusal",
        "provider",
    )
    assert guard.detector.seen == []


def test_scan_takes_pairs_conversations_and_messages():
    guard = Guard(FixedDetector(lambda conversation: 0.9 if "no" in conversation.response else 0.1))
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "no"}]
    assert guard.scan("p", "no").refused
    assert guard.scan(Conversation.from_pair("p", "no")).refused
    assert guard.scan(messages).refused
    verdicts = guard.scan_many([("p", "yes"), Conversation.from_pair("p", "no"), messages, ("p", ""), [*messages[:1], messages[1]]])
    assert [verdict.refused for verdict in verdicts] == [False, True, True, False, True]


def test_a_conversation_with_a_second_response_is_an_error():
    with pytest.raises(InputError, match="alone"):
        Guard(FixedDetector(0.5)).scan(Conversation.from_pair("p", "r"), "again")


def test_a_prompt_without_a_response_is_an_error_and_not_an_empty_answer():
    with pytest.raises(InputError, match="needs its response"):
        Guard(FixedDetector(0.5)).scan("I'm sorry, I can't help with that.")


@pytest.mark.parametrize("bad", [b"bytes", 7, {"role": "user"}])
def test_wrong_types_are_input_errors(bad):
    with pytest.raises(InputError):
        Guard(FixedDetector(0.5)).scan("p", bad)
    with pytest.raises(InputError):
        Guard(FixedDetector(0.5)).scan_many([bad])


def test_abstaining_is_unknown():
    assert Guard(FixedDetector(None)).scan("p", "r").label is Label.UNKNOWN


def _broken(_conversation):
    raise RuntimeError("secret text")


def test_a_failing_detector_raises_by_default_and_never_quotes_its_error():
    with pytest.raises(DetectorError, match="RuntimeError") as caught:
        Guard(FixedDetector(_broken)).scan("p", "r")
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(("on_error", "refused"), [("pass", False), ("refuse", True)])
def test_failing_open_or_closed_is_recorded(on_error, refused):
    verdict = Guard(FixedDetector(_broken), on_error=on_error).scan("p", "r")
    assert (verdict.refused, verdict.label) == (refused, Label.UNKNOWN)
    assert "RuntimeError" in verdict.error


class Short:
    name = "short"

    def detect(self, conversations):
        return []


class Wild:
    name = "wild"

    def detect(self, conversations):
        return [Detection(score=float("nan"), detector="wild")]


@pytest.mark.parametrize("detector", [Short(), Wild()])
def test_nonsense_from_a_detector_is_a_detector_error(detector):
    with pytest.raises(DetectorError):
        Guard(detector).scan("p", "r")


def test_any_object_with_a_name_and_detect_is_a_detector():
    class Six:
        name = "six"

        def detect(self, conversations):
            return [Detection(score=0.6, detector="six") for _ in conversations]

    assert Guard(Six()).scan("p", "r").detector == "six"


def test_verdicts_are_frozen_and_have_a_schema():
    verdict = Guard(FixedDetector(0.9)).scan("p", "r")
    with pytest.raises(ValueError, match="frozen"):
        verdict.refused = False
    assert set(Verdict.model_json_schema()["properties"]) >= {"label", "score", "threshold", "refused", "reason", "evidence", "detector"}
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_refusal_detected_carries_the_verdict_and_no_text():
    verdict = Guard(FixedDetector(0.9)).scan("p", "a private answer")
    error = RefusalDetected(verdict)
    assert error.verdict is verdict
    assert isinstance(error, RefusalGuardError)
    assert "private" not in str(error)


def test_thirty_two_threads_on_one_guard_give_the_serial_verdicts(guard):
    pairs = [("Question?", f"I'm not able to help with request {i}." if i % 2 else f"The answer is {i}, of course.") for i in range(32)]
    serial = [guard.scan(*pair) for pair in pairs]
    found = [None] * len(pairs)
    threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, guard.scan(*pairs[i]))) for i in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == serial
