"""A scan's rows as one self-contained HTML page: the sums, and the refused responses with their evidence marked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from .bulk import Group, Scanned, Tally
from .conversation import Conversation
from .errors import InputError
from .files import Record
from .guard import Guard
from .verdict import Verdict

_MOST_EXAMPLES = 200
_LONGEST_EXCERPT = 600
_LONGEST_PROMPT = 300


class Report:
    """Collects the first refused rows of a scan and writes the page at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._examples: list[str] = []
        self.write_text("")  # a page that can't be written should fail before the scan, not after it

    def add(self, rows: Sequence[Scanned]) -> None:
        """Take the refused ones among the rows, until the page is full."""
        for row in rows:
            if len(self._examples) < _MOST_EXAMPLES and row.verdict and row.verdict.refused and row.conversation:
                self._examples.append(_example(row.record, row.conversation, row.verdict))

    def write(self, tally: Tally, guard: Guard) -> None:
        """Write the page. Raises InputError when the file can't be written."""
        page = Template((files("refusal_guard") / "report.html").read_text(encoding="utf-8"))
        groups = [("all judged", tally.total)]
        groups += [(f"model {name}", group) for name, group in tally.models.items()]
        groups += [(f"source {name}", group) for name, group in tally.sources.items()]
        self.write_text(
            page.substitute(
                rows=f"{tally.rows:,}",
                refused=f"{tally.total.refused:,}",
                rate=f"{tally.total.rate:.1%}",
                broken=f"{tally.broken:,}",
                detector=escape(guard.detector.name),
                threshold=f"{guard.threshold:.3f}",
                groups="\n".join(_group_row(name, group) for name, group in groups),
                shown=f"{len(self._examples):,}",
                examples="\n".join(self._examples) or "<p>None.</p>",
            )
        )

    def write_text(self, text: str) -> None:
        """Replace the page's file."""
        try:
            self._path.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"can't write {self._path}: {error.strerror}") from None


def _group_row(name: str, group: Group) -> str:
    low, high = group.interval
    bar = f'<div class="bar"><i style="left:{low:.2%};width:{high - low:.2%}"></i><b style="left:{group.rate:.2%}"></b></div>'
    cells = f"{group.judged:,}", f"{group.refused:,}", f"{group.rate:.1%}", f"{low:.1%} – {high:.1%}"
    return f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}<td>{bar}</td></tr>"


def _example(record: Record, conversation: Conversation, verdict: Verdict) -> str:
    response = conversation.response
    start, end = verdict.evidence or (0, 0)
    first = max(0, min(start - _LONGEST_EXCERPT // 3, len(response) - _LONGEST_EXCERPT))
    last = max(end, first + _LONGEST_EXCERPT)
    excerpt = f"{escape(response[first:start])}<mark>{escape(response[start:end])}</mark>{escape(response[end:last])}"
    facts = [verdict.label, f"score {verdict.score:.3f}", *([verdict.reason.replace("_", " ")] if verdict.reason else [])]
    row = record.row or {}
    facts += [str(row[name]) for name in ("id", "model", "source") if isinstance(row.get(name), str | int)]
    return (
        f"<article><header>{escape(Path(record.file).name)}:{record.number} · {escape(' · '.join(facts))}</header>"
        f"<p class=prompt>{escape(conversation.prompt[:_LONGEST_PROMPT])}</p>"
        f"<p>{'… ' if first else ''}{excerpt}{' …' if last < len(response) else ''}</p></article>"
    )
