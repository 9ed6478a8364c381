"""One guarded call under way: what is asked next, what came back, and how it ends.

`Guard.run` and `Guard.arun` drive an Exchange; they differ in nothing but waiting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from .attempts import Attempt, Outcome, Report, Stop, carry, report_of
from .conversation import Conversation
from .errors import InputError, RefusalDetected
from .events import Action, Emitter
from .policy import Decision, Fallback, Policy, Regenerate, Reject, Replace, State, Step, check_policy, default_model, place_of
from .responses import Reading, describe, message_of, read_response
from .signals import Signal, native_signal
from .verdict import Verdict

RefusedWhen = Literal["all", "any"]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A guarded call that ended: by its report or by the error it let through, and whether it told a hook."""

    by: Report | Exception
    told: bool


# The guarded calls that ended inside the one under way: what they judged is not judged again, nor told again.
_inner: ContextVar[list[_Ended] | None] = ContextVar("refusal_guard_inner", default=None)


class Judge(Protocol):
    """What a guarded call needs of its guard: the verdicts that need no detector, and who is told."""

    events: Emitter

    def declared(self, signal: Signal) -> Verdict:
        """Return the verdict on what a provider declared."""

    def unknown(self, *, error: str | None = None) -> Verdict:
        """Return the verdict on what was not judged."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a guarded call is run on. `messages` are those before the answer, None when they are not known."""

    policy: Policy
    messages: tuple[Any, ...] | None
    read: Callable[[Any], Any] | None
    refused_when: RefusedWhen
    clock: Callable[[], float]
    guard: Judge

    def __post_init__(self) -> None:
        """Refuse terms of the wrong kind."""
        check_policy(self.policy)
        if self.read is not None and not callable(self.read):
            raise InputError("read must be a function that takes a response")
        if self.refused_when not in get_args(RefusedWhen):
            raise InputError(f"refused_when must be one of {', '.join(get_args(RefusedWhen))}")


