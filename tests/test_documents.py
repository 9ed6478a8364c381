"""What the documents show is run, and what they claim of files holds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme_snippet_prints_what_it_says(snippet):
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    printed = done.stdout.splitlines()
    promised = re.findall(r"print\(.*?\)  # (.*)", snippet)
    assert promised
    assert all(line in printed for line in promised), printed


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.strip()


def test_sample_transcripts_are_many_and_varied():
    rows = [json.loads(line) for line in (ROOT / "examples" / "transcripts.jsonl").read_text().splitlines()]
    assert len(rows) >= 60
    assert {"prompt", "messages", "conversations"} <= {key for row in rows for key in row}


def test_own_training_rows_are_of_one_form():
    files = sorted((ROOT / "training" / "data").glob("*.jsonl"))
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(rows) >= 600
    assert all(row["label"] in ("refusal", "partial", "compliance") for row in rows)
    assert all((row["reason"] is None) == (row["label"] == "compliance") for row in rows)
    assert len({(row["prompt"], row["response"]) for row in rows}) == len(rows)


def test_golden_rows_were_not_trained_on():
    trained = {
        json.loads(line)["response"] for path in (ROOT / "training" / "data").glob("*.jsonl") for line in path.read_text().splitlines()
    }
    golden = [json.loads(line) for line in (ROOT / "tests" / "data" / "golden.jsonl").read_text().splitlines()]
    assert not [row["id"] for row in golden if len(row["response"]) > 40 and row["response"] in trained]
