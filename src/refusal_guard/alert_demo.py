"""`refusal-guard demo-alerts`: recorded answers replayed at speed, and the alert that a jump of refusals raises and resolves."""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .conversation import Conversation
from .errors import InputError
from .events import ScanEvent, flush, tagged
from .files import open_rows
from .guard import Guard
from .verdict import Label

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from .alerts import Alert

_ALERT_RATE = 0.2
_CALLS_A_MINUTE = 30  # of each model
_MINUTES = 35
_INCIDENT = range(12, 22)
_USUAL_RATE, _INCIDENT_RATE = 0.02, 0.6
_MOST_MODELS = 6
_BARS = "▁▂▃▄▅▆▇█"


def add_to(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the `demo-alerts` command to the command line."""
    demo = commands.add_parser(
        "demo-alerts",
        help="replay answers and see an alert raised and resolved",
        description=f"Judge the rows of a file, replay them as {_MINUTES} minutes of traffic in which one model comes to refuse most of "
        "what it is asked, and show the alert that is raised and resolved. Exit code: 0, or 2 for a usage or input error.",
    )
    demo.add_argument("file", metavar="FILE", help="file of rows, as scan takes it; their field model tells the models apart")
    demo.add_argument("--seconds", type=float, default=20.0, metavar="S", help="how long the replay takes (default: 20)")
    demo.add_argument("--seed", type=int, default=1, help="another seed, another traffic (default: 1)")
    demo.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Judge the rows, and replay them."""
    if not 0.0 <= options.seconds <= 3_600.0:
        raise InputError("--seconds must be between 0 and 3600")
    from .alerts import Alerts, Rule  # which no other command needs

    replay = Replay(_judged(options.file), options.seed)
    console = Console(highlight=False)
    rule = Rule(name="refusals", kind="refusals", by=("model",), rate=_ALERT_RATE)
    alerts = Alerts([rule], [lambda alert: console.print(_notice(alert))], clock=lambda: replay.now)
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        for minute in range(_MINUTES):
            for event in replay.minute(minute):
                alerts(event)
            alerts.flush()
            live.update(_screen(replay, minute, {alert.labels["model"] for alert in alerts.open}), refresh=console.is_terminal)
            time.sleep(options.seconds / _MINUTES)
    return 0


@dataclass(slots=True)
class _Model:
    """The events of one model, to draw from, and its share of refusals in each minute so far."""

    answered: list[ScanEvent] = field(default_factory=list)
    refused: list[ScanEvent] = field(default_factory=list)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_MINUTES))


class Replay:
    """Traffic drawn from events: all models refuse 2 % of what they are asked, but one of them 60 % during the incident.

    `now` is the time of the event under way, in seconds since the start. Raises InputError when there is no refusal or nothing else.
    """

    def __init__(self, events: Iterable[ScanEvent], seed: int) -> None:
        self.now, self.models = 0.0, dict[str, _Model]()
        self._random = random.Random(seed)
        for event in events:
            model = self.models.setdefault(event.model or "model", _Model())
            (model.refused if event.refused else model.answered).append(event)
        usable = sorted(self.models.items(), key=lambda item: -len(item[1].refused))
        self.models = {name: model for name, model in usable[:_MOST_MODELS] if model.refused and model.answered}
        if not self.models:
            raise InputError("a replay needs a model with refusals and with other answers: try examples/transcripts.jsonl of the source")
        self.at_fault = next(iter(self.models))

    def rate(self, name: str, minute: int) -> float:
        """Return the true refusal rate of a model."""
        return _INCIDENT_RATE if name == self.at_fault and minute in _INCIDENT else _USUAL_RATE

    def minute(self, minute: int) -> Iterable[ScanEvent]:
        """Yield the events of one minute in order, with `now` moving on."""
        refusals = dict.fromkeys(self.models, 0)
        names = list(self.models) * _CALLS_A_MINUTE
        for place, name in enumerate(names):
            self.now = 60.0 * (minute + place / len(names))
            refused = self._random.random() < self.rate(name, minute)
            refusals[name] += refused
            model = self.models[name]
            yield self._random.choice(model.refused if refused else model.answered).model_copy(update={"time": self.now})
        for name, count in refusals.items():
            self.models[name].rates.append(count / _CALLS_A_MINUTE)


def _judged(path: str) -> list[ScanEvent]:
    """Return the events that a guard makes of the rows of a file, without those that hold nothing to judge."""
    events: list[ScanEvent] = []
    guard = Guard(hooks=[events.append])
    for record in open_rows(path):
        row = record.row or {}
        try:
            conversation = Conversation.from_row(row)
        except InputError:
            continue
        model = row.get("model")
        with tagged(model=model if isinstance(model, str) else None):
            guard.scan(conversation)
    flush()
    return [event for event in events if event.label is not Label.UNKNOWN]


def _screen(replay: Replay, minute: int, alerting: set[str]) -> Panel:
    """Return what the terminal shows at the end of a minute."""
    table = Table(show_edge=False, pad_edge=False, box=None, padding=(0, 2, 0, 0))
    for name in ("model", "refusals, minute by minute", "now", ""):
        table.add_column(name, header_style="dim", justify="right" if name == "now" else "left", no_wrap=True)
    for name, model in replay.models.items():
        state = Text(" ALERT ", "bold white on red") if name in alerting else Text("ok", "green")
        table.add_row(Text(name), _bars(model.rates), f"{model.rates[-1]:.0%}", state)
    story = f"{replay.at_fault} refuses {replay.rate(replay.at_fault, minute):.0%} of what it is asked"
    told = Text(story, "red" if minute in _INCIDENT else "dim")
    return Panel(Group(table, Text(), told), title=f"minute {minute + 1} of {_MINUTES}", title_align="left", expand=False, padding=(1, 2))


def _bars(rates: Iterable[float]) -> Text:
    bars = Text()
    for rate in rates:
        bars.append(_BARS[min(len(_BARS) - 1, int(rate * len(_BARS)))], "red" if rate >= _ALERT_RATE else "cyan")
    return bars.append(" " * (_MINUTES - len(bars)))


def _notice(alert: Alert) -> Text:
    """Return an alert as a line for the terminal."""
    style = "bold red" if alert.state == "raised" else "bold green"
    return Text.assemble(Text(f"{alert.time / 60:4.1f} min  ", "dim"), Text(alert.title, style), f"\n          {alert.text}")
