"""What the documents show is run, and what they claim of files holds."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SAMPLES = ROOT / "examples" / "transcripts.jsonl"
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


def test_readme_commands_run_as_written(tmp_path):
    """Those of the section on the command line: on a sample as JSON Lines, gzip and Parquet, with `your-app` standing for the sample."""
    section = README.partition("## On the command line")[2]
    commands = section.split("```")[1].strip()
    rows = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    pairs = [{"prompt": row["prompt"], "response": row["response"]} for row in rows if "prompt" in row and "response" in row][:8]
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (tmp_path / "answers.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs), tmp_path / "data.parquet")
    (tmp_path / "your-app").write_text(f"#!{sys.executable}\nprint({lines!r}, end='')\n")
    (tmp_path / "your-app").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    codes = [
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, timeout=60).returncode
        for command in commands.splitlines()
    ]
    refused = json.loads((tmp_path / "judged.jsonl").read_text().splitlines()[0])["refusal_guard"]["refused"]
    assert codes == [1, 0, 0, 1]
    assert isinstance(refused, bool)
    assert 0 < pyarrow.parquet.read_metadata(tmp_path / "clean.parquet").num_rows < len(pairs)


def test_sample_transcripts_are_many_and_varied():
    rows = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
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
