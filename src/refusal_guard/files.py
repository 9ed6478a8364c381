"""Files of rows: JSON Lines (plain, gzip, zstd, standard input) and Parquet, read and written a part at a time."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol, cast

from .errors import InputError, MissingExtraError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STANDARD_INPUT = "-"
LONGEST_LINE = 256 * 1024 * 1024
_PARQUET_ROWS = 256
_DAMAGED = (EOFError, OSError, zlib.error, zstd.ZstdError)


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was read: its fields, or what is wrong with it.

    `number` counts lines (Parquet: rows) from 1; `size` is about how many bytes the row takes.
    """

    file: str
    number: int
    row: dict[str, Any] | None
    error: str | None = None
    size: int = 1_000


class RowFile(Protocol):
    """A file of rows: iterate over its records. `size` and `position` are in the same unit, for a progress bar."""

    size: int | None

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order; a damaged row is a record with an error."""
        ...

    @property
    def position(self) -> int:
        """How far the file was read."""
        ...


def open_rows(path: str) -> RowFile:
    """Open a file of rows for reading, by its name: .parquet, .gz, .zst, "-" for standard input, JSON Lines otherwise.

    Raises InputError when it is missing, a folder, not readable or not of that kind.
    """
    if path == STANDARD_INPUT:
        return JsonLines("standard input", lambda: sys.stdin.buffer, None)
    try:
        if Path(path).suffix == ".parquet":
            return ParquetRows(path)
        with Path(path).open("rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(64)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or 'not a file of rows'}") from None
    if Path(path).suffix == ".json" and start.lstrip().startswith(b"["):
        raise InputError(f"{path} is one JSON array; scan reads JSON Lines: jq -c '.[]' {path} > rows.jsonl")
    return JsonLines(path, lambda: Path(path).open("rb"), size)


def _decompressed(name: str, raw: IO[bytes]) -> IO[bytes]:
    match Path(name).suffix:
        case ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        case ".zst":
            return cast(IO[bytes], zstd.ZstdFile(raw))
        case _:
            return raw


class JsonLines:
    """JSON Lines; blank lines are skipped, and a line that is no JSON object is a record with an error."""

    def __init__(self, name: str, opener: Callable[[], IO[bytes]], size: int | None, *, longest_line: int = LONGEST_LINE) -> None:
        self.size = size
        self._name, self._opener, self._longest_line = name, opener, longest_line
        self._raw: IO[bytes] | None = None

    @property
    def position(self) -> int:
        """Bytes read of the file as it lies on disk."""
        if self.size is None or self._raw is None:
            return 0
        return self.size if self._raw.closed else self._raw.tell()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; the file is closed at the end."""
        with self._opener() as self._raw:
            self._lines = _decompressed(self._name, self._raw)
            try:
                for number in count(1):
                    line = self._lines.readline(self._longest_line)
                    if not line:
                        return
                    if len(line) == self._longest_line:
                        yield self._broken(number, f"the line is longer than {self._longest_line:,} bytes")
                        self._skip_rest_of_line()
                    elif line.strip():
                        yield self._read(number, line)
            except _DAMAGED as error:
                yield self._broken(number, f"the file is damaged from here on ({type(error).__name__})")

    def _skip_rest_of_line(self) -> None:
        while (part := self._lines.readline(self._longest_line)) and not part.endswith(b"\n"):
            pass

    def _read(self, number: int, line: bytes) -> Record:
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            return self._broken(number, f"not UTF-8 at byte {error.start}")
        except json.JSONDecodeError as error:
            return self._broken(number, f"not JSON at character {error.pos}: {error.msg}")
        except (ValueError, RecursionError) as error:
            return self._broken(number, f"JSON that can't be read ({type(error).__name__})")
        if not isinstance(row, dict):
            return self._broken(number, f"a row must be a JSON object, not {type(row).__name__}")
        return Record(self._name, number, row, size=len(line))

    def _broken(self, number: int, what: str) -> Record:
        return Record(self._name, number, None, f"line {number}: {what}")


