"""A small run of benchmarks/soak.py: many calls at once, a fifth of them faulty, all end as they must."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from soak import soak


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc")
def test_every_call_ends_right_and_nothing_is_left():
    result = soak(calls=300, at_once=16, faults=0.2)
    assert result["wrong"] == {}
    assert (result["right"], result["connections_left"], result["files_left"]) == (300, 0, 0)
    assert result["faulty"] > 30
