"""`refusal-guard evaluate` on files of labelled rows."""

import json
from pathlib import Path

import pytest

from refusal_guard.cli import main
from refusal_guard.evaluate import evaluate

GOLDEN = Path(__file__).parent / "data" / "golden.jsonl"
REFUSAL = "I'm sorry, but I can't help with that request."
ANSWER = "Boil the eggs for nine minutes, then cool them under cold water."


def command(capsys, *arguments):
    """Return the exit code and what was printed on both ways."""
    try:
        code = main(["evaluate", *map(str, arguments)])
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path):
    pairs = [(REFUSAL, "refusal"), (ANSWER, "compliance"), (REFUSAL, "partial"), (ANSWER, "refusal")]
    return written(
        tmp_path / "rows.jsonl",
        [
            {"prompt": "Eggs?", "response": response, "label": label, "model": f"m{i % 2}", "source": "kitchen"}
            for i, (response, label) in enumerate(pairs * 4)
        ],
    )


def test_the_object_holds_the_metrics_of_all_rows_and_of_each_group(rows, capsys, guard):
    code, out, err = command(capsys, rows, "--json")
    found = json.loads(out)
    labelled = [json.loads(line) for line in rows.read_text().splitlines()]
    scores = [verdict.score for verdict in guard.scan_many([(row["prompt"], row["response"]) for row in labelled])]
    assert (code, err) == (0, "")
    assert found["all"] == evaluate([row["label"] for row in labelled], scores, guard.threshold).model_dump()
    assert {name: metrics["rows"] for name, metrics in found["models"].items()} == {"m0": 4, "m1": 8}
    assert found["sources"]["kitchen"] == found["all"]
    assert (found["detector"], found["threshold"], found["left_out"], found["suggested"]) == ("embedded", guard.threshold, 0, {})


def test_partial_rows_count_when_asked(rows, capsys):
    assert json.loads(command(capsys, rows, "--json")[1])["all"]["rows"] == 12
    assert json.loads(command(capsys, rows, "--json", "--partial-counts")[1])["all"]["rows"] == 16


def test_the_table_shows_every_metric_with_its_interval_and_the_groups(rows, capsys):
    code, out, _ = command(capsys, rows, "--threshold", "0.6")
    assert code == 0
    for shown in (
        "threshold 0.6",
        "accuracy",
        "precision",
        "recall",
        "F1",
        "false-positive rate",
        "AUROC",
        "calibration error",
        "model m1",
    ):
        assert shown in out
    assert "(" in next(line for line in out.splitlines() if line.startswith("all rows"))


def test_the_suggested_threshold_has_what_was_wanted_when_it_is_used(tmp_path, capsys):
    some = written(tmp_path / "some.jsonl", [json.loads(line) for line in GOLDEN.read_text().splitlines()[::5]])
    wishes = ["--precision", "0.97", "--false-positive-rate", "0.02"]
    suggested = json.loads(command(capsys, some, "--json", *wishes)[1])["suggested"]
    for metric, holds in (("precision", lambda value: value >= 0.97), ("false_positive_rate", lambda value: value <= 0.02)):
        used = json.loads(command(capsys, some, "--json", "--threshold", suggested[metric]["threshold"])[1])
        assert used["all"] == suggested[metric]["metrics"]
        assert holds(used["all"][metric]["value"])


def test_a_wish_that_no_threshold_fulfils_is_said_so(tmp_path, capsys):
    path = written(tmp_path / "rows.jsonl", [{"response": REFUSAL, "label": "compliance"}, {"response": ANSWER, "label": "refusal"}])
    assert "no threshold has it" in command(capsys, path, "--precision", "1")[1]
    assert json.loads(command(capsys, path, "--precision", "1", "--json")[1])["suggested"] == {"precision": None}


def test_fields_have_other_names_when_told(tmp_path, capsys):
    path = written(tmp_path / "rows.jsonl", [{"q": "Eggs?", "a": REFUSAL, "truth": "refusal"}])
    code, out, _ = command(capsys, path, "--prompt-field", "q", "--response-field", "a", "--label-field", "truth", "--json")
    assert (code, json.loads(out)["all"]["recall"]["value"]) == (0, 1.0)


def test_rows_without_a_label_or_a_response_are_left_out_and_counted(rows, capsys):
    bad = [
        '{"broken',
        '{"response": "r"}',
        '{"response": "r", "label": "refused"}',
        '{"response": "r", "label": []}',
        '{"label": "refusal"}',
    ]
    with rows.open("a") as file:
        file.writelines(f"{line}\n" for line in bad)
    code, out, err = command(capsys, rows, "--json")
    assert (code, json.loads(out)["left_out"], json.loads(out)["all"]["rows"]) == (0, 5, 12)
    assert "5 rows left out" in err
    assert "line 17" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "FILE"),
        (["/no/such/file.jsonl"], "No such file"),
        ([GOLDEN, "--label-field", "truth"], "--label-field"),
        ([GOLDEN, "--precision", "2"], "between 0 and 1"),
        ([GOLDEN, "--false-positive-rate", "nan"], "between 0 and 1"),
        ([GOLDEN, "--precision", "high"], "--precision"),
        ([GOLDEN, "--threshold", "1"], "between 0 and 1"),
        ([GOLDEN, "--detector", "oracle"], "unknown detector"),
    ],
)
def test_usage_and_input_errors_exit_with_two_and_say_why(capsys, arguments, says):
    code, _, err = command(capsys, *arguments)
    assert code == 2
    assert says in err
