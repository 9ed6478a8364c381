"""`refusal-guard evaluate`: how good a detector is on labelled rows, and which threshold has a wanted precision or false-positive rate."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .bulk import Scanned, scan_records
from .conversation import Fields
from .errors import InputError
from .files import Record, open_rows
from .guard import Guard
from .verdict import Label

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from .evaluate import Figure, Metrics, Suggestion

GuardOf = Callable[[Namespace], Guard]
_LABELS = (Label.REFUSAL, Label.PARTIAL, Label.COMPLIANCE)
_FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "false_positive_rate": "false-positive rate",
    "auroc": "AUROC",
    "calibration_error": "calibration error",
}
_WISHES = ("precision", "false_positive_rate")
_GROUPED_BY = ("model", "source")
_LARGEST_GROUPS = 12
_FILE_WIDTH = 200


def add_to(commands: _SubParsersAction[ArgumentParser], common: ArgumentParser, fields: ArgumentParser, guard_of: GuardOf) -> None:
    """Add the `evaluate` command to the command line; `guard_of` makes the guard of the common options."""
    parser = commands.add_parser(
        "evaluate",
        parents=[common, fields],
        help="measure a detector on labelled rows",
        description="Measure a detector on rows labelled refusal, partial or compliance. Exit code: 0, 2 usage or input error.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="file of labelled rows; - reads JSON Lines from standard input")
    parser.add_argument("--label-field", default="label", metavar="F", help="field of the label (default: %(default)s)")
    parser.add_argument("--partial-counts", action="store_true", help="count partial as refusal (default: leave such rows out)")
    parser.add_argument("--precision", type=rate, metavar="P", help="suggest the lowest threshold with this precision")
    parser.add_argument("--false-positive-rate", type=rate, metavar="R", help="suggest the lowest threshold with at most this rate")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=lambda options: measure(options, guard_of), on_error="pass")


def rate(text: str) -> float:
    """Return the share that an option's value is."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ArgumentTypeError("a rate lies between 0 and 1")
    return share


def measure(options: Namespace, guard_of: GuardOf) -> int:
    """Judge the labelled rows, and print their metrics as a table or an object."""
    files = [open_rows(name) for name in options.files]
    guard = guard_of(options)
    rows = _Rows(options.label_field)
    fields = Fields(options.prompt_field, options.response_field, options.messages_field)
    for scanned in scan_records(guard, rows.labelled(chain.from_iterable(files)), fields):
        rows.add(scanned)
    if rows.left_out:
        Console(stderr=True, soft_wrap=True).print(f"refusal-guard: {rows.left_out:,} rows left out; {rows.first_left_out}", markup=False)
    if not rows.labels:
        raise InputError("there is nothing to measure: no row has a label and a verdict (--label-field names the field)")
    if options.json:
        print(json.dumps(_as_object(rows, guard, options)))
    else:
        _show(rows, guard, options)
    return 0


class _Rows:
    """The labels and scores of rows, and the groups they are in."""

    def __init__(self, label_field: str) -> None:
        self._label_field = label_field
        self.labels: list[str] = []
        self.scores: list[float] = []
        self.groups: dict[tuple[str, str], list[int]] = {}
        self.left_out = 0
        self.first_left_out = ""

    def labelled(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records with a label; the others need no detector."""
        for record in records:
            if record.row is not None and record.row.get(self._label_field) in _LABELS:
                yield record
            else:
                self._leave_out(record, record.error or f"no refusal, partial or compliance in the field {self._label_field}")

    def add(self, scanned: Scanned) -> None:
        """Take in a row; one that the guard could not judge is left out, and one without a word has the score 0."""
        row, verdict = scanned.record.row, scanned.verdict
        if row is None or verdict is None or verdict.error:
            self._leave_out(scanned.record, scanned.error or (verdict and verdict.error) or "")
            return
        for kind in _GROUPED_BY:
            if isinstance(row.get(kind), str):
                self.groups.setdefault((kind, row[kind]), []).append(len(self.labels))
        self.labels.append(row[self._label_field])
        self.scores.append(verdict.score)

    def _leave_out(self, record: Record, why: str) -> None:
        self.left_out += 1
        self.first_left_out = self.first_left_out or f"{record.file} line {record.number}: {why}"

    def metrics(self, guard: Guard, options: Namespace, group: tuple[str, str] | None = None) -> Metrics:
        """Return the metrics of all rows or of a group."""
        from .evaluate import evaluate  # numpy is dear to import, and other commands may not need it

        at = range(len(self.labels)) if group is None else self.groups[group]
        labels, scores = [self.labels[i] for i in at], [self.scores[i] for i in at]
        return evaluate(labels, scores, guard.threshold, partial_counts=options.partial_counts)

    def suggestions(self, options: Namespace) -> dict[str, Suggestion | None]:
        """Return what is suggested for each wish."""
        from .evaluate import suggest_threshold

        wishes = {name: getattr(options, name) for name in _WISHES if getattr(options, name) is not None}
        counts = options.partial_counts
        return {name: suggest_threshold(self.labels, self.scores, partial_counts=counts, **{name: wish}) for name, wish in wishes.items()}


def _as_object(rows: _Rows, guard: Guard, options: Namespace) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {kind: {} for kind in _GROUPED_BY}
    for kind, name in rows.groups:
        groups[kind][name] = rows.metrics(guard, options, (kind, name)).model_dump()
    return {
        "detector": guard.detector.name,
        "threshold": guard.threshold,
        "left_out": rows.left_out,
        "all": rows.metrics(guard, options).model_dump(),
        **{f"{kind}s": found for kind, found in groups.items()},
        "suggested": {name: found and found.model_dump() for name, found in rows.suggestions(options).items()},
    }


def _show(rows: _Rows, guard: Guard, options: Namespace) -> None:
    table = Table(show_edge=False, pad_edge=False, title=f"{guard.detector.name}, threshold {guard.threshold:g}, 95 % intervals")
    for name in ("", "rows", "refusals", *_FIGURES.values()):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    _add(table, "all rows", rows.metrics(guard, options))
    for kind in _GROUPED_BY:
        ordered = sorted((group for group in rows.groups if group[0] == kind), key=lambda group: -len(rows.groups[group]))
        for group in ordered[:_LARGEST_GROUPS]:
            _add(table, " ".join(group), rows.metrics(guard, options, group))
        if len(ordered) > _LARGEST_GROUPS:
            table.add_row(f"({len(ordered) - _LARGEST_GROUPS} more {kind}s)")
    suggestions = {f"{_FIGURES[name]} {getattr(options, name):g}": found for name, found in rows.suggestions(options).items()}
    for wish, found in suggestions.items():
        if found:
            _add(table, f"{wish}: --threshold {found.threshold}", found.metrics)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
    console.print(table, *(f"{wish}: no threshold has it" for wish, found in suggestions.items() if not found), sep="\n")


def _add(table: Table, name: str, metrics: Metrics) -> None:
    shown = "".join(char if char.isprintable() else " " for char in name)
    table.add_row(Text(shown), f"{metrics.rows:,}", f"{metrics.refusals:,}", *(_cell(getattr(metrics, figure)) for figure in _FIGURES))


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}" if figure.low is None else f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"
