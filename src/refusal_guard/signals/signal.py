"""What a provider declares about a call, in one form for all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["refusal", "filtered", "blocked", "flagged", "not_run"]
Stage = Literal["input", "output", "guard"]
WITHHELD: frozenset[str] = frozenset({"refusal", "filtered", "blocked"})


class Signal(BaseModel):
    """A provider's own word on a prompt, an answer or its moderation.

    `kind` keeps apart what must not be mixed up:

    - the answer: "refusal" (the model declined) or "filtered" (a filter took the answer away), `stage` "output";
    - the prompt: "blocked" (it never got an answer), `stage` "input";
    - the moderation or guard: "not_run" (it failed, so nothing was checked), `stage` "guard";
    - "flagged": moderation marked the prompt or the answer (`stage` says which) and let it pass all the same.

    `provider` names the form the signal has ("openai" also for servers that speak its protocol), `category` what was found, in the
    provider's words. `explanation` is the provider's sentence about it, OpenAI's refusal text included; no other text of the prompt or
    the response is ever held, and the explanation is left out of the repr so that it gets into no log by accident.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    provider: str
    stage: Stage
    category: str | None = None
    explanation: str | None = Field(default=None, repr=False)

    @property
    def withheld(self) -> bool:
        """Whether the caller did not get an answer because of it: the model declined, or a filter took the answer or the prompt away."""
        return self.kind in WITHHELD


def refusal(provider: str, *, category: str | None = None, explanation: str | None = None) -> Signal:
    """Return the signal of a model that declined."""
    return Signal(kind="refusal", provider=provider, stage="output", category=category, explanation=explanation)


def filtered(provider: str, *, category: str | None = None, explanation: str | None = None) -> Signal:
    """Return the signal of an answer that a filter took away."""
    return Signal(kind="filtered", provider=provider, stage="output", category=category, explanation=explanation)


def blocked(provider: str, *, category: str | None = None, explanation: str | None = None) -> Signal:
    """Return the signal of a prompt that a filter stopped."""
    return Signal(kind="blocked", provider=provider, stage="input", category=category, explanation=explanation)


def flagged(provider: str, stage: Stage, *, category: str | None = None) -> Signal:
    """Return the signal of a moderation that marked a prompt or an answer and let it pass."""
    return Signal(kind="flagged", provider=provider, stage=stage, category=category)


def not_run(provider: str, *, category: str | None = None, explanation: str | None = None) -> Signal:
    """Return the signal of a moderation that failed."""
    return Signal(kind="not_run", provider=provider, stage="guard", category=category, explanation=explanation)
