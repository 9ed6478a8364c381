import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import Guard, InputError
from refusal_guard.bulk import Group, Scan, scan_records
from refusal_guard.files import Record, open_rows
from refusal_guard.testing import FixedDetector

CONTRACT = {"label", "score", "refused", "threshold", "detector", "reason", "evidence", "signal", "error"}


def refuses(conversation):
    return 0.9 if "no" in conversation.response else 0.1


def stop(_rows):
    """A listener that interrupts the scan after its first safe part."""
    raise KeyboardInterrupt


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def read(path):
    return [record.row for record in open_rows(str(path))]


@pytest.fixture
def source(tmp_path):
    rows = [{"id": i, "prompt": "p", "response": "no" if i % 3 == 0 else "yes", "model": f"m{i % 2}", "source": "s"} for i in range(300)]
    return write(tmp_path / "in.jsonl", rows)


def test_rows_come_out_in_order_with_the_contracts_object(tmp_path, source):
    out = tmp_path / "out.jsonl"
    Scan(Guard(FixedDetector(refuses)), [source], out).run()
    rows = read(out)
    assert [row["id"] for row in rows] == list(range(300))
    assert all(set(row["refusal_guard"]) == CONTRACT for row in rows)
    assert [row["refusal_guard"]["refused"] for row in rows] == [i % 3 == 0 for i in range(300)]


def test_tally_counts_by_model_and_source(source):
    tally = Scan(Guard(FixedDetector(refuses)), [source], None).run()
    assert (tally.rows, tally.total.judged, tally.total.refused, tally.broken) == (300, 300, 100, 0)
    assert {name: group.refused for name, group in tally.models.items()} == {"m0": 50, "m1": 50}
    assert tally.sources["s"].judged == 300


def test_broken_rows_are_rows_with_an_error(tmp_path):
    rows = [{"prompt": "p", "response": "yes"}, "{broken", {"prompt": "p"}, {"prompt": "p", "response": 3}, {"prompt": "p", "response": ""}]
    out = tmp_path / "out.jsonl"
    tally = Scan(Guard(FixedDetector(refuses)), [write(tmp_path / "in.jsonl", rows)], out).run()
    results = [row["refusal_guard"] for row in read(out)]
    assert [bool(result["error"]) for result in results] == [False, True, True, True, False]
    assert all(set(result) == CONTRACT for result in results)
    assert read(out)[1]["line"] == 2
    assert (tally.rows, tally.broken, tally.total.judged, tally.labels) == (5, 3, 1, {"compliance": 1, "unknown": 1})


def test_a_failing_detector_breaks_its_rows_and_no_others(tmp_path):
    def moody(conversation):
        if conversation.response == "boom":
            raise RuntimeError("boom")
        return 0.1

    rows = [{"prompt": "p", "response": "boom" if i == 70 else "fine"} for i in range(100)]
    out = tmp_path / "out.jsonl"
    tally = Scan(Guard(FixedDetector(moody), on_error="pass"), [write(tmp_path / "in.jsonl", rows)], out).run()
    assert tally.rows == 100
    assert tally.broken == 1
    assert "RuntimeError" in read(out)[70]["refusal_guard"]["error"]


