"""Policies decide, and do nothing else: what follows from which attempts, what bounds them, what can't be combined."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal_guard import Fallback, Flag, InputError, Label, Raise, Reason, Replace, Retry, Verdict, When
from refusal_guard.attempts import Attempt, Stop
from refusal_guard.policy import Accept, Policy, Regenerate, Reject, State


def verdict(label=Label.REFUSAL, *, refused=None, **fields):
    refused = label in (Label.REFUSAL, Label.PARTIAL) if refused is None else refused
    return Verdict(
        **{"label": label, "score": 0.9 if refused else 0.1, "threshold": 0.5, "refused": refused, "detector": "fixed", **fields}
    )


def attempt(said=None, step=-1, **fields):
    said = said or verdict()
    return Attempt(verdict=said, verdicts=(said,), step=step, **fields)


DECLARED = verdict(signal="refusal")
ANSWER = verdict(Label.COMPLIANCE)


def decided(policy, *attempts, elapsed=0.0):
    return policy.decide(State(attempts or (attempt(),), elapsed))


def actions(policy, said, limit=50, seconds=0.0):
    """What a policy orders while every attempt gets the same verdict; `seconds` pass with each."""
    attempts, found = [attempt(said)], []
    while len(attempts) <= limit:
        decision = policy.decide(State(tuple(attempts), seconds * len(attempts)))
        found.append((decision.action, decision.stopped))
        if not isinstance(decision.action, Regenerate):
            return found
        attempts.append(attempt(said, step=decision.step, model=decision.action.model))
    raise AssertionError("it never ends")


@pytest.mark.parametrize("policy", [Flag(), Raise(), Replace("x"), Retry(2, nudge="n"), Fallback("b").then(Raise())])
def test_an_answer_is_accepted_by_every_policy(policy):
    decision = decided(policy, attempt(ANSWER))
    assert (decision.action, decision.stopped) == (Accept(), Stop.ANSWERED)


def test_each_policy_does_its_own_thing_about_a_refusal():
    assert decided(Flag()).action == Accept()
    assert decided(Raise()).action == Reject()
    assert decided(Replace("x")).action == Replace("x")
    assert decided(Retry(nudge="n", temperature=1)).action == Regenerate(nudge="n", temperature=1)
    assert decided(Fallback("b")).action == Regenerate(model="b")
    assert decided(Fallback(print, model="b")).action == Regenerate(target=print, model="b")
    assert decided(Flag()).stopped is decided(Raise()).stopped is Stop.POLICY


def test_retry_asks_n_times_and_then_hands_over_what_came():
    assert actions(Retry(2), verdict()) == [(Regenerate(), None), (Regenerate(), None), (Accept(), Stop.EXHAUSTED)]


def test_a_chain_goes_on_where_a_step_is_used_up():
    policy = Retry(1, nudge="n").then(Fallback("b", "c")).then(Raise())
    found = actions(policy, verdict())
    assert found == [
        (Regenerate(nudge="n"), None),
        (Regenerate(model="b"), None),
        (Regenerate(model="c"), None),
        (Reject(), Stop.EXHAUSTED),
    ]


def test_several_targets_are_several_fallbacks():
    assert Fallback("a", "b").then(Raise()) == Fallback("a").then(Fallback("b")).then(Raise())


def test_a_declared_refusal_is_not_sent_again_unchanged():
    assert actions(Retry(3), DECLARED) == [(Accept(), Stop.UNCHANGED)]
    assert actions(Retry(3, temperature=1.0), DECLARED) == [(Accept(), Stop.UNCHANGED)]
    assert actions(Retry(3).then(Raise()), DECLARED) == [(Reject(), Stop.UNCHANGED)]
    assert actions(Retry(3).then(Fallback("b")), DECLARED)[0] == (Regenerate(model="b"), None)
    assert actions(Retry(1, nudge="n"), DECLARED)[0] == (Regenerate(nudge="n"), None)


@pytest.mark.parametrize("signal", ["refusal", "filtered", "blocked"])
def test_a_model_that_declared_is_not_fallen_back_to(signal):
    first = attempt(verdict(signal=signal), model="a")
    assert decided(Fallback("a", "b"), first).action == Regenerate(model="b")
    assert decided(Fallback("a"), first).stopped is Stop.UNCHANGED
    assert decided(Fallback("a"), attempt(model="a")).action == Regenerate(model="a")


def ask():
    """Somebody to ask."""


@pytest.mark.parametrize(
    ("policy", "places", "stopped"),
    [
        (Fallback(ask), (ask,), Stop.UNCHANGED),
        (Fallback(ask, model="a"), (ask,), Stop.UNCHANGED),
        (Fallback(ask, model="b"), (ask,), None),
        (Fallback(ask, model="a"), ("http://here/",), None),
        (Fallback("a"), ("http://here/",), Stop.UNCHANGED),
        (Retry(1), (ask,), Stop.UNCHANGED),
    ],
)
def test_the_same_model_is_one_of_the_same_name_at_the_same_place(policy, places, stopped):
    decision = policy.decide(State((attempt(DECLARED, model="a"),), places=places))
    assert decision.stopped is stopped


@pytest.mark.parametrize(
    ("places", "models", "latest", "stopped"),
    [
        (("here", "here"), ("a", "a"), 1, Stop.UNCHANGED),  # declared, nudged, refused in words: without the nudge it is the first again
        (("here", "here"), (None, "a"), 1, Stop.UNCHANGED),  # a model that is not known may be the same
        (("here", "here"), ("a", "b"), 1, None),
        (("here", "there"), ("a", "a"), 1, None),
        (("here", "there"), ("a", "b"), 2, Stop.UNCHANGED),  # both by one guarded call, which a retry makes again
    ],
)
def test_a_retry_looks_at_all_attempts(places, models, latest, stopped):
    attempts = (attempt(DECLARED, model=models[0]), attempt(model=models[1]))
    assert Retry(3).decide(State(attempts, places=places, latest=latest)).stopped is stopped


def test_a_fallback_to_a_name_asks_whom_the_call_asks():
    attempts, fallback = (attempt(model="a"), attempt(DECLARED, model="b")), Fallback("b")
    assert fallback.decide(State(attempts, places=("here", "there"))).action == Regenerate(model="b")
    assert fallback.decide(State(attempts, places=("here", "here"))).stopped is Stop.UNCHANGED


def test_one_declared_choice_of_several_counts_as_declared():
    both = Attempt(verdict=verdict(), verdicts=(verdict(), DECLARED))
    assert decided(Retry(1), both).stopped is Stop.UNCHANGED


def test_a_condition_routes_and_a_passed_step_is_not_returned_to():
    policy = Retry(1, when=When(reason=Reason.CANNOT)).then(Fallback("b", when=When(reason=Reason.SHOULD_NOT)))
    cannot, should_not = verdict(reason=Reason.CANNOT), verdict(reason=Reason.SHOULD_NOT)
    assert decided(policy, attempt(cannot)).action == Regenerate()
    assert decided(policy, attempt(should_not)).action == Regenerate(model="b")
    assert decided(policy, attempt(should_not), attempt(cannot, step=1)).action == Accept()
    assert decided(policy, attempt(verdict())).stopped is Stop.UNMATCHED


@pytest.mark.parametrize(
    ("when", "holds", "fails"),
    [
        (When(), verdict(), ANSWER),
        (When(label=Label.PARTIAL), verdict(Label.PARTIAL), verdict()),
        (When(reason=Reason.CANNOT), verdict(reason=Reason.CANNOT), verdict()),
        (When(signal="blocked"), verdict(signal="blocked"), DECLARED),
        (When(signal="empty"), verdict(Label.UNKNOWN, signal="empty"), verdict()),
        (When(score=0.9), verdict(score=0.9), verdict(score=0.89)),
        (When(label=Label.REFUSAL, score=0.8), verdict(), verdict(Label.PARTIAL)),
    ],
)
def test_a_condition_holds_for_what_it_names(when, holds, fails):
    assert when.holds(holds)
    assert not when.holds(fails)


def test_an_empty_answer_can_be_retried():
    assert decided(Retry(1, when=When(signal="empty")), attempt(verdict(Label.UNKNOWN, signal="empty"))).action == Regenerate()


def test_bounds_stop_attempts_and_leave_the_rest_of_the_policy():
    policy = Retry(5).then(Raise())
    assert actions(policy.within(attempts=2), verdict()) == [(Regenerate(), None), (Reject(), Stop.ATTEMPTS)]
    assert actions(policy.within(seconds=25), verdict(), seconds=10) == [
        (Regenerate(), None),
        (Regenerate(), None),
        (Reject(), Stop.DEADLINE),
    ]
    assert decided(Retry(1).within(seconds=1), elapsed=1.0).stopped is Stop.DEADLINE
    assert decided(Retry(1).within(seconds=1), elapsed=0.999).action == Regenerate()


def test_the_tighter_bound_holds():
    assert Retry().within(attempts=3).within(attempts=5, seconds=2) == Retry().within(attempts=3, seconds=2)
    assert Retry().within(seconds=9).then(Raise().within(seconds=4)) == Retry().then(Raise()).within(seconds=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(0),
        lambda: Retry(-1),
        lambda: Retry(1.5),
        lambda: Retry(True),
        lambda: Retry("2"),
        lambda: Retry(nudge=""),
        lambda: Retry(nudge=3),
        lambda: Retry(temperature=-0.1),
        lambda: Retry(temperature=2.1),
        lambda: Retry(temperature=float("nan")),
        lambda: Retry(temperature=True),
        lambda: Retry(when=Label.REFUSAL),
        lambda: Fallback(),
        lambda: Fallback(None),
        lambda: Fallback(""),
        lambda: Fallback("a", 3),
        lambda: Fallback(Flag()),
        lambda: Fallback("a", model="b"),
        lambda: Fallback(print, model=""),
        lambda: Fallback("a", when="refusal"),
        lambda: Replace(None),
        lambda: Replace(3),
        lambda: Flag(when=0.5),
        lambda: Raise(when=True),
        lambda: When(label="no such label"),
        lambda: When(reason="because"),
        lambda: When(signal="red"),
        lambda: When(score=1.1),
        lambda: When(score="0.5"),
        lambda: Flag().then(Raise()),
        lambda: Raise().then(Retry()),
        lambda: Retry().then(Replace("x")).then(Flag()),
        lambda: Retry().then(None),
        lambda: Retry().then("b"),
        lambda: Retry().within(attempts=0),
        lambda: Retry().within(attempts=1.0),
        lambda: Retry().within(seconds=0),
        lambda: Retry().within(seconds=float("inf")),
    ],
)
def test_what_makes_no_sense_fails_at_construction(make):
    with pytest.raises(InputError):
        make()


def test_replacing_by_a_coroutine_function_says_what_to_use():
    async def later(_response):
        return "x"

    with pytest.raises(InputError, match="Fallback"):
        Replace(later)


def test_an_ending_with_a_condition_may_be_followed():
    policy = Flag(when=When(label=Label.PARTIAL)).then(Raise())
    assert decided(policy, attempt(verdict(Label.PARTIAL))).action == Accept()
    assert decided(policy).action == Reject()


def test_policies_are_values():
    policy = Retry(2, nudge="n", when=When(label=Label.REFUSAL)).then(Fallback("b")).within(attempts=3)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len({policy, pickle.loads(pickle.dumps(policy)), Retry(2)}) == 2
    with pytest.raises(AttributeError):
        Retry().n = 5


WHENS = st.sampled_from([When(), When(label=Label.PARTIAL), When(reason=Reason.CANNOT), When(signal="empty"), When(score=0.2)])
ASKING = st.one_of(
    st.builds(Retry, st.integers(1, 3), nudge=st.sampled_from([None, "Please."]), when=WHENS),
    st.builds(Fallback, st.sampled_from(["a", "b"]), when=WHENS),
    st.builds(lambda when: Fallback("a", print, when=when), WHENS),
)
CONDITIONAL = st.one_of(ASKING, st.builds(Raise, when=WHENS.filter(lambda when: when != When())))
BOUNDED = st.builds(lambda policy, attempts: policy.within(attempts=attempts), CONDITIONAL, st.none() | st.integers(1, 4))
LAST = BOUNDED | st.sampled_from([Flag(), Raise(), Replace("x")])
VERDICTS = st.sampled_from(
    [verdict(), DECLARED, ANSWER, verdict(Label.PARTIAL), verdict(reason=Reason.CANNOT), verdict(Label.UNKNOWN, signal="empty", score=0.0)]
)


def followed(policy, verdicts):
    """The decisions of a policy as the attempts get these verdicts, the last one again and again."""
    attempts, decisions = [], []
    while not decisions or isinstance(decisions[-1].action, Regenerate):
        step, model = (decisions[-1].step, decisions[-1].action.model) if decisions else (-1, "a")
        attempts.append(attempt(verdicts[min(len(attempts), len(verdicts) - 1)], step=step, model=model))
        decisions.append(policy.decide(State(tuple(attempts))))
    return decisions


@given(BOUNDED, BOUNDED, LAST, st.lists(VERDICTS, min_size=1, max_size=8))
def test_composition_is_associative(one, two, three, verdicts):
    left, right = one.then(two).then(three), one.then(two.then(three))
    assert left == right
    assert followed(left, verdicts) == followed(right, verdicts)


def granted(policy):
    return sum(step.n if isinstance(step, Retry) else isinstance(step, Fallback) for step in policy.steps)


@given(st.lists(BOUNDED, min_size=1, max_size=4), LAST, st.lists(VERDICTS, min_size=1, max_size=8))
def test_attempts_never_exceed_the_bounds(policies, last, verdicts):
    policy: Policy = policies[0]
    for other in [*policies[1:], last]:
        policy = policy.then(other)
    attempts = len(followed(policy, verdicts))
    assert attempts <= 1 + granted(policy)
    assert policy.attempts is None or attempts <= policy.attempts


@given(LAST, st.lists(VERDICTS, min_size=1, max_size=8))
def test_the_same_state_gives_the_same_decision(policy, verdicts):
    assert followed(policy, verdicts) == followed(policy, verdicts)


@given(st.lists(ASKING, min_size=1, max_size=4))
def test_no_policy_sends_a_declared_refusal_unchanged_to_the_same_model(policies):
    policy = policies[0]
    for other in policies[1:]:
        policy = policy.then(other)
    asked = {"a"}
    for decision in followed(policy, [DECLARED]):
        if isinstance(decision.action, Regenerate) and decision.action.target is None and decision.action.nudge is None:
            assert decision.action.model is not None
            assert decision.action.model not in asked
            asked.add(decision.action.model)
