"""The command line: parse, call, print."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import refusal_guard

from . import alert_demo, evaluate_command, model_commands
from .bulk import Group, Scan, Scanned, Tally, result_object
from .conversation import Conversation, Fields
from .errors import InputError, RefusalGuardError
from .evaluate_command import rate
from .events import Hook
from .files import STANDARD_INPUT, StreamWriter
from .guard import Guard
from .report import Report
from .serve import command as serve_command
from .verdict import Verdict

OK, REFUSED, BAD_INPUT, BROKEN_ROWS, INTERRUPTED = 0, 1, 2, 3, 130
_LARGEST_GROUPS = 12
_DETECTORS = "embedded (default), cascade, a published classifier (minos...: refusal-guard models list), a model folder or a server's URL"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (docs/command-line.md lists them)."""
    options = _parser().parse_args(arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        return int(options.run(options))
    except RefusalGuardError as error:
        errors.print(f"refusal-guard: {error}", markup=False)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): stop without a word, and keep Python from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        errors.print(f"refusal-guard: {error.strerror or error}; rows written so far are intact (scan --resume goes on)", markup=False)
    except KeyboardInterrupt:
        errors.print("refusal-guard: interrupted; rows written so far are intact (scan --resume goes on)")
        return INTERRUPTED
    return BAD_INPUT


def check(options: Namespace) -> int:
    """Judge one pair."""
    response = _from_standard_input() if options.response == STANDARD_INPUT else options.response
    verdict = _guard(options).scan(options.prompt, response)
    if options.json:
        print(json.dumps(result_object(verdict)))
    else:
        Console(highlight=False).print(_sentence(verdict, response), markup=False)
    return REFUSED if verdict.refused else OK


def scan(options: Namespace) -> int:
    """Scan files of rows."""
    guard = _guard(options)
    fields = Fields(options.prompt_field, options.response_field, options.messages_field)
    out = StreamWriter(sys.stdout.buffer) if options.out in (None, STANDARD_INPUT) else Path(options.out)
    job = Scan(guard, options.files, out, fields=fields, keep=options.keep, resume=options.resume)
    report = Report(Path(options.report)) if options.report else None
    started = time.perf_counter()
    with _ProgressBar(job) as advance:
        job.run([advance, *([report.add] if report else [])])
    seconds = time.perf_counter() - started
    console = Console(stderr=not isinstance(out, Path), highlight=False, soft_wrap=True)
    console.print(_summary(job.tally), _sums(job.tally, seconds), sep="\n")
    if report:
        report.write(job.tally, guard)
    if options.fail_over is not None and job.tally.total.rate > options.fail_over:
        return REFUSED
    return BROKEN_ROWS if job.tally.broken else OK


def _guard(options: Namespace, hooks: Sequence[Hook] = ()) -> Guard:
    """Make the guard. A command over rows takes what fails on the row; a detector that does not run at all fails here, before the first."""
    guard = Guard(options.detector, threshold=options.threshold, on_error=options.on_error, hooks=hooks)
    guard.detector.detect([Conversation.from_pair("", "Hello.")])
    return guard