class Exchange:
    """A guarded call from its first attempt to its end. Calls nothing but `read` and the policy.

    Raises InputError when the policy may change what the call takes no keyword for: at once, not at the first refusal.
    """

    def __init__(self, call: Callable[..., Any], terms: Terms) -> None:
        self._terms, self._first_call, self._call, self._started = terms, call, call, terms.clock()
        self._before = [message_of(message) for message in terms.messages or ()]
        self._changes: dict[str, Any] = {}
        self._model: str | None = default_model(call)
        self._attempts: tuple[Attempt, ...] = ()
        self._places: tuple[Any, ...] = ()
        self._inherited: Report | None = None
        self._told_inside = False
        self._around = _inner.get()
        self._decision: Decision | None = None
        self._reading, self._seconds = Reading(), 0.0
        self._error: Exception | None = None
        self.response: Any = None
        _check(call, terms)

    @property
    def open(self) -> bool:
        """Whether there is an attempt to make."""
        return self._decision is None or isinstance(self._decision.action, Regenerate)

    def ask(self) -> Any:
        """Make the attempt's call; what a coroutine function returns has to be awaited."""
        return self._call(**self._changes)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make the attempt inside; its answer is to be put into `response`. An error goes through unless the provider refuses by it."""
        self.response, self._error, self._inherited, self._told_inside = None, None, None, False
        ended: list[_Ended] = []
        token, began = _inner.set(ended), self._terms.clock()
        try:
            yield
            self._read(ended)
        except Exception as error:
            self._refused_by(error, ended)
        finally:
            self._seconds = max(0.0, self._terms.clock() - began)
            _inner.reset(token)

    def conversations(self) -> list[Conversation]:
        """Return what a detector has to judge: the choices of which the provider declared nothing decisive."""
        if self._inherited is not None or self._reading.withheld:
            return []
        return [choice.conversation for choice in self._reading.choices if not choice.withheld]

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Take the verdicts on `conversations()`, and decide how to go on."""
        if self._inherited is None:
            latest = [self._attempted(self._merged(verdicts))]
        else:
            *inner, last = self._inherited.attempts
            latest = [attempt.model_copy(update={"step": -1}) for attempt in inner] + [last.model_copy(update={"step": self._step})]
        self._attempts += (*latest,)
        self._places += tuple(attempt.address or place_of(self._call) for attempt in latest)
        elapsed = self._terms.clock() - self._started
        self._decision = self._terms.policy.decide(State(self._attempts, elapsed, self._places, len(latest)))
        if isinstance(self._decision.action, Regenerate):
            self._change(self._decision.action)

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Judge the attempt inside, and have it told, unless a call inside it has."""
        about = {"model": self._model or self._reading.model, "attempt": len(self._attempts) + 1, "signal": self._reading.signal}
        with self._terms.guard.events.judging([self._conversation()], self._terms.guard.unknown, **about) as judged:
            yield
            last = self._attempts[-1]
            counting = last.verdicts.index(last.verdict)
            judged.conversations, judged.verdicts = [self._conversation(counting)], [] if self._told_inside else [last.verdict]
            signal = self._signals[counting] if self._inherited is None else last.signal
            judged.about = {"model": last.model, "attempt": len(self._attempts), "signal": signal, "action": self._action}

    def result(self) -> Any:
        """Return the response with its report, or raise what there is instead."""
        assert self._decision is not None  # only a closed exchange has a result
        action, last = self._decision.action, self._attempts[-1]
        if isinstance(action, Replace):
            return self._carried(action.instead_of(self.response), self._report("replaced"))
        if isinstance(action, Reject):
            report = self._report("raised")
            raise self._carried(RefusalDetected(last.verdict, response=self.response, report=report), report) from self._error
        report = self._report("flagged" if last.verdict.refused else "answered")
        if self._error is not None:
            raise self._carried(self._error, report)
        return self._carried(self.response, report)

    @property
    def _step(self) -> int:
        return -1 if self._decision is None else self._decision.step

    def _read(self, ended: list[_Ended]) -> None:
        """Read the response. One that a guarded call inside has judged keeps its verdicts, even if it can't be read here."""
        if inspect.isawaitable(self.response):
            _close(self.response)
            raise InputError("the call returns an awaitable: use arun instead of run")
        self._inherit(self.response, ended)
        try:
            self._reading = self._reading_of(self.response)
        except InputError:
            if self._inherited is None:
                raise
            self._reading = Reading()

    def _reading_of(self, response: Any) -> Reading:
        """Return what a response holds; the caller's `read` is not bothered with one that holds no answer."""
        if self._terms.read is None:
            return read_response(response, self._before)
        described = describe(response)
        if described.withheld:
            return described
        read = read_response(self._terms.read(response), self._before)
        known = {name: getattr(read, name) or getattr(described, name) for name in ("signal", "model", "usage")}
        return replace(read, **known)

    def _refused_by(self, error: Exception, ended: list[_Ended]) -> None:
        """Take an error as a refusal where it is one, and let it through where not."""
        signal = native_signal(error)
        self._inherit(error, ended)
        if self._inherited is None and not (signal is not None and signal.withheld):
            if self._attempts:
                carry(error, self._report("failed", Stop.ERROR))
            if signal is not None and not self._told_inside:
                about = {"model": self._model, "attempt": len(self._attempts) + 1, "action": "failed"}
                self._terms.guard.events.emit(self._terms.guard.unknown(), self._asked, signal=signal, **about)
            self._tell_around(error)
            raise error
        self._error, self._reading = error, Reading(signal=signal)
        self.response = error.response if isinstance(error, RefusalDetected) else None

    def _inherit(self, thing: Any, ended: list[_Ended]) -> None:
        """Take over what a guarded call inside has judged and told, where a response or an error is from one."""
        try:
            report = report_of(thing)
        except InputError:
            report = None
        inside = next((end for end in ended if end.by is thing or end.by is report), None)
        self._told_inside = inside is not None and inside.told
        self._inherited = inside.by if inside is not None and isinstance(inside.by, Report) else None

    def _merged(self, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """Return the verdict on each choice: the provider's, or else the detector's."""
        waiting = iter(verdicts)
        return tuple(self._terms.guard.declared(signal) if signal and signal.withheld else next(waiting) for signal in self._signals)

    @property
    def _signals(self) -> list[Signal | None]:
        """The provider's word on each choice, which may be that on the whole response."""
        whole = self._reading.signal
        return [choice.signal if choice.withheld else whole for choice in self._reading.choices] or [whole]

    def _conversation(self, choice: int = 0) -> Conversation:
        """Return the conversation that a choice ends; what was asked where there is no choice."""
        choices = self._reading.choices
        return choices[choice].conversation if choice < len(choices) else self._asked

    @property
    def _asked(self) -> Conversation:
        """What was asked, without an answer."""
        return Conversation.from_messages([*self._before, {"role": "assistant", "content": ""}])

    @property
    def _action(self) -> Action:
        """What the decision amounts to, as events name it."""
        action = self._decision.action if self._decision else None
        if isinstance(action, Regenerate):
            return "retried" if action.target is None and action.model is None else "fell_back"
        if isinstance(action, Replace | Reject):
            return "replaced" if isinstance(action, Replace) else "raised"
        return "flagged" if self._attempts[-1].verdict.refused else "answered"

    def _attempted(self, verdicts: tuple[Verdict, ...]) -> Attempt:
        refused = [verdict for verdict in verdicts if verdict.refused]
        answered = [verdict for verdict in verdicts if not verdict.refused]
        counts = refused if refused and (self._terms.refused_when == "any" or not answered) else answered
        return Attempt(
            verdict=counts[0],
            verdicts=verdicts,
            model=self._model or self._reading.model,
            address=place if isinstance(place := place_of(self._call), str) else None,
            signal=self._reading.signal,
            usage=self._reading.usage,
            seconds=self._seconds,
            step=self._step,
            raised=None if self._error is None else type(self._error).__name__,
        )

    def _change(self, action: Regenerate) -> None:
        """Set up the next attempt: a fallback changes who is asked for good, a retry changes what is said once."""
        if action.target is not None or action.model is not None:
            self._call = self._first_call if action.target is None else action.target
            self._model = action.model or default_model(self._call)
            self._changes = {} if action.model is None else {"model": action.model}
        kept = {name: value for name, value in self._changes.items() if name == "model"}
        if action.temperature is not None:
            kept["temperature"] = action.temperature
        if action.nudge is not None:
            kept["messages"] = [*(self._terms.messages or ()), *self._refused_answer(), {"role": "user", "content": action.nudge}]
        self._changes = kept

    def _refused_answer(self) -> list[dict[str, Any]]:
        """Return the refusal as a message to reply to; none where it has no text."""
        answers = [choice.conversation for choice in self._reading.choices]
        texts = [answer.visible_response.strip() for answer in answers] + [m.refusal for answer in answers for m in answer.answer]
        said = next(filter(None, texts), None)
        return [] if said is None else [{"role": "assistant", "content": said}]

    def _carried(self, thing: Any, report: Report) -> Any:
        """Return a response or an error with its report, and tell the guarded call around this one, where there is one."""
        self._tell_around(report)
        return carry(thing, report)

    def _tell_around(self, by: Report | Exception) -> None:
        if self._around is not None:
            self._around.append(_Ended(by, told=self._told_inside or self._terms.guard.events.active))

    def _report(self, outcome: Outcome, stopped: Stop | None = None) -> Report:
        if stopped is None and self._decision is not None:
            stopped = self._decision.stopped
        return Report(attempts=self._attempts, outcome=outcome, stopped=stopped or Stop.ERROR)


def prior_messages(prompt: str | None, messages: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Return the messages before the answer; None when neither a prompt nor messages are given. Raises InputError for bad ones."""
    if prompt is not None and messages is not None:
        raise InputError("pass the prompt or the messages, not both")
    if prompt is not None:
        if not isinstance(prompt, str):
            raise InputError(f"the prompt must be a string, not {type(prompt).__name__}")
        return ({"role": "user", "content": prompt},)
    if messages is None:
        return None
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InputError(f"messages must be a list of messages, not {type(messages).__name__}; pass a text as prompt=")
    Conversation.from_messages([*(message_of(message) for message in messages), {"role": "assistant", "content": ""}])
    return tuple(messages)


def _check(call: Any, terms: Terms) -> None:
    """Raise InputError for what could only fail later: targets that can't be called, and keywords that a call does not take."""
    if not callable(call):
        raise InputError(f"the call must be a callable, not {type(call).__name__}; wrap it: lambda: ...")
    asked = [call]  # who may have been asked when a step is reached: a fallback may be passed over
    for step in terms.policy.steps:
        reached = asked
        if isinstance(step, Fallback):
            reached = [call if isinstance(step.targets[0], str) else step.targets[0]]
            asked = [*asked, *reached]
        for target in reached:
            _check_target(target, step, terms)


def _check_target(target: Any, step: Step, terms: Terms) -> None:
    if not callable(target):
        raise InputError(f"a {type(target).__name__} as a fallback needs the adapter for its SDK; here, pass a callable that asks it")
    if "messages" in step.needs and terms.messages is None:
        raise InputError("a nudge is added to the conversation: pass prompt= or messages= too")
    for name in step.needs:
        if not _takes(target, name):
            raise InputError(f"the policy changes {name}, so the call must take it as a keyword: def call(*, {name}=...)")


def _takes(call: Callable[..., Any], name: str) -> bool:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # a builtin without one
        return True
    try:
        signature.bind_partial(**{name: None})
    except TypeError:
        return False
    return True


def _close(awaitable: Any) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn of it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