class ParquetRows:
    """The rows of a Parquet file, read in small batches."""

    def __init__(self, path: str) -> None:
        parquet = _parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.strerror:
                raise
            raise InputError(f"can't read {path}: not a Parquet file, or a damaged one") from None
        self.schema = self._file.schema_arrow
        self.size: int | None = self._file.metadata.num_rows
        self.position = 0
        self._name = path

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; a damaged part ends the file with one record that says so."""
        try:
            for batch in self._file.iter_batches(batch_size=_PARQUET_ROWS):
                size = batch.nbytes // max(batch.num_rows, 1)
                for row in batch.to_pylist():
                    self.position += 1
                    yield Record(self._name, self.position, row, size=size)
        except (ValueError, OSError) as error:
            number = self.position + 1
            yield Record(self._name, number, None, f"row {number}: the file is damaged from here on ({type(error).__name__})")


class RowWriter(Protocol):
    """Takes rows and puts them into a file; `commit` makes all rows so far safe and returns the file's length in bytes."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        ...

    def commit(self) -> int:
        """Flush to disk."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class JsonLinesWriter:
    """JSON Lines, compressed by the file's name; continues at byte `start` of an existing file.

    Every commit ends a gzip member or zstd frame: what was committed can be read even if the process dies.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._suffix = path.suffix
        self._file = path.open("r+b" if start else "wb")
        self._file.truncate(start)
        self._file.seek(start)
        self._pending: list[bytes] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to what the next commit writes."""
        self._pending += [encode_row(row) for row in rows]

    def commit(self) -> int:
        """Write and flush what is pending. An OSError leaves everything committed before intact."""
        safe = self._file.tell()
        try:
            self._file.write(self._compressed(b"".join(self._pending)))
            self._file.flush()
        except OSError:
            self._drop_behind(safe)
            raise
        self._pending = []
        return self._file.tell()

    def close(self) -> None:
        """Close the file; rows that were not committed are left out."""
        self._file.close()

    def _compressed(self, data: bytes) -> bytes:
        if not data:
            return b""
        match self._suffix:
            case ".gz":
                return gzip.compress(data, compresslevel=6, mtime=0)
            case ".zst":
                return zstd.compress(data)
            case _:
                return data

    def _drop_behind(self, safe: int) -> None:
        """Cut a half-written part off and give up the buffer, which would fail again on close."""
        descriptor = os.dup(self._file.fileno())
        with suppress(OSError):
            self._file.close()
        os.ftruncate(descriptor, safe)
        os.close(descriptor)


class StreamWriter:
    """JSON Lines on an open stream such as standard output."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows at once."""
        self._stream.write(b"".join(encode_row(row) for row in rows))

    def commit(self) -> int:
        """Flush the stream; a stream has no length to return."""
        self._stream.flush()
        return 0

    def close(self) -> None:
        """Leave the stream open for its owner."""


class NoWriter:
    """Writes nothing: for a scan whose sums are all that is wanted."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Forget the rows."""

    def commit(self) -> int:
        """There is nothing to make safe."""
        return 0

    def close(self) -> None:
        """There is nothing to close."""


class ParquetWriter:
    """Parquet with the input's columns and a `refusal_guard` column."""

    def __init__(self, path: Path, inputs: Sequence[RowFile]) -> None:
        pyarrow, parquet = _pyarrow(), _parquet()
        schemas = [source.schema for source in inputs if isinstance(source, ParquetRows)]
        if len(schemas) < len(inputs) or any(not schema.equals(schemas[0]) for schema in schemas):
            raise InputError("Parquet can be written only from Parquet files with the same columns; take a .jsonl output instead")
        result = [("label", "string"), ("score", "float64"), ("refused", "bool"), ("threshold", "float64"), ("detector", "string")]
        result += [("reason", "string"), ("evidence", "list<int64>"), ("signal", "string"), ("error", "string")]
        kinds = {
            "string": pyarrow.string(),
            "float64": pyarrow.float64(),
            "bool": pyarrow.bool_(),
            "list<int64>": pyarrow.list_(pyarrow.int64()),
        }
        column = pyarrow.field("refusal_guard", pyarrow.struct([(name, kinds[kind]) for name, kind in result]))
        self._schema = pyarrow.schema([*(field for field in schemas[0] if field.name != "refusal_guard"), column])
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._pending: list[Mapping[str, Any]] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Collect rows for the next row group."""
        self._pending += rows

    def commit(self) -> int:
        """Write a row group; Parquet can't be continued, so there is no length to return."""
        if self._pending:
            self._writer.write_table(_pyarrow().Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []
        return 0

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line of JSON; lone surrogates are escaped, dates and other foreign values become strings."""
    try:
        return (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row, default=str) + "\n").encode()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("Parquet", "parquet") from None
    return pyarrow


def _parquet() -> Any:
    _pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet
