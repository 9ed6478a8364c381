"""Policies: what to do about a refusal.

A policy only decides. It looks at the attempts so far and answers with an action, which `Guard.run`, `Guard.arun` or an adapter carries
out. Policies combine in order: `Retry(1, nudge="...").then(Fallback("other-model")).then(Raise()).within(seconds=30)`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .attempts import Attempt, Stop
from .condition import REFUSED, When, check_condition, is_number
from .errors import InputError

MAX_TEMPERATURE = 2.0


@dataclass(frozen=True, slots=True)
class State:
    """What a policy decides on: the attempts so far, at least one, and the seconds since the first began.

    `places` say who was asked each time (see `place_of`). `latest` attempts were made by the latest call: several, where a guarded call
    inside it asked again.
    """

    attempts: tuple[Attempt, ...]
    elapsed: float = 0.0
    places: tuple[Any, ...] = ()
    latest: int = 1

    @property
    def last(self) -> Attempt:
        """The attempt to decide about."""
        return self.attempts[-1]

    @property
    def asked(self) -> list[tuple[Any, Attempt]]:
        """Who was asked, and what came of it."""
        return list(zip(self.places or [None] * len(self.attempts), self.attempts, strict=True))

    def declared_by(self, place: Any, *models: str | None) -> bool:
        """Return whether the provider refused by declaration: one of the models at a place, or, if one is not known, any there."""
        return any(attempt.declared and at == place and (None in models or attempt.model in models) for at, attempt in self.asked)

    @property
    def repeats(self) -> bool:
        """Whether the latest call, made again, would send a model what the provider refused by declaration."""
        known = {None} if any(attempt.declared and attempt.model is None for attempt in self.attempts) else set()
        return any(self.declared_by(place, attempt.model, *known) for place, attempt in self.asked[-self.latest :])


@dataclass(frozen=True, slots=True)
class Accept:
    """Hand the response over as it is; where the provider refused by an exception, raise that again."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Raise RefusalDetected."""


@dataclass(frozen=True, slots=True)
class Regenerate:
    """Call again.

    `target` is a callable or a client to ask instead, `model` the name to ask for: of the target, or else of the call that came first. With
    neither, the same is asked again.
    `nudge` is said to the model after its refusal. `temperature` is None for the call's own.
    """

    target: Any = None
    model: str | None = None
    nudge: str | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, which step of the policy says so, and why there is no further attempt (None: there is one)."""

    action: Accept | Regenerate | Replace | Reject
    step: int
    stopped: Stop | None


class Policy(ABC):
    """What all policies can do: combine, be bounded, and decide."""

    @property
    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """Its steps, in the order in which they are taken."""

    def then(self, other: Policy) -> Policy:
        """Return a policy that goes on with another where this one has nothing more to do.

        A step that was passed is not returned to. Raises InputError when this one always ends, so that the other is never reached.
        """
        if not isinstance(other, Policy):
            raise InputError(f"then() takes another policy, not {type(other).__name__}")
        return Chain(self.steps + other.steps).within(**_bounds(self)).within(**_bounds(other))

    def within(self, *, attempts: int | None = None, seconds: float | None = None) -> Policy:
        """Return the policy with bounds on all attempts together, the first included; the tighter of two bounds holds.

        No attempt begins beyond them, and the policy goes on with what needs none. A call under way is not cut off: bound it by its own
        timeout. Raises InputError for bounds that allow nothing.
        """
        if attempts is not None and not (_is_count(attempts) and attempts >= 1):
            raise InputError("attempts must be a whole number of at least 1")
        if seconds is not None and not (is_number(seconds) and seconds > 0):
            raise InputError("seconds must be a number above 0")
        mine = _bounds(self)
        return Chain(self.steps, _tighter(mine["attempts"], attempts), _tighter(mine["seconds"], seconds))

    def adapted(self, change: Callable[[Step], Step]) -> Policy:
        """Return the policy with each step put through a function, its bounds kept: so an adapter makes calls of other clients."""
        return Chain(tuple(change(step) for step in self.steps)).within(**_bounds(self))

    def decide(self, state: State) -> Decision:
        """Return what to do about the last attempt; the same state always gives the same decision."""
        return Chain(self.steps).decide(state)


@dataclass(frozen=True)
class Chain(Policy):
    """Steps taken one after the other, and bounds on them all. Made by `then` and `within`."""

    chain: tuple[Step, ...]
    attempts: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse steps that are never reached."""
        for step in self.chain[:-1]:
            if step.ends and step.when == REFUSED:
                raise InputError(
                    f"nothing comes after {type(step).__name__}(): it always ends; put it last, or give it a condition (when=...)"
                )

    @property
    def steps(self) -> tuple[Step, ...]:
        """Its steps, in the order in which they are taken."""
        return self.chain

    def decide(self, state: State) -> Decision:
        """Return what to do about the last attempt."""
        passed = [Stop.UNMATCHED if state.last.verdict.refused else Stop.ANSWERED]
        for index in range(max(state.last.step, 0), len(self.chain)):
            step = self.chain[index]
            if not step.when.holds(state.last.verdict):
                continue
            answer = self._bounded(step.act(state, index), state)
            if isinstance(answer, Stop):
                passed.append(answer)
            elif isinstance(answer, Regenerate):
                return Decision(answer, index, None)
            else:
                return Decision(answer, index, _most_telling([*passed, Stop.POLICY]))
        return Decision(Accept(), len(self.chain), _most_telling(passed))

    def _bounded(self, answer: Answer, state: State) -> Answer:
        if not isinstance(answer, Regenerate):
            return answer
        if self.seconds is not None and state.elapsed >= self.seconds:
            return Stop.DEADLINE
        return Stop.ATTEMPTS if self.attempts is not None and len(state.attempts) >= self.attempts else answer


