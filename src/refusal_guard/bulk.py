"""Rows in, verdicts out: many files, in order, in constant memory, resumable. Prints nothing."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from .conversation import Conversation, Fields
from .errors import InputError
from .files import JsonLinesWriter, NoWriter, ParquetWriter, Record, RowFile, RowWriter, open_rows
from .guard import Guard
from .verdict import Label, Verdict

_Item = TypeVar("_Item", Record, "Scanned")
Keep = Literal["all", "compliance", "refusal"]
RESULT_FIELD = "refusal_guard"
# A part is cut at whichever comes first: so many rows, or so many bytes, which bounds memory however long the rows are.
_BATCH = 32, 4 * 1024**2
_COMMIT = 2_048, 16 * 1024**2
_COMMIT_SECONDS = 1.0
_MOST_GROUPS = 1_000
_OTHERS = "(others)"
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Scanned:
    """A record with its conversation and verdict, or with the error that kept it from having them."""

    record: Record
    conversation: Conversation | None = None
    verdict: Verdict | None = None
    error: str | None = None

    @property
    def broken(self) -> bool:
        """Whether there is no verdict, or one that the guard could not reach."""
        return self.verdict is None or self.verdict.error is not None

    def row(self, threshold: float, detector: str) -> dict[str, Any]:
        """Return the input row with a `refusal_guard` object added; a line that could not be read is named by file and number."""
        row = self.record.row if self.record.row is not None else {"file": self.record.file, "line": self.record.number}
        return {**row, RESULT_FIELD: result_object(self.verdict, self.error, threshold, detector)}

    def kept(self, keep: Keep) -> bool:
        """Whether a filtered output keeps the row: its label is compliance, or it was refused."""
        if keep == "all":
            return True
        if self.broken or self.verdict is None:
            return False
        return self.verdict.refused if keep == "refusal" else self.verdict.label is Label.COMPLIANCE


def result_object(verdict: Verdict | None, error: str | None = None, threshold: float = 0.5, detector: str = "") -> dict[str, Any]:
    """Return the `refusal_guard` object of a row: the verdict's fields, or the error and no score."""
    if verdict is None:
        empty = dict.fromkeys(("reason", "evidence", "signal"))
        return {"label": "unknown", "score": None, "refused": False, "threshold": threshold, "detector": detector, **empty, "error": error}
    return verdict.model_dump(mode="json", exclude={"truncated"})


class Group(BaseModel):
    """How many rows were judged and refused."""

    judged: int = 0
    refused: int = 0

    @property
    def rate(self) -> float:
        """Share of judged rows that were refused; 0 when none was judged."""
        return self.refused / self.judged if self.judged else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate (Wilson 1927); (0, 1) when none was judged."""
        n, p = self.judged, self.rate
        if not n:
            return 0.0, 1.0
        centre, width = p + _Z95**2 / (2 * n), _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
        scale = 1 + _Z95**2 / n
        return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


class Tally(BaseModel):
    """The sums of a scan: all of it, and by the rows' `model` and `source` fields."""

    rows: int = 0
    broken: int = 0
    written: int = 0
    total: Group = Group()
    labels: dict[str, int] = {}
    models: dict[str, Group] = {}
    sources: dict[str, Group] = {}

    def add(self, scanned: Scanned) -> None:
        """Count one row; unknown ones are counted by label but not as judged."""
        self.rows += 1
        if scanned.broken or scanned.verdict is None:
            self.broken += 1
            return
        label = scanned.verdict.label
        self.labels[label] = self.labels.get(label, 0) + 1
        if label is Label.UNKNOWN:
            return
        row = scanned.record.row or {}
        groups = [_group(self.models, row.get("model")), _group(self.sources, row.get("source"))]
        for group in (self.total, *filter(None, groups)):
            group.judged += 1
            group.refused += scanned.verdict.refused


def _group(groups: dict[str, Group], name: object) -> Group | None:
    if not isinstance(name, str):
        return None
    return groups.setdefault(name if name in groups or len(groups) < _MOST_GROUPS else _OTHERS, Group())


