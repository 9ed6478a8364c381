"""When a call is sent again, and which URLs are taken."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import InputError
from refusal_guard.detectors.http import Backoff, checked_url


@pytest.mark.parametrize("given", ["http://host:1", "http://host:1/", "http://host:1/v1", "http://host:1/v1/"])
def test_what_clients_add_to_a_url_is_dropped(given):
    assert checked_url(given) == "http://host:1"


@pytest.mark.parametrize("settings", [{"retries": -1}, {"first": -1.0}, {"first": 2.0, "longest": 1.0}, {"longest": float("nan")}])
def test_bad_backoffs_are_input_errors(settings):
    with pytest.raises(InputError):
        Backoff(**settings)


@given(st.integers(0, 20), st.integers(0, 10), st.sampled_from([200, 400, 404, 429, 500, 503]), st.text(max_size=12))
def test_waits_are_bounded_and_only_passing_faults_wait(attempt, retries, code, retry_after):
    answer = httpx.Response(code, headers={"Retry-After": retry_after.encode("ascii", "ignore").decode()})
    wait = Backoff(retries=retries, first=0.5, longest=3.0).wait(attempt, answer)
    assert (wait is not None) == (attempt < retries and code in (429, 500, 503))
    assert wait is None or 0.0 <= wait <= 3.0


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        *[("2", 2, 2), ("9" * 5000, 10, 10), ("-1", 0, 0), ("soon", 0, 0), ("", 0, 0), ("nan", 0, 0)],
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 10, 10, id="in-an-hour"),
    ],
)
def test_retry_after_takes_seconds_and_dates(value, least, most):
    wait = Backoff(first=0.0, longest=10.0).wait(0, httpx.Response(429, headers={"Retry-After": value}))
    assert least <= wait <= most


def test_many_retries_wait_no_longer_than_the_longest():
    assert Backoff(retries=5_000, first=0.5, longest=3.0).wait(4_000, httpx.Response(503)) <= 3.0
