"""The installed command in real processes."""

import json
import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from refusal_guard.detectors.embedded import DEFAULT_MODEL, MODELS
from refusal_guard.files import open_rows

COMMAND = [sys.executable, "-m", "refusal_guard.cli"]
REFUSAL = "I'm sorry, but I can't help with that request."
ANSWER = "Boil the eggs for nine minutes, then cool them under cold water."
CONTRACT = {"label", "score", "refused", "threshold", "detector", "reason", "evidence", "signal", "error"}


def run(*arguments, stdin=b"", **options):
    done = subprocess.run([*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, timeout=120, check=False, **options)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path):
    pairs = [{"id": i, "prompt": "How long do eggs take?", "response": REFUSAL if i % 4 == 0 else ANSWER} for i in range(40)]
    return jsonl(tmp_path / "rows.jsonl", pairs)


@pytest.mark.parametrize(("response", "code"), [(REFUSAL, 1), (ANSWER, 0), ("", 0)])
def test_check_answers_by_exit_code(response, code):
    done = run("check", "--prompt", "How long do eggs take?", "--response", response)
    assert done.returncode == code
    assert done.stdout


def test_check_prints_the_contracts_object():
    done = run("check", "--prompt", "How long do eggs take?", "--response", REFUSAL, "--json")
    result = json.loads(done.stdout)
    assert set(result) == CONTRACT
    assert REFUSAL[slice(*result["evidence"])] == REFUSAL


def test_check_reads_standard_input():
    assert run("check", "--prompt", "p", "--response", "-", stdin=REFUSAL.encode()).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "--prompt", "p"], b"--response"),
        (["check", "--response", "r", "--threshold", "0"], b"between 0 and 1"),
        (["check", "--response", "r", "--threshold", "nan"], b"between 0 and 1"),
        (["check", "--response", "r", "--detector", "oracle"], b"unknown detector"),
        (["scan"], b"FILE"),
        (["scan", "/no/such/file.jsonl"], b"No such file"),
        (["scan", "/"], b"directory"),
        (["scan", "-", "--fail-over", "2"], b"between 0 and 1"),
        (["scan", "-", "--keep", "some"], b"--keep"),
        (["scan", "-", "--resume"], b"--out"),
        (["fly"], b"fly"),
    ],
)
def test_usage_and_input_errors_exit_with_two_and_say_why(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_check_of_bytes_that_are_no_text_is_an_input_error():
    done = run("check", "--prompt", "p", "--response", "-", stdin=b"\xff\xfe\x00")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"UTF-8" in done.stderr


def test_scan_writes_rows_to_standard_output_and_the_sums_beside(rows):
    done = run("scan", rows)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(40))
    assert b"40 rows" in done.stderr
    assert b"25.0%" in done.stderr


def test_scan_into_a_file_prints_the_sums(rows, tmp_path):
    done = run("scan", rows, "--out", tmp_path / "out.jsonl")
    assert b"40 rows" in done.stdout
    assert len(list(open_rows(str(tmp_path / "out.jsonl")))) == 40


def test_scan_reads_standard_input_and_several_files(rows):
    assert len(run("scan", "-", stdin=rows.read_bytes()).stdout.splitlines()) == 40
    assert len(run("scan", rows, rows).stdout.splitlines()) == 80


@pytest.mark.parametrize(("rate", "code"), [("0.2", 1), ("0.25", 0), ("0.5", 0)])
def test_fail_over_decides_the_exit_code(rows, rate, code):
    assert run("scan", rows, "--fail-over", rate).returncode == code


def test_broken_rows_exit_with_three(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps({"prompt": "p", "response": ANSWER}).encode() + b'\n{"broken\n\xff\n')
    done = run("scan", path)
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 3
    assert b"2 broken" in done.stderr


