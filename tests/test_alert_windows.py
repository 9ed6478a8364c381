"""Windows against a naive recount, and a clock that misbehaves."""

from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard.alerts.window import SLOTS, Elapsed, Window

TIMES = st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=80)


def recount(samples, now, *, seconds, least, longest, baseline):
    """Count again from all samples ever: those of the window, reaching back a slot at a time, and those of the baseline before."""
    width = seconds / SLOTS
    ages = [(floor(now / width) - floor(at / width), hit) for at, hit in samples]
    reach = SLOTS
    inside = [hit for age, hit in ages if age < reach]
    for older in sorted({age for age, _ in ages if SLOTS <= age < ceil(longest / width)}):
        if len(inside) < least:
            reach, inside = older + 1, [hit for age, hit in ages if age <= older]
    before = [hit for age, hit in ages if reach <= age < reach + ceil(baseline / width)]
    return (len(inside), sum(inside)), (len(before), sum(before))


@given(TIMES, st.floats(0, 400), st.integers(1, 30), st.sampled_from([30.0, 60.0, 150.0]), st.sampled_from([0.0, 30.0, 90.0]))
def test_a_window_counts_what_a_naive_recount_counts(steps, pause, least, longest, baseline):
    window, samples, now = Window(30.0, least=least, longest=longest, baseline=baseline), [], 0.0
    for step, hit in steps:
        now += step
        window.add(now, hit)
        samples.append((now, hit))
        recent, before = recount(samples, now, seconds=30.0, least=least, longest=longest, baseline=baseline)
        assert window.recent(now)[:2] == recent
        assert window.before(window.recent(now), now)[:2] == before
    now += pause
    recent, before = recount(samples, now, seconds=30.0, least=least, longest=longest, baseline=baseline)
    assert window.recent(now)[:2] == recent
    assert window.before(window.recent(now), now)[:2] == before


@pytest.mark.parametrize(("baseline", "most"), [(0.0, SLOTS + 1), (30.0, 12 * SLOTS)])
def test_a_window_does_not_grow_with_traffic(baseline, most):
    window = Window(30.0, least=50, longest=300.0, baseline=baseline)
    for tick in range(100_000):
        window.add(tick / 100, hit=False)
    assert len(window._slots) <= most


def test_a_window_keeps_no_more_of_a_trickle_than_it_needs():
    window = Window(30.0, least=50, longest=1e6)
    for tick in range(1_000):
        window.add(tick * 60.0, hit=False)
    assert len(window._slots) <= 51
    assert window.recent(999 * 60.0).samples == 50


def test_a_window_says_over_which_time_it_reached():
    window = Window(30.0, least=3, longest=300.0)
    for at in (0.0, 100.0, 120.0):
        window.add(at, hit=True)
    assert window.proper(120.0) == (2, 2, 30.0)
    assert window.recent(120.0) == (3, 3, 121.0)
    assert window.recent(120.0).rate == 1.0
    assert window.recent(290.0).samples == 3
    assert window.recent(700.0) == (0, 0, 30.0)
    assert window.empty(700.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_elapsed_time_never_goes_back_and_misses_no_step_forward(readings):
    given_readings = iter([0.0, *readings])
    elapsed = Elapsed(lambda: next(given_readings))
    seen = [elapsed() for _ in readings]
    steps = [max(0.0, later - earlier) for earlier, later in zip([0.0, *readings], readings, strict=False)]
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(sum(steps))
