"""The cascade: who decides what, on which scale, and how its band is chosen."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import Conversation, Guard, InputError, Label
from refusal_guard.detectors.cascade import BandChoice, Cascade, choose_band
from refusal_guard.errors import DetectorError
from refusal_guard.testing import FixedDetector
from refusal_guard.verdict import Detection, Reason, Span

PROBABILITY = st.floats(0.0, 1.0)
THRESHOLD = st.floats(0.01, 0.99)


def stage(answer, name="fixed", threshold=0.5):
    """A detector that answers a score for every conversation, None, or what a function says of one."""
    detector = FixedDetector(answer)
    detector.name, detector.threshold = name, threshold
    return detector


def numbers(*values):
    return [Conversation.from_pair("p", str(value)) for value in values]


def said(conversation):
    """The score that stands in the response; None where it says so."""
    return None if conversation.response == "None" else float(conversation.response)


def test_only_the_band_and_abstentions_go_on_in_one_batch():
    heavy = stage(0.9, "heavy")
    cascade = Cascade([stage(said, "cheap"), heavy], band=(0.3, 0.6))
    found = cascade.detect(numbers(0.1, 0.3, 0.29, 0.6, 0.61, None, 0.45))
    assert [one.detector.removeprefix("cascade:") for one in found] == ["cheap", "heavy", "cheap", "heavy", "cheap", "heavy", "heavy"]
    assert [one.score for one in found] == [0.1, 0.9, 0.29, 0.9, 0.61, 0.9, 0.9]
    assert [conversation.response for conversation in heavy.seen] == ["0.3", "0.6", "None", "0.45"]


class Counting:
    """Counts how often it is asked, and with how many."""

    name, threshold = "counting", 0.5

    def __init__(self):
        self.batches = []

    def detect(self, conversations):
        self.batches.append(len(conversations))
        return [Detection(score=0.5, detector=self.name) for _ in conversations]


def test_a_later_detector_is_asked_once_or_not_at_all():
    heavy = Counting()
    cascade = Cascade([stage(said), heavy], band=(0.4, 0.6))
    cascade.detect(numbers(0.1, 0.9))
    assert heavy.batches == []
    cascade.detect(numbers(*[0.5] * 100))
    assert heavy.batches == [100]
    assert cascade.detect([]) == []


def test_three_detectors_share_the_band():
    middle, last = stage(lambda c: {"0.5": 0.9, "0.55": 0.55}[c.response], "middle"), stage(0.0, "last")
    found = Cascade([stage(said, "first"), middle, last], band=(0.4, 0.6)).detect(numbers(0.1, 0.5, 0.55))
    assert [(one.detector, one.score) for one in found] == [("cascade:first", 0.1), ("cascade:middle", 0.9), ("cascade:last", 0.0)]


def test_where_the_later_one_abstains_the_earlier_word_stands():
    found = Cascade([stage(said, "cheap"), stage(None, "heavy")], band=(0.0, 1.0)).detect(numbers(0.4, None))
    assert (found[0].score, found[0].detector) == (0.4, "cascade:cheap")
    assert found[1] is None


class Wordy:
    """Knows why, where and how much."""

    name = "wordy"

    def detect(self, conversations):
        details = {"label": Label.PARTIAL, "reason": Reason.CANNOT, "evidence": Span(0, 1), "truncated": ("response",)}
        return [Detection(score=0.5, detector=self.name, **details) for _ in conversations]


def test_what_the_deciding_detector_leaves_open_comes_from_the_one_before():
    (found,) = Cascade([Wordy(), stage(0.8)], band=(0.4, 0.6)).detect(numbers(1))
    assert (found.score, found.label, found.reason, found.evidence) == (0.8, Label.PARTIAL, Reason.CANNOT, (0, 1))
    assert found.truncated == ()  # what the other one did not read is not this one's fault


@given(PROBABILITY, THRESHOLD, THRESHOLD)
def test_each_detectors_own_threshold_decides(score, cheap, heavy):
    guard = Guard(Cascade([stage(None, threshold=cheap), stage(score, threshold=heavy)], band=(0.0, 1.0)))
    verdict = guard.scan("p", "r")
    assert guard.threshold == cheap
    assert verdict.refused == (score >= heavy)


@given(PROBABILITY, PROBABILITY, THRESHOLD, THRESHOLD)
def test_bringing_scores_to_one_scale_keeps_their_order(one, other, cheap, heavy):
    cascade = Cascade([stage(None, threshold=cheap), stage(said, threshold=heavy)], band=(0.0, 1.0))
    low, high = (found.score for found in cascade.detect(numbers(*sorted([one, other]))))
    assert 0.0 <= low <= high <= 1.0


@given(PROBABILITY, THRESHOLD)
def test_equal_thresholds_leave_scores_alone(score, threshold):
    (found,) = Cascade([stage(None, threshold=threshold), stage(score, threshold=threshold)], band=(0.0, 1.0)).detect(numbers(1))
    assert found.score == score


def test_ends_of_the_scale_stay():
    found = Cascade([stage(None, threshold=0.2), stage(said, threshold=0.7)], band=(0.0, 1.0)).detect(numbers(0.0, 0.7, 1.0))
    assert [one.score for one in found] == [0.0, 0.2, 1.0]


def test_the_first_ones_scores_are_not_touched():
    (found,) = Cascade([stage(0.123456789, threshold=0.3), stage(0.0)], band=(0.5, 0.6)).detect(numbers(1))
    assert found.score == 0.123456789


def test_the_guards_own_signals_need_neither_detector():
    cheap, heavy = stage(0.5), stage(0.5)
    guard = Guard(Cascade([cheap, heavy], band=(0.0, 1.0)))
    declared = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x", "refusal": "No."}]
    assert guard.scan(declared).detector == "provider"
    assert guard.scan("p", "").signal == "empty"
    assert cheap.seen == heavy.seen == []


def test_a_failing_later_detector_raises_and_the_guard_records_it():
    def broken(_conversation):
        raise DetectorError("down", detector="heavy")

    cascade = Cascade([stage(said), stage(broken, "heavy")], band=(0.4, 0.6))
    with pytest.raises(DetectorError, match="down"):
        cascade.detect(numbers(0.5))
    verdicts = Guard(cascade, on_error="pass").scan_many([("p", "0.5"), ("p", "0.9")])
    assert [verdict.error for verdict in verdicts] == ["down", None]
    assert verdicts[1].refused


class Short:
    name = "short"

    def detect(self, conversations):
        return []


def test_a_detector_that_loses_answers_is_named():
    with pytest.raises(DetectorError, match="short returned 0 answers for 1") as caught:
        Cascade([stage(0.5), Short()], band=(0.0, 1.0)).detect(numbers(1))
    assert caught.value.detector == "short"


@pytest.mark.parametrize(
    "band", [(0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.1, float("nan")), (0.5,), (0.1, 0.2, 0.3), 0.5, None, ("a", "b")]
)
def test_impossible_bands_are_input_errors(band):
    with pytest.raises(InputError, match="band"):
        Cascade([stage(0.5), stage(0.5)], band=band)


@pytest.mark.parametrize("detectors", [[], [stage(0.5)]])
def test_one_detector_is_no_cascade(detectors):
    with pytest.raises(InputError, match="two detectors"):
        Cascade(detectors, band=(0.1, 0.9))


@pytest.mark.parametrize("bad", [0.0, 1.0, "0.5", float("nan"), None])
def test_a_detector_with_an_impossible_threshold_is_refused(bad):
    with pytest.raises(InputError, match="threshold"):
        Cascade([stage(0.5), stage(0.5, threshold=bad)], band=(0.1, 0.9))


def test_members_may_be_names(guard):
    cascade = Cascade(["embedded", stage(0.0, "heavy")], band=(0.0, 1.0))
    assert cascade.threshold == guard.threshold
    with pytest.raises(InputError, match="unknown detector"):
        Cascade(["embedded", "nothing"], band=(0.0, 1.0))


def test_without_minos_the_named_cascade_fails_at_once_and_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "refusal_guard.cli", "check", "--detector", "cascade", "--response", "I can't help with that."]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    assert "Minos-v1" in done.stderr or "pip install 'refusal-guard[" in done.stderr


def test_thirty_two_threads_on_one_cascade_give_the_serial_scores(guard):
    cascade = Cascade(["embedded", stage(0.25, "heavy")], band=(0.2, 0.8))
    work = [[Conversation.from_pair("p", f"I can't do {i}." if i % 2 else f"Here are {i} of them, perhaps.")] for i in range(32)]
    serial = [cascade.detect(batch) for batch in work]
    found = [None] * len(work)
    threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, cascade.detect(work[i]))) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == serial


# The choice of a band.

ROWS = st.lists(st.tuples(st.none() | st.sampled_from([i / 20 for i in range(21)]), st.booleans()), min_size=1, max_size=40)
AGREEMENT = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 1.0])


def outcome(rows, band, threshold):
    """Share passed on and agreement of a band, counted row by row."""
    on = [score is None or band[0] <= score <= band[1] for score, _ in rows]
    agrees = [goes or (score >= threshold) == refused for goes, (score, refused) in zip(on, rows, strict=True)]
    return sum(on) / len(rows), sum(agrees) / len(rows)


@given(ROWS, AGREEMENT, THRESHOLD)
def test_a_chosen_band_keeps_its_promise_and_tells_the_truth(rows, agreement, threshold):
    choice = choose_band([s for s, _ in rows], [r for _, r in rows], threshold=threshold, agreement=agreement)
    passed_on, reached = outcome(rows, choice.band, threshold)
    assert reached >= agreement
    assert (choice.passed_on, choice.agreement, choice.rows) == (passed_on, reached, len(rows))


@given(ROWS, AGREEMENT)
def test_no_other_band_passes_fewer_rows_on(rows, agreement):
    choice = choose_band([s for s, _ in rows], [r for _, r in rows], agreement=agreement)
    levels = sorted({score for score, _ in rows if score is not None})
    others = [(low, high) for low in levels for high in levels if low <= high] + [(0.5001, 0.5001)]
    enough = [passed_on for passed_on, reached in (outcome(rows, band, 0.5) for band in others) if reached >= agreement]
    assert not enough or choice.passed_on <= min(enough) + 1e-12


@given(ROWS, AGREEMENT)
def test_a_cascade_with_the_chosen_band_agrees_with_the_reference_that_often(rows, agreement):
    scores, reference = [s for s, _ in rows], [r for _, r in rows]
    choice = choose_band(scores, reference, agreement=agreement)
    truth = dict(enumerate(reference))
    cheap = stage(lambda c: scores[int(c.response)])
    heavy = stage(lambda c: 0.8 if truth[int(c.response)] else 0.2)
    verdicts = Guard(Cascade([cheap, heavy], band=choice.band)).scan_many([("p", str(i)) for i in range(len(rows))])
    agreed = sum(verdict.refused == refused for verdict, refused in zip(verdicts, reference, strict=True))
    assert agreed / len(rows) >= agreement


def test_a_band_by_hand():
    scores = [0.05, 0.1, 0.3, 0.4, 0.6, 0.7, 0.9, 0.95]
    reference = [False, False, True, False, False, True, True, True]
    assert choose_band(scores, reference, agreement=1.0) == BandChoice(band=(0.3, 0.6), passed_on=3 / 8, agreement=1.0, rows=8)
    assert choose_band(scores, reference, agreement=0.875).passed_on == 1 / 8


def test_a_cheap_detector_that_always_agrees_passes_nothing_on():
    choice = choose_band([0.1, 0.9], [False, True])
    assert (choice.passed_on, choice.agreement) == (0.0, 1.0)
    Cascade([stage(0.5), stage(0.5)], band=choice.band)


def test_a_cheap_detector_that_always_abstains_passes_all_on():
    choice = choose_band([None, None], [False, True])
    assert (choice.passed_on, choice.agreement) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "reference", "options"),
    [
        ([], [], {}),
        ([0.5], [], {}),
        ([0.5], [True, False], {}),
        ([1.5], [True], {}),
        ([float("nan")], [True], {}),
        ([0.5], [True], {"agreement": 0.0}),
        ([0.5], [True], {"agreement": 1.1}),
        ([0.5], [True], {"agreement": float("nan")}),
        ([0.5], [True], {"threshold": 0.0}),
        ([0.5], [True], {"threshold": float("nan")}),
    ],
)
def test_what_no_band_can_be_chosen_on_is_an_input_error(scores, reference, options):
    with pytest.raises(InputError):
        choose_band(scores, reference, **options)


class Awaiting(Counting):
    """Has to be awaited, as a detector behind an endpoint has."""

    async def adetect(self, conversations):
        await asyncio.sleep(0)
        return super().detect(conversations)

    def detect(self, conversations):
        raise AssertionError("it blocks the loop")


def test_a_detector_that_can_be_awaited_is_and_another_runs_in_a_thread():
    threads = []
    cheap = stage(lambda conversation: threads.append(threading.current_thread()) or said(conversation), "cheap")
    awaited = Awaiting()
    cascade = Cascade([cheap, awaited], band=(0.4, 0.6))
    found = asyncio.run(cascade.adetect(numbers(0.1, 0.5, 0.9, None)))
    assert [one.detector for one in found] == ["cascade:cheap", "cascade:counting", "cascade:cheap", "cascade:counting"]
    assert awaited.batches == [2]
    assert threading.main_thread() not in threads


@given(st.lists(PROBABILITY | st.none()))
def test_awaited_or_not_it_decides_the_same(values):
    cascade = Cascade([stage(said, "cheap"), stage(0.9, "heavy")], band=(0.3, 0.6))
    assert asyncio.run(cascade.adetect(numbers(*values))) == cascade.detect(numbers(*values))