def scan_records(guard: Guard, records: Iterable[Record], fields: Fields = Fields(), workers: int | None = None) -> Iterator[Scanned]:
    """Yield every record with its verdict, in order; `workers` threads (default: one per core) hold a few batches at a time."""
    workers = workers or os.cpu_count() or 1
    source = iter(records)
    pending: deque[Future[list[Scanned]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(pending) < 2 * workers and (batch := _part(source, lambda record: record.size, _BATCH)):
                pending.append(pool.submit(_scan_batch, guard, batch, fields))
            if not pending:
                return
            yield from pending.popleft().result()


def _part(rows: Iterator[_Item], size_of: Callable[[_Item], int], limits: tuple[int, int], seconds: float = math.inf) -> list[_Item]:
    """Take rows until one of the limits (rows, bytes) or the time is reached; empty when there are none left."""
    part: list[_Item] = []
    most_rows, room = limits
    started = time.monotonic()
    while len(part) < most_rows and room > 0 and time.monotonic() - started < seconds:
        row = next(rows, None)
        if row is None:
            break
        part.append(row)
        room -= size_of(row)
    return part


def _scan_batch(guard: Guard, batch: Sequence[Record], fields: Fields) -> list[Scanned]:
    read = [_read(record, fields) for record in batch]
    verdicts = iter(guard.scan_many([row.conversation for row in read if row.conversation]))
    return [replace(row, verdict=next(verdicts)) if row.conversation else row for row in read]


def _read(record: Record, fields: Fields) -> Scanned:
    if record.row is None:
        return Scanned(record, error=record.error)
    try:
        return Scanned(record, Conversation.from_row(record.row, fields))
    except InputError as error:
        return Scanned(record, error=str(error))


class Progress(BaseModel):
    """What a scan has safely written: kept beside the output until the scan is finished."""

    inputs: list[str]
    detector: str
    threshold: float
    keep: Keep
    bytes: int
    tally: Tally


class Scan:
    """A scan of files into an output: `run` does it and hands each batch to the listeners; `tally` and `sources` tell how far it is.

    With `resume`, an output that an earlier, interrupted scan of the same inputs left behind is continued: no row is lost and none
    written twice. Raises InputError when an input or the output can't be opened, or when the interrupted scan was another one.
    """

    def __init__(
        self,
        guard: Guard,
        inputs: Sequence[str],
        out: RowWriter | Path | None,
        *,
        fields: Fields = Fields(),
        keep: Keep = "all",
        resume: bool = False,
    ) -> None:
        self._guard, self._fields, self._keep = guard, fields, keep
        self._inputs = list(inputs)
        self.sources: list[RowFile] = [open_rows(name) for name in inputs]
        self._note = Path(f"{out}.progress") if isinstance(out, Path) and out.suffix != ".parquet" else None
        self._out = out
        self._earlier = self._read_note() if resume else None
        self.tally = self._earlier.tally if self._earlier else Tally()

    def run(self, listeners: Sequence[Callable[[Sequence[Scanned]], None]] = ()) -> Tally:
        """Scan everything; returns the tally. An OSError while writing leaves all committed rows intact, to be resumed."""
        records = islice(chain.from_iterable(self.sources), self.tally.rows, None)
        scanned = scan_records(self._guard, records, self._fields)
        with closing(self._writer()) as writer:
            while rows := _part(scanned, lambda row: row.record.size, _COMMIT, _COMMIT_SECONDS):
                self._take(rows, writer)
                for listen in listeners:
                    listen(rows)
        if self._note:
            self._note.unlink(missing_ok=True)
        return self.tally

    def _take(self, rows: Sequence[Scanned], writer: RowWriter) -> None:
        tally = self.tally.model_copy(deep=True)
        for row in rows:
            tally.add(row)
        kept = [row for row in rows if row.kept(self._keep)]
        tally.written += len(kept)
        writer.write([row.row(self._guard.threshold, self._guard.detector.name) for row in kept])
        self._remember(tally, writer.commit())
        self.tally = tally

    def _writer(self) -> RowWriter:
        out = self._out
        if not isinstance(out, Path):
            return out or NoWriter()
        if any(Path(name).resolve() == out.resolve() for name in self._inputs if name != "-"):
            raise InputError(f"{out} is also an input: write to another file")
        try:
            if self._note and not self._earlier:
                self._note.unlink(missing_ok=True)  # it speaks of an output that is now overwritten
            if out.suffix == ".parquet":
                return ParquetWriter(out, self.sources)
            return JsonLinesWriter(out, self._earlier.bytes if self._earlier else 0)
        except OSError as error:
            raise InputError(f"can't write {out}: {error.strerror}") from None

    def _read_note(self) -> Progress | None:
        """Return how far an interrupted scan came; None when there was none."""
        out = self._out
        if self._note is None or "-" in self._inputs:
            raise InputError("only a scan of files into a JSON Lines file (--out) can be resumed")
        try:
            earlier = Progress.model_validate_json(self._note.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise InputError(f"{self._note} can't be read: scan again without resuming") from None
        if earlier.model_copy(update={"bytes": 0, "tally": Tally()}) != self._progress(Tally(), 0):
            raise InputError("the interrupted scan had other inputs, another detector or other settings: scan again without resuming")
        if not isinstance(out, Path) or not out.exists() or out.stat().st_size < earlier.bytes:
            raise InputError(f"{out} is not what the interrupted scan left behind: scan again without resuming")
        return earlier

    def _progress(self, tally: Tally, length: int) -> Progress:
        guard = self._guard
        return Progress(
            inputs=self._inputs, detector=guard.detector.name, threshold=guard.threshold, keep=self._keep, bytes=length, tally=tally
        )

    def _remember(self, tally: Tally, length: int) -> None:
        """Write the note anew and swap it in: a killed process leaves the old one or the new one, never half of one."""
        if self._note:
            fresh = self._note.with_name(f"{self._note.name}.new")
            fresh.write_text(self._progress(tally, length).model_dump_json())
            fresh.replace(self._note)