class Step(Policy):
    """A policy of one step. `when` says which verdicts it is for, `ends` that no attempt follows it."""

    when: When
    ends: ClassVar[bool] = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """Itself."""
        return (self,)

    @property
    def needs(self) -> tuple[str, ...]:
        """The keywords by which a call is told of the change."""
        return ()

    @abstractmethod
    def act(self, state: State, index: int) -> Answer:
        """Return the action, or why there is none; `index` is the step's place in the policy."""


@dataclass(frozen=True)
class Flag(Step):
    """Hand the response over as it is; `report_of(response)` has the verdict."""

    when: When = REFUSED
    ends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a condition that is none."""
        check_condition(self.when)

    def act(self, state: State, index: int) -> Answer:
        """Accept."""
        return Accept()


@dataclass(frozen=True)
class Raise(Step):
    """Raise RefusalDetected, which carries the verdict, the response and the report."""

    when: When = REFUSED
    ends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a condition that is none."""
        check_condition(self.when)

    def act(self, state: State, index: int) -> Answer:
        """Reject."""
        return Reject()


@dataclass(frozen=True)
class Replace(Step):
    """Hand over something else: a text, or what a function makes of the refused response.

    The function gets None when the provider refused by an exception. A text comes as a str, whatever the call returns.
    """

    by: str | Callable[[Any], Any]
    when: When = REFUSED
    ends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what can't stand in for a response."""
        check_condition(self.when)
        if not isinstance(self.by, str) and not callable(self.by):
            raise InputError(f"Replace takes a text or a function of the refused response, not {type(self.by).__name__}")
        if inspect.iscoroutinefunction(self.by):
            raise InputError("Replace takes a plain function, not a coroutine function: to ask again, use Fallback(function)")

    def act(self, state: State, index: int) -> Answer:
        """Replace."""
        return self

    def instead_of(self, response: Any) -> Any:
        """Return what stands in for the refused response."""
        return self.by if isinstance(self.by, str) else self.by(response)


@dataclass(frozen=True)
class Retry(Step):
    """Ask the same model again, up to `n` times.

    `nudge` is said to the model after its refusal; `temperature`, 0 to 2, is asked for instead of the call's own. A refusal that the
    provider declared is not sent again without a nudge: the model has decided.
    """

    n: int = 1
    nudge: str | None = None
    temperature: float | None = None
    when: When = REFUSED

    def __post_init__(self) -> None:
        """Refuse a retry that would do nothing."""
        check_condition(self.when)
        if not (_is_count(self.n) and self.n >= 1):
            raise InputError("Retry takes a whole number of attempts, at least 1")
        if self.nudge is not None and not (isinstance(self.nudge, str) and self.nudge.strip()):
            raise InputError("the nudge must be a text that is not empty")
        if self.temperature is not None and not (is_number(self.temperature) and 0.0 <= self.temperature <= MAX_TEMPERATURE):
            raise InputError(f"the temperature must be a number from 0 to {MAX_TEMPERATURE:g}")

    @property
    def needs(self) -> tuple[str, ...]:
        """`messages` for a nudge, `temperature` for another temperature."""
        given = (("messages", self.nudge), ("temperature", self.temperature))
        return tuple(name for name, value in given if value is not None)

    def act(self, state: State, index: int) -> Answer:
        """Ask again, unless the attempts are used up or nothing would change."""
        if sum(attempt.step == index for attempt in state.attempts) >= self.n:
            return Stop.EXHAUSTED
        if self.nudge is None and state.repeats:
            return Stop.UNCHANGED
        return Regenerate(nudge=self.nudge, temperature=self.temperature)


