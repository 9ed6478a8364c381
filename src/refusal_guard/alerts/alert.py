"""The alert: what somebody is told, without any text of a prompt or a response."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .rules import Kind, Trigger

State = Literal["raised", "resolved"]
_ABOUT: dict[Kind, tuple[str, str]] = {
    "refusals": ("Refusals", "answers"),
    "blocked_prompts": ("Blocked prompts", "calls"),
    "flagged_prompts": ("Flagged prompts", "calls"),
    "not_run": ("Guard or moderation not running", "calls"),
}


class Alert(BaseModel):
    """One notice: that an alert is raised, or that it is resolved.

    `id` is the same in both notices of an episode, `key` (rule and labels) the same in all episodes and processes. `time` and `since` are
    seconds since 1970 (UTC): of this notice, and of the one that raised the alert. In the last `seconds`, `hits` of `samples` were seen,
    a share of `rate`. `trigger` is what held, `threshold` from which value on, and `baseline` the earlier rate it was compared to.
    `causes` counts signals, categories and reasons of the latest hits, `conversations` are ids of some, newest first.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    key: str
    state: State
    rule: str
    kind: Kind
    labels: dict[str, str]
    trigger: Trigger
    threshold: float
    time: float
    since: float
    samples: int
    hits: int
    rate: float
    seconds: float
    baseline: float | None = None
    causes: dict[str, int] = {}
    conversations: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Say it in a few words."""
        of = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{'Resolved: ' if self.state == 'resolved' else ''}{_ABOUT[self.kind][0]}{': ' if of else ''}{of}"

    @property
    def text(self) -> str:
        """Say it in a sentence."""
        seen = f"{self.hits:,} of {self.samples:,} {_ABOUT[self.kind][1]} ({self.rate:.0%}) in the last {self.seconds:,.0f} s"
        limit = {"rate": f"{self.threshold:.0%}", "count": f"{self.threshold:,.0f}", "consecutive": f"{self.threshold:,.0f} in a row"}
        line = f"{seen}; rule {self.rule} alerts from {limit[self.trigger]}"
        line += "" if self.baseline is None else f", baseline {self.baseline:.1%}"
        causes = ", ".join(f"{count} {cause}" for cause, count in self.causes.items())
        return f"{line}. Latest: {causes}." if causes else f"{line}."
