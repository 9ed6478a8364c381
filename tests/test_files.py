import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from refusal_guard import InputError
from refusal_guard.files import JsonLines, JsonLinesWriter, encode_row, open_rows

ROWS = [{"prompt": f"question {i}", "response": f"answer {i}"} for i in range(5)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "data"),
    [("r.jsonl", LINES), ("r.jsonl.gz", gzip.compress(LINES, mtime=0)), ("r.jsonl.zst", zstd.compress(LINES)), ("r", LINES)],
)
def test_every_form_gives_the_same_rows(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert [record.row for record in open_rows(str(tmp_path / name))] == ROWS


def test_parquet_gives_the_same_rows(tmp_path):
    path = tmp_path / "r.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert [record.row for record in open_rows(str(path))] == ROWS


def test_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\n\n \n"))
    assert [record.row for record in open_rows(str(path))] == ROWS


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"prompt": "cut off', "not JSON"),
        (b"\xff\xfe\x00binary", "not UTF-8 at byte 0"),
        (b"[1, 2]", "a row must be a JSON object, not list"),
        (b"null", "not NoneType"),
        (b"[" * 100_000, "can't be read"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "can't be read"),
    ],
)
def test_broken_line_in_the_middle_is_a_record_with_its_number(tmp_path, line, says):
    path = tmp_path / "r.jsonl"
    path.write_bytes(LINES + line + b"\n" + LINES)
    records = list(open_rows(str(path)))
    assert [record.row for record in records] == [*ROWS, None, *ROWS]
    assert says in records[5].error
    assert "line 6" in records[5].error


def test_line_without_an_end_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(LINES + b"x" * 10_000 + b"\n" + LINES)
    records = list(JsonLines("r.jsonl", lambda: path.open("rb"), None, longest_line=1024))
    assert len(records) == 11
    assert "longer than" in records[5].error


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.jsonl.zst"])
def test_compressed_file_that_breaks_off_keeps_what_came_before(tmp_path, name):
    big = LINES * 20_000
    packed = gzip.compress(big) if name.endswith("gz") else zstd.compress(big)
    (tmp_path / name).write_bytes(packed[:-5])
    records = list(open_rows(str(tmp_path / name)))
    assert [record.row for record in records[:5]] == ROWS
    assert "damaged" in records[-1].error


def test_what_is_no_file_of_rows_is_an_input_error(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no parquet at all")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    with pytest.raises(InputError, match="No such file"):
        open_rows(str(tmp_path / "missing.jsonl"))
    with pytest.raises(InputError, match="directory"):
        open_rows(str(tmp_path))
    for name in ("bad.parquet", "empty.parquet"):
        with pytest.raises(InputError, match="not a Parquet file"):
            open_rows(str(tmp_path / name))
    with pytest.raises(InputError, match=r"jq -c"):
        open_rows(str(tmp_path / "array.json"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_writer_goes_on_where_a_commit_ended(tmp_path, suffix):
    path = tmp_path / f"out.jsonl{suffix}"
    writer = JsonLinesWriter(path)
    writer.write(ROWS[:2])
    safe = writer.commit()
    writer.write(ROWS[2:])
    writer.commit()
    writer.close()
    again = JsonLinesWriter(path, safe)
    again.write(ROWS[3:])
    again.commit()
    again.close()
    assert [record.row for record in open_rows(str(path))] == ROWS[:2] + ROWS[3:]


def test_lone_surrogates_and_foreign_values_are_written_as_json():
    line = encode_row({"a": "\ud800", "b": b"bytes", "c": "é"})
    assert json.loads(line) == {"a": "\ud800", "b": "b'bytes'", "c": "é"}
    assert "é" in encode_row({"c": "é"}).decode()