def _from_standard_input() -> str:
    """Return what is on standard input; bytes that are no UTF-8 are an error, not a guess."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 at byte {error.start}") from None


def _sentence(verdict: Verdict, response: str) -> str:
    """Say a verdict in a line, and what it rests on in another."""
    line = f"{verdict.label} (score {verdict.score:.3f}, threshold {verdict.threshold:.3f}"
    line += f", {verdict.reason.replace('_', ' ')}" if verdict.reason else ""
    line += f", {verdict.signal}" if verdict.signal else ""
    line += ")"
    return f"{line}\n  {_printable(response[slice(*verdict.evidence)])}" if verdict.evidence else line


def _printable(text: str) -> str:
    """Return foreign text without what a terminal would obey: escape sequences, direction marks, lone surrogates."""
    return "".join(char if char.isprintable() else " " for char in text)


class _ProgressBar:
    """A progress bar on standard error where that is a terminal; yields what to call with each batch of rows."""

    def __init__(self, job: Scan) -> None:
        self._job = job
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())

    def __enter__(self) -> Callable[[Sequence[Scanned]], None]:
        sizes = [source.size for source in self._job.sources]
        known = [size for size in sizes if size is not None]
        self._bar.start()
        self._task = self._bar.add_task("scanning", total=sum(known) if len(known) == len(sizes) else None)
        return self._advance

    def _advance(self, rows: Sequence[Scanned]) -> None:
        tally = self._job.tally
        text = f"{tally.rows:,} rows, {tally.total.refused:,} refused"
        self._bar.update(self._task, completed=sum(source.position for source in self._job.sources), description=text)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _summary(tally: Tally) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for name in ("", "rows", "refused", "rate", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    _add_group(table, "all judged", tally.total)
    for kind, groups in (("model", tally.models), ("source", tally.sources)):
        largest = sorted(groups.items(), key=lambda item: -item[1].judged)
        for name, group in largest[:_LARGEST_GROUPS]:
            _add_group(table, f"{kind} {name}", group)
        if len(largest) > _LARGEST_GROUPS:
            table.add_row(f"({len(largest) - _LARGEST_GROUPS} more {kind}s)")
    return table


def _sums(tally: Tally, seconds: float) -> str:
    labels = ", ".join(f"{count:,} {label}" for label, count in sorted(tally.labels.items())) or "none judged"
    speed = tally.rows / max(seconds, 1e-9)
    return f"{tally.rows:,} rows: {labels}; {tally.broken:,} broken; {tally.written:,} written; {speed:,.0f} rows/s"


def _add_group(table: Table, name: str, group: Group) -> None:
    low, high = group.interval
    table.add_row(Text(_printable(name)), f"{group.judged:,}", f"{group.refused:,}", f"{group.rate:.1%}", f"{low:.1%} - {high:.1%}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="refusal-guard", description="Scores the output of language models for refusal.")
    parser.add_argument("--version", action="version", version=f"refusal-guard {refusal_guard.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = ArgumentParser(add_help=False)
    common.set_defaults(on_error="raise")
    common.add_argument("--detector", default="embedded", metavar="NAME", help=_DETECTORS)
    common.add_argument("--threshold", type=float, metavar="T", help="score from which a response is refused (default: the model's)")

    fields = ArgumentParser(add_help=False)
    fields.add_argument("--prompt-field", metavar="F", help="field of the prompt (default: found by itself)")
    fields.add_argument("--response-field", metavar="F", help="field of the response")
    fields.add_argument("--messages-field", metavar="F", help="field of the chat messages")

    one = commands.add_parser(
        "check",
        parents=[common],
        help="judge one pair",
        description="Judge one pair. Exit code: 0 not refused, 1 refused, 2 usage or input error.",
    )
    one.add_argument("--prompt", default="", metavar="P", help="what the user asked")
    one.add_argument("--response", required=True, metavar="R", help="what the model answered; - reads it from standard input")
    one.add_argument("--json", action="store_true", help="print the verdict as a JSON object")
    one.set_defaults(run=check)

    many = commands.add_parser(
        "scan",
        parents=[common, fields],
        help="judge files of rows",
        description="Judge every row of JSON Lines (.jsonl, .gz, .zst, -) or Parquet files. "
        "Exit code: 0, 1 refusal rate over --fail-over, 2 usage or input error, 3 finished with broken rows.",
    )
    many.add_argument("files", nargs="+", metavar="FILE", help="file of rows; - reads JSON Lines from standard input")
    many.add_argument("--out", metavar="OUT", help="where the rows go, each with a refusal_guard object (default: standard output)")
    many.add_argument("--report", metavar="R.html", help="also write a page with the sums and the refused rows; it holds their text")
    many.add_argument("--keep", choices=("all", "compliance", "refusal"), default="all", help="which rows to write (default: all)")
    many.add_argument("--resume", action="store_true", help="go on where an interrupted scan into the same OUT stopped")
    many.add_argument("--fail-over", type=rate, metavar="RATE", help="exit with 1 when more than this share of the judged rows is refused")
    many.set_defaults(run=scan, on_error="pass")

    evaluate_command.add_to(commands, common, fields, _guard)
    serve_command.add_to(commands, common, _guard)
    model_commands.add_to(commands)
    alert_demo.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
