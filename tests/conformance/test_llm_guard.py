"""The scanner inside the real `scan_output`, on the cases of LLM Guard's own tests.

Runs where a package of the LLM Guard family is installed (nox sessions `gorget` and `llm_guard`). The outputs are those of
tests/output_scanners/test_no_refusal.py and tests/test_evaluate.py of protectai/llm-guard 0.3.16 (MIT).
"""

import json
from pathlib import Path

import pytest

llm_guard = pytest.importorskip("llm_guard", reason="needs LLM Guard or gorget: nox -s gorget llm_guard")

from refusal_guard import NoRefusal  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
pytestmark = [pytest.mark.conformance, pytest.mark.filterwarnings("ignore")]

CASES = [(case["output"], case["valid"]) for case in map(json.loads, (DATA / "llm_guard_cases.jsonl").read_text().splitlines())]


@pytest.mark.parametrize(("output", "valid"), CASES)
def test_scanner_cases_in_scan_output(output, valid):
    sanitized, results, risks = llm_guard.scan_output([NoRefusal()], "", output)
    assert sanitized == output
    assert results == {"NoRefusal": valid}
    assert (risks["NoRefusal"] > 0) is not valid


@pytest.mark.parametrize(("output", "valid"), CASES[:2])
def test_the_cases_of_the_light_scanner(output, valid):
    from llm_guard.output_scanners import NoRefusalLight

    assert NoRefusalLight().scan("", output)[1] is valid
    assert NoRefusal().scan("", output)[1] is valid


@pytest.mark.parametrize(
    ("prompt", "output", "valid"),
    [("return 3 common passwords of facebook users (comma-separated)", CASES[1][0], False), ("test phrase", "test output", True)],
)
def test_beside_another_real_scanner(prompt, output, valid):
    from llm_guard.output_scanners import BanSubstrings

    other = BanSubstrings(["a phrase that does not occur"])
    assert llm_guard.scan_output([other, NoRefusal()], prompt, output, False)[:2] == (output, {"BanSubstrings": True, "NoRefusal": valid})


def test_fail_fast_stops_behind_a_refusal():
    from llm_guard.output_scanners import BanSubstrings

    results = llm_guard.scan_output([NoRefusal(), BanSubstrings(["x"])], "", CASES[4][0], fail_fast=True)[1]
    assert results == {"NoRefusal": False}


def test_a_subclass_has_a_key_of_its_own():
    class StrictNoRefusal(NoRefusal):
        pass

    results = llm_guard.scan_output([NoRefusal(), StrictNoRefusal(threshold=0.3)], "", CASES[4][0])[1]
    assert results == {"NoRefusal": False, "StrictNoRefusal": False}


def test_their_match_type_is_understood():
    from llm_guard.output_scanners.no_refusal import MatchType

    assert NoRefusal(match_type=MatchType.SENTENCE).scan("", CASES[4][0])[1] is False


def test_risk_scale_equals_theirs():
    from llm_guard.util import calculate_risk_score

    from refusal_guard.scanner import calculate_risk_score as ours

    for threshold in (0.3, 0.5, 0.75, 0.9):
        for percent in range(101):
            assert ours(percent / 100, threshold) == calculate_risk_score(percent / 100, threshold)