@pytest.mark.parametrize(("keep", "responses"), [("all", ["yes", "no", ""]), ("compliance", ["yes"]), ("refusal", ["no"])])
def test_keep_filters_the_output(tmp_path, keep, responses):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "response": text} for text in ("yes", "no", "")])
    out = tmp_path / "out.jsonl"
    tally = Scan(Guard(FixedDetector(refuses)), [source], out, keep=keep).run()
    assert [row["response"] for row in read(out)] == responses
    assert (tally.rows, tally.written) == (3, len(responses))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_an_interrupted_scan_is_continued_without_loss_or_double(tmp_path, suffix):
    rows = [{"id": i, "prompt": "p", "response": "no" if i % 5 == 0 else "yes"} for i in range(9_000)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / f"out{suffix}"

    with pytest.raises(KeyboardInterrupt):
        Scan(Guard(FixedDetector(refuses)), [source], out).run([stop])
    with out.open("ab") as file:
        file.write(b'{"half": "a row that a killed process')
    resumed = Scan(Guard(FixedDetector(refuses)), [source], out, resume=True)
    assert 0 < resumed.tally.rows < 9_000
    tally = resumed.run()
    assert [row["id"] for row in read(out)] == list(range(9_000))
    assert (tally.rows, tally.written, tally.total.refused) == (9_000, 9_000, 1_800)
    assert not (tmp_path / f"out{suffix}.progress").exists()


def test_another_scan_is_not_taken_for_the_interrupted_one(tmp_path, source):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        Scan(Guard(FixedDetector(refuses)), [source], out).run([stop])
    with pytest.raises(InputError, match="other settings"):
        Scan(Guard(FixedDetector(refuses), threshold=0.7), [source], out, resume=True)


def test_a_note_never_outlives_the_output_it_speaks_of(tmp_path, source):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        Scan(Guard(FixedDetector(refuses)), [source], out).run([stop])
    note = (tmp_path / "out.jsonl.progress").read_bytes()

    def killed(_conversation):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # starts over, and stops before its first row is safe
        Scan(Guard(FixedDetector(killed)), [source], out).run()
    assert not (tmp_path / "out.jsonl.progress").exists()
    (tmp_path / "out.jsonl.progress").write_bytes(note)
    with pytest.raises(InputError, match="left behind"):
        Scan(Guard(FixedDetector(refuses)), [source], out, resume=True)


def test_what_cannot_be_resumed_says_so(tmp_path, source):
    with pytest.raises(InputError, match="--out"):
        Scan(Guard(FixedDetector(0.1)), [source], None, resume=True)
    with pytest.raises(InputError, match="--out"):
        Scan(Guard(FixedDetector(0.1)), [source], tmp_path / "out.parquet", resume=True)


def test_an_input_is_never_overwritten(tmp_path, source):
    before = (tmp_path / "in.jsonl").read_bytes()
    with pytest.raises(InputError, match="also an input"):
        Scan(Guard(FixedDetector(0.1)), [source], tmp_path / "." / "in.jsonl").run()
    assert (tmp_path / "in.jsonl").read_bytes() == before


def test_an_output_that_cannot_be_opened_is_an_input_error(tmp_path, source):
    with pytest.raises(InputError, match="can't write"):
        Scan(Guard(FixedDetector(0.1)), [source], tmp_path / "no" / "folder" / "out.jsonl").run()


def test_memory_does_not_grow_with_the_rows():
    """Only a few batches are in flight: the source is never read far ahead of the consumer."""
    read_ahead = 0

    def endless():
        nonlocal read_ahead
        for i in range(10**9):
            read_ahead = i
            yield Record("endless", i, {"prompt": "p", "response": "yes"})

    scanned = scan_records(Guard(FixedDetector(0.1)), endless(), workers=2)
    for _ in range(1_000):
        next(scanned)
    assert read_ahead < 1_400
    scanned.close()


def test_long_rows_are_committed_in_small_parts(tmp_path):
    rows = [{"prompt": "p", "response": "yes " * 300_000} for _ in range(60)]
    parts = []
    Scan(Guard(FixedDetector(0.1)), [write(tmp_path / "in.jsonl", rows)], tmp_path / "out.jsonl").run(
        [lambda rows: parts.append(len(rows))]
    )
    assert sum(parts) == 60
    assert max(parts) <= 15


def test_groups_stay_few_however_many_models_there_are(tmp_path):
    rows = [{"prompt": "p", "response": "r", "model": f"model {i}"} for i in range(1_500)]
    tally = Scan(Guard(FixedDetector(0.1)), [write(tmp_path / "in.jsonl", rows)], None).run()
    assert len(tally.models) == 1_001
    assert sum(group.judged for group in tally.models.values()) == 1_500


def test_wilson_interval_matches_a_worked_value():
    low, high = Group(judged=50, refused=5).interval  # 10 % of 50, as worked out in Newcombe 1998, method 3
    assert (round(low, 4), round(high, 4)) == (0.0435, 0.2136)


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_the_rate(judged, data):
    group = Group(judged=judged, refused=data.draw(st.integers(0, judged)))
    low, high = group.interval
    assert 0 <= low <= group.rate + 1e-12
    assert group.rate - 1e-12 <= high <= 1


def test_parquet_in_and_out(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"prompt": "p", "response": "no", "n": 1},
        {"prompt": "p", "response": None, "n": 2},
        {"prompt": "p", "response": "yes", "n": 3},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    Scan(Guard(FixedDetector(refuses)), [str(tmp_path / "in.parquet")], tmp_path / "out.parquet").run()
    found = read(tmp_path / "out.parquet")
    assert [(row["n"], row["refusal_guard"]["label"]) for row in found] == [(1, "refusal"), (2, "unknown"), (3, "compliance")]
    Scan(Guard(FixedDetector(refuses)), [str(tmp_path / "in.parquet")], tmp_path / "out.jsonl").run()
    assert len(read(tmp_path / "out.jsonl")) == 3


def test_parquet_out_needs_parquet_in(tmp_path, source):
    with pytest.raises(InputError, match=r"\.jsonl"):
        Scan(Guard(FixedDetector(0.1)), [source], tmp_path / "out.parquet").run()
