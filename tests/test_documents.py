"""What the documents show is run, and what they claim of files holds."""

import gzip
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "examples" / "transcripts.jsonl"
GOLDEN = ROOT / "tests" / "data" / "golden.jsonl"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HOSTS = ROOT / "docs" / "hosts.md"  # each needs an environment of its own: tests/integrations/test_host_recipes.py runs its snippets
FOLDERS = ("docs", "integrations", "deploy", "benchmarks", "training")
LINKING = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])


def fences(page, language):
    """What stands in the fences of a language: `python` and `sh` are run, `py` and those without a language are only shown."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


SNIPPETS = [
    pytest.param(snippet, id=f"{page.stem}-{number}")
    for page in PAGES
    if page != HOSTS
    for number, snippet in enumerate(fences(page, "python"))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_prints_what_it_says(snippet):
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    printed = done.stdout.splitlines()
    promised = re.findall(r"print\(.*?\)  # (.*)", snippet)
    assert promised
    assert all(line in printed for line in promised), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_snippet_that_is_only_shown_is_python(page):
    for snippet in fences(page, "py"):
        compile(snippet, page.name, "exec")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.strip()


@pytest.fixture
def samples(tmp_path):
    """A folder with the files that commands read, and `your-app`, which prints such rows."""
    rows = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    pairs = [{"prompt": row["prompt"], "response": row["response"]} for row in rows if "prompt" in row and "response" in row][:8]
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (tmp_path / "answers.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs), tmp_path / "data.parquet")
    (tmp_path / "labelled.jsonl").write_text("".join(GOLDEN.read_text().splitlines(keepends=True)[:40]))
    (tmp_path / "your-app").write_text(f"#!{sys.executable}\nprint({lines!r}, end='')\n")
    (tmp_path / "your-app").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "sh")], ids=lambda page: page.stem)
def test_commands_exit_as_they_say_and_write_what_they_name(page, samples):
    path = os.pathsep.join([str(samples), str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in "".join(fences(page, "sh")).splitlines():
        done = subprocess.run(
            ["bash", "-c", command], cwd=samples, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
        )
        promised = re.search(r"  # exit code (\d+)$", command)
        assert done.returncode == int(promised[1] if promised else 0), (command, done.stderr)
    assert isinstance(json.loads((samples / "judged.jsonl").read_text().splitlines()[0])["refusal_guard"]["refused"], bool)
    if "clean.parquet" in page.read_text():
        kept = pyarrow.parquet.read_metadata(samples / "clean.parquet").num_rows
        assert 0 < kept < pyarrow.parquet.read_metadata(samples / "data.parquet").num_rows


def prose(page):
    """A page without its fences."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, made as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_names_every_page():
    text = README.read_text()
    written = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    assert len(written.splitlines()) <= 200
    linked = {ROOT / link for link in re.findall(r"\]\((docs/[\w-]+\.md)", text)}
    assert linked == set(PAGES) - {README}


def test_the_readme_names_the_extras_there_are():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    paragraph = README.read_text().partition("\nExtras, ")[2].partition("\n\n")[0].partition(": ")[2]
    assert set(re.findall(r"`([\w-]+)`", paragraph)) == set(extras)


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
    golden = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert not [row["id"] for row in golden if len(row["response"]) > 40 and row["response"] in trained]