@dataclass(frozen=True, init=False)
class Fallback(Step):
    """Ask others instead, each once, in order: `Fallback("b", "c")` is `Fallback("b").then(Fallback("c"))`.

    A target is the name of a model, a callable that takes the place of the call, or, for guarded clients, another client. `model` is the
    one that a callable or a client is asked for. A target that was sent the same request, and whose provider refused it, is passed over:
    the same model at the same address, or of the same callable.
    """

    targets: tuple[Any, ...]
    model: str | None = None
    when: When = REFUSED

    def __init__(self, *targets: Any, model: str | None = None, when: When = REFUSED) -> None:
        check_condition(when)
        if not targets:
            raise InputError('Fallback needs somebody to ask: the name of a model, a callable or a client, as in Fallback("other-model")')
        for target in targets:
            _check_target(target, model)
        for name, value in (("targets", targets), ("model", model), ("when", when)):
            object.__setattr__(self, name, value)

    @property
    def steps(self) -> tuple[Step, ...]:
        """One step for each target."""
        return tuple(Fallback(target, model=self.model, when=self.when) for target in self.targets)

    @property
    def needs(self) -> tuple[str, ...]:
        """`model`, when there is a name to ask for."""
        return () if self.asked is None else ("model",)

    @property
    def asked(self) -> str | None:
        """The model that the (first) target is asked for, None for its own."""
        return self.targets[0] if isinstance(self.targets[0], str) else self.model

    def act(self, state: State, index: int) -> Answer:
        """Ask the target, unless it was asked, or refused this very request."""
        target = self.targets[0]
        if any(attempt.step == index for attempt in state.attempts):
            return Stop.EXHAUSTED
        if isinstance(target, str):
            unchanged = state.declared_by(state.asked[0][0], target)
            return Stop.UNCHANGED if unchanged else Regenerate(model=target)
        unchanged = state.declared_by(place_of(target), self.model or default_model(target))
        return Stop.UNCHANGED if unchanged else Regenerate(target=target, model=self.model)


Answer = Accept | Regenerate | Replace | Reject | Stop


def check_policy(policy: object) -> Policy:
    """Return the policy; raises InputError for what is none."""
    if not isinstance(policy, Policy):
        raise InputError("the policy must be one of Flag(), Raise(), Retry(), Fallback(...), Replace(...), or several joined by then()")
    return policy


def place_of(call: Any) -> Any:
    """Return who is asked by a call: the address that an adapter's call tells, or else the call itself."""
    address = getattr(call, "address", None)
    return address if isinstance(address, str) else call


def default_model(call: Any) -> str | None:
    """Return the model a call asks for by itself, where its signature tells: a default, or what functools.partial was given."""
    try:
        default = inspect.signature(call).parameters["model"].default
    except (TypeError, ValueError, KeyError):
        return None
    return default if isinstance(default, str) else None


def _most_telling(reasons: list[Stop]) -> Stop:
    return max(reasons, key=list(Stop).index)


def _bounds(policy: Policy) -> dict[str, Any]:
    return {"attempts": getattr(policy, "attempts", None), "seconds": getattr(policy, "seconds", None)}


def _tighter(one: float | None, other: float | None) -> Any:
    return min((bound for bound in (one, other) if bound is not None), default=None)


def _check_target(target: object, model: object) -> None:
    if target is None or isinstance(target, bool | int | float | bytes | Policy) or (isinstance(target, str) and not target.strip()):
        raise InputError("Fallback takes names of models, callables and clients; this is none, or an empty name")
    if model is not None and not (isinstance(model, str) and model.strip()):
        raise InputError("the model of a fallback must be a name")
    if isinstance(target, str) and model is not None:
        raise InputError("a fallback to a name has its model already: give model= only with a callable or a client")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