def test_named_fields(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [{"asked": "How long do eggs take?", "said": REFUSAL}])
    done = run("scan", path, "--prompt-field", "asked", "--response-field", "said")
    assert json.loads(done.stdout)["refusal_guard"]["refused"] is True


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "response": ANSWER}] * 9_000)
    process = subprocess.Popen([*COMMAND, "scan", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_full_disk_keeps_what_was_written_and_says_so(tmp_path):
    rows = jsonl(tmp_path / "rows.jsonl", [{"id": i, "prompt": "p", "response": ANSWER} for i in range(9_000)])
    out = tmp_path / "out.jsonl"

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    done = run("scan", rows, "--out", out, preexec_fn=small_disk)
    assert done.returncode == 2
    assert b"intact" in done.stderr
    kept = [record.row["id"] for record in open_rows(str(out))]
    assert kept == list(range(len(kept)))
    assert kept
    assert run("scan", rows, "--out", out, "--resume").returncode == 0
    assert [record.row["id"] for record in open_rows(str(out))] == list(range(9_000))


def test_a_killed_scan_resumes_without_loss_or_double(tmp_path):
    rows = jsonl(tmp_path / "rows.jsonl", [{"id": i, "prompt": "p", "response": f"{ANSWER} {i}"} for i in range(20_000)])
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen([*COMMAND, "scan", str(rows), "--out", str(out)], stdout=subprocess.DEVNULL)
    while not (out.exists() and out.stat().st_size > 0):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run("scan", rows, "--out", out, "--resume").returncode == 0
    assert [record.row["id"] for record in open_rows(str(out))] == list(range(20_000))


def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(rows, tmp_path):
    parent, child = pty.openpty()
    process = subprocess.Popen([*COMMAND, "scan", str(rows), "--out", str(tmp_path / "o.jsonl")], stdout=subprocess.DEVNULL, stderr=child)
    os.close(child)
    shown = b""
    while process.poll() is None or select.select([parent], [], [], 0.2)[0]:
        if select.select([parent], [], [], 0.2)[0]:
            try:
                part = os.read(parent, 65_536)
            except OSError:  # Linux says so when the other end of a terminal is closed
                break
            shown += part
    os.close(parent)
    assert process.wait() == 0
    assert b"rows" in shown
    assert b"rows" not in run("scan", rows, "--out", tmp_path / "o.jsonl").stderr


def test_report_is_one_page_that_escapes_what_it_shows(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [{"id": "<b>", "prompt": "<script>alert(1)</script>", "response": f"<i>Sorry.</i> {REFUSAL}"}])
    done = run("scan", path, "--out", tmp_path / "out.jsonl", "--report", tmp_path / "report.html")
    assert done.returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "<mark>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_a_report_that_cannot_be_written_fails_before_the_scan(rows, tmp_path):
    done = run("scan", rows, "--out", tmp_path / "out.jsonl", "--report", tmp_path / "no" / "report.html")
    assert done.returncode == 2
    assert b"can't write" in done.stderr


def test_a_broken_model_stops_before_the_first_row(rows, tmp_path):
    model = shutil.copytree(MODELS / DEFAULT_MODEL, tmp_path / "model")
    (model / "encoder.onnx").write_bytes(b"not the model")
    done = run("scan", rows, "--detector", model, "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert b"encoder.onnx is not the file recorded" in done.stderr


def test_escape_sequences_and_markup_do_not_reach_the_terminal(tmp_path):
    shown = run("check", "--prompt", "p", "--response", f"{REFUSAL[:-1]} \x1b[31mred\x1b[0m \udcff.").stdout
    assert b"\x1b" not in shown
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "response": ANSWER, "model": "\x1b[2J[red]x\ud800"}])
    sums = run("scan", path, "--out", tmp_path / "o.jsonl").stdout
    assert b"\x1b" not in sums
    assert b"[red]x" in sums


def test_lone_surrogates_pass_through(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "\\ud800", "response": "\\udfff fine \\ud83d"}\n')
    done = run("scan", path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["response"] == "\udfff fine \ud83d"


def test_version_and_help():
    assert run("--version").stdout.startswith(b"refusal-guard ")
    assert b"Exit code" in b" ".join(run("scan", "--help").stdout.split())
