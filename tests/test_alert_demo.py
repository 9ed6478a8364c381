"""The demonstration of alerts as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "examples" / "transcripts.jsonl"


def demo(*arguments):
    command = [sys.executable, "-m", "refusal_guard.cli", "demo-alerts", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_one_alert_is_raised_soon_under_the_right_model_and_resolved():
    done = demo(SAMPLES, "--seconds", "0")
    assert done.returncode == 0, done.stderr
    notices = re.findall(r"^ *([\d.]+) min  (.*)$", done.stdout, re.MULTILINE)
    assert [title for _, title in notices] == ["Refusals: model aurora-large", "Resolved: Refusals: model aurora-large"]
    assert 12 < float(notices[0][0]) < 16
    assert 22 < float(notices[1][0]) < 30


def test_a_file_without_refusals_is_an_error_that_says_what_is_needed(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "2 + 2?", "response": "4", "model": "m"}\nnot JSON\n')
    done = demo(tmp_path / "rows.jsonl", "--seconds", "0")
    assert done.returncode == 2
    assert "needs a model with refusals" in done.stderr


@pytest.mark.parametrize("arguments", [("nowhere.jsonl",), (SAMPLES, "--seconds", "-1"), (SAMPLES, "--seconds", "nan"), ()])
def test_bad_usage_exits_with_two(arguments):
    done = demo(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
