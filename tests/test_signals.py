"""Every form in which a provider says that it refused, filtered, blocked, flagged, or did not look; and everything that is none."""

import json
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from refusal_guard.signals import Signal, native_signal

REFUSED, FILTERED, BLOCKED = ("refusal", "output"), ("filtered", "output"), ("blocked", "input")
FLAGGED_INPUT, FLAGGED_OUTPUT, NOT_RUN = ("flagged", "input"), ("flagged", "output"), ("not_run", "guard")


def chat(finish="stop", index=0, **message):
    return {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": None, **message}}


def delta(finish=None, **fields):
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def azure_mark(**mark):
    return {"hate": {"filtered": False, "severity": "safe"}, "violence": {"severity": "high", **mark}}


FILTER_DOWN = {"error": {"code": "content_filter_error", "message": "The contents are not filtered"}}
AZURE_400 = {
    "code": "content_filter",
    "message": "The response was filtered due to the prompt.",
    "param": "prompt",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": azure_mark(filtered=True)},
}
MODERATION_HIT = {"flagged": True, "categories": {"violence": True, "hate": False}, "category_scores": {"violence": 0.9}}
MODERATION_ERROR = {"type": "error", "code": "server_error", "message": "moderation timed out"}
OPENROUTER_403 = {
    "code": 403,
    "message": "Your input was flagged",
    "metadata": {"reasons": ["sexual"], "flagged_input": "SECRET PROMPT", "provider_name": "OpenAI", "model_slug": "a/b"},
}
BEDROCK_HIT = {"topicPolicy": {"topics": [{"name": "Advice", "type": "DENY", "action": "BLOCKED"}]}}
BEDROCK_MASK = {"sensitiveInformationPolicy": {"piiEntities": [{"type": "EMAIL", "match": "SECRET", "action": "ANONYMIZED"}]}}
BEDROCK_CLEAN = {"invocationMetrics": {"guardrailProcessingLatency": 3}}


def guardrail(prompt=None, answer=None, reason=None):
    trace = {"inputAssessment": {"id": prompt}} if prompt else {}
    trace |= {"outputAssessments": {"id": [answer]}} if answer else {}
    return {"guardrail": trace | ({"actionReason": reason} if reason else {})}


GEMINI_FILTERS = ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "MODEL_ARMOR", "ESCALATION"]
GEMINI_FILTERS += ["IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"]

# name: (payload, (kind, stage), provider, category, explanation)
DECLARED = {
    "openai chat refusal": ({"choices": [chat(refusal="I can't.")]}, REFUSED, "openai", None, "I can't."),
    "openai chat refusal of a choice alone": (chat(refusal="I can't."), REFUSED, "openai", None, "I can't."),
    "openai message alone": ({"role": "assistant", "content": None, "refusal": "No."}, REFUSED, "openai", None, "No."),
    "openai chat refusal part": (
        {"choices": [chat(content=[{"type": "refusal", "refusal": "No."}])]},
        REFUSED,
        "openai",
        None,
        "No.",
    ),
    "openai chat content_filter": ({"choices": [chat("content_filter", content="Half an")]}, FILTERED, "openai", None, None),
    "openai chat, all of n refused": ({"choices": [chat(refusal="A"), chat("content_filter", 1)]}, REFUSED, "openai", None, "A"),
    "openai chunk refusal": (delta(refusal="I"), REFUSED, "openai", None, "I"),
    "openai chunk content_filter": (delta("content_filter"), FILTERED, "openai", None, None),
    "openai chat 400 body": (
        {"error": {"code": "content_policy_violation", "message": "Not allowed", "type": "invalid_request_error"}},
        BLOCKED,
        "openai",
        "content_policy_violation",
        "Not allowed",
    ),
    "openai moderation flagged the prompt": (
        {"choices": [chat(content="Hi")], "moderation": {"input": {"type": "moderation_results", "results": [MODERATION_HIT]}}},
        FLAGGED_INPUT,
        "openai",
        "violence",
        None,
    ),
    "openai moderation flagged the answer": (
        {"choices": [chat(content="Hi")], "moderation": {"output": {"type": "moderation_results", "results": [MODERATION_HIT]}}},
        FLAGGED_OUTPUT,
        "openai",
        "violence",
        None,
    ),
    "openai moderation failed": (
        {"choices": [chat(content="Hi")], "moderation": {"input": MODERATION_ERROR}},
        NOT_RUN,
        "openai",
        "server_error",
        "moderation timed out",
    ),
    "openai moderation chunk": ({"choices": [], "moderation": {"input": MODERATION_ERROR}}, NOT_RUN, "openai", "server_error", ...),
    "openai responses refusal part": (
        {"object": "response", "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
        REFUSED,
        "openai",
        None,
        "No.",
    ),
    "openai responses incomplete": (
        {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []},
        FILTERED,
        "openai",
        None,
        None,
    ),
    **{
        f"openai responses failed, {code}": (
            {"object": "response", "status": "failed", "error": {"code": code, "message": "Not taken"}, "output": []},
            BLOCKED,
            "openai",
            code,
            "Not taken",
        )
        for code in ("invalid_prompt", "bio_policy", "misalignment_policy_violation", "image_content_policy_violation")
    },
    "openai responses moderation flagged": (
        {"output": [], "moderation": {"input": {"type": "moderation_result", **MODERATION_HIT}}},
        FLAGGED_INPUT,
        "openai",
        "violence",
        None,
    ),
    "openai event refusal delta": ({"type": "response.refusal.delta", "delta": "I ca", "item_id": "1"}, REFUSED, "openai", None, "I ca"),
    "openai event refusal done": ({"type": "response.refusal.done", "refusal": "I can't."}, REFUSED, "openai", None, "I can't."),
    "openai event incomplete": (
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}},
        FILTERED,
        "openai",
        None,
        None,
    ),
    "openai event failed": (
        {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "No"}}},
        BLOCKED,
        "openai",
        "invalid_prompt",
        "No",
    ),
    "openai event completed, moderation failed": (
        {"type": "response.completed", "response": {"output": [], "moderation": {"output": MODERATION_ERROR}}},
        NOT_RUN,
        "openai",
        "server_error",
        ...,
    ),
    "openai event error": ({"type": "error", "code": "invalid_prompt", "message": "No"}, BLOCKED, "openai", "invalid_prompt", "No"),
    "azure 400 body": ({"error": AZURE_400}, BLOCKED, "azure", "violence", "The response was filtered due to the prompt."),
    "azure 400 body, inner": (AZURE_400, BLOCKED, "azure", "violence", ...),
    "azure choice filtered": (
        {"choices": [{**chat("content_filter"), "content_filter_results": azure_mark(filtered=True)}]},
        FILTERED,
        "azure",
        "violence",
        None,
    ),
    "azure chunk filtered": (
        {"choices": [{"delta": {}, "finish_reason": "content_filter", "content_filter_results": azure_mark(filtered=True)}]},
        FILTERED,
        "azure",
        "violence",
        None,
    ),
    "azure prompt filter result": (
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": azure_mark(filtered=True)}]},
        BLOCKED,
        "azure",
        "violence",
        None,
    ),
    "azure prompt only detected": (
        {
            "choices": [chat(content="Hi")],
            "prompt_filter_results": [{"content_filter_results": {"jailbreak": {"filtered": False, "detected": True}}}],
        },
        FLAGGED_INPUT,
        "azure",
        "jailbreak",
        None,
    ),
    "azure filter did not run": (
        {"choices": [{**chat(content="Hi"), "content_filter_results": FILTER_DOWN}]},
        NOT_RUN,
        "azure",
        "content_filter_error",
        "The contents are not filtered",
    ),
    "anthropic refusal": (
        {
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": "refusal",
            "stop_details": {"type": "refusal", "category": "cyber", "explanation": "Against the policy."},
        },
        REFUSED,
        "anthropic",
        "cyber",
        "Against the policy.",
    ),
    "anthropic refusal without details": (
        {"type": "message", "content": [{"type": "text", "text": "Half"}], "stop_reason": "refusal", "stop_details": None},
        REFUSED,
        "anthropic",
        None,
        None,
    ),
    "anthropic stream": (
        {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": {"category": "bio", "explanation": None}}},
        REFUSED,
        "anthropic",
        "bio",
        None,
    ),
    **{
        f"gemini {reason}": ({"candidates": [{"content": None, "finish_reason": reason}]}, FILTERED, "gemini", reason, None)
        for reason in GEMINI_FILTERS
    },
    "gemini rest names": (
        {
            "candidates": [
                {
                    "finishReason": "SAFETY",
                    "finishMessage": "Unsafe.",
                    "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "blocked": True}, {"category": "OTHER", "blocked": False}],
                }
            ]
        },
        FILTERED,
        "gemini",
        "HARM_CATEGORY_HARASSMENT",
        "Unsafe.",
    ),
    **{
        f"gemini prompt {reason}": ({"candidates": None, "prompt_feedback": {"block_reason": reason}}, BLOCKED, "gemini", reason, None)
        for reason in ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK")
    },
    "gemini prompt, rest names": (
        {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "No."}},
        BLOCKED,
        "gemini",
        "SAFETY",
        "No.",
    ),
    "bedrock content_filtered": ({"stopReason": "content_filtered", "output": {}}, FILTERED, "bedrock", None, None),
    "bedrock guardrail without a trace": ({"stopReason": "guardrail_intervened"}, FILTERED, "bedrock", None, None),
    "bedrock guardrail on the prompt": (
        {"stopReason": "guardrail_intervened", "trace": guardrail(BEDROCK_HIT, reason="Guardrail blocked.")},
        BLOCKED,
        "bedrock",
        "Advice",
        "Guardrail blocked.",
    ),
    "bedrock guardrail on the answer": (
        {"stopReason": "guardrail_intervened", "trace": guardrail(BEDROCK_CLEAN, BEDROCK_HIT)},
        FILTERED,
        "bedrock",
        "Advice",
        None,
    ),
    "bedrock guardrail that only masked": (
        {"stopReason": "guardrail_intervened", "trace": guardrail(BEDROCK_CLEAN, BEDROCK_MASK)},
        FLAGGED_OUTPUT,
        "bedrock",
        "EMAIL",
        None,
    ),
    "bedrock stream stop": ({"messageStop": {"stopReason": "guardrail_intervened"}}, FILTERED, "bedrock", None, None),
    "bedrock stream trace": ({"metadata": {"trace": guardrail(BEDROCK_HIT)}}, BLOCKED, "bedrock", "Advice", None),
    "bedrock ApplyGuardrail": (
        {"action": "GUARDRAIL_INTERVENED", "actionReason": "Blocked.", "assessments": [BEDROCK_HIT], "outputs": [{"text": "SECRET"}]},
        BLOCKED,
        "bedrock",
        "Advice",
        "Blocked.",
    ),
    "cohere v1": ({"text": "", "finish_reason": "ERROR_TOXIC"}, FILTERED, "cohere", "ERROR_TOXIC", None),
    "cohere generation": ({"generations": [{"finish_reason": "ERROR_TOXIC"}]}, FILTERED, "cohere", "ERROR_TOXIC", None),
    "cohere stream end": (
        {"event_type": "stream-end", "finish_reason": "ERROR_TOXIC", "response": {"finish_reason": "ERROR_TOXIC"}},
        FILTERED,
        "cohere",
        "ERROR_TOXIC",
        None,
    ),
    "mistral moderation endpoint": (
        {"id": "1", "model": "mistral-moderation", "results": [{"categories": {"pii": True, "law": False}, "category_scores": {}}]},
        FLAGGED_INPUT,
        "mistral",
        "pii",
        None,
    ),
    "openai moderation endpoint": ({"results": [MODERATION_HIT]}, FLAGGED_INPUT, "openai", "violence", None),
    "openrouter 200 with an error": ({"id": "1", "choices": None, "error": OPENROUTER_403}, BLOCKED, "openrouter", "sexual", ...),
    "openrouter error in a stream": (
        {"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": OPENROUTER_403}]},
        BLOCKED,
        "openrouter",
        "sexual",
        "Your input was flagged",
    ),
    "openrouter finish_reason": ({"provider": "x", "choices": [chat("content_filter")]}, FILTERED, "openai", None, None),
    "litellm proxy error": (
        {"error": {"message": "litellm.BadRequestError: litellm.ContentPolicyViolationError: no", "code": "400"}},
        BLOCKED,
        "litellm",
        None,
        None,
    ),
}


def as_namespace(value):
    if type(value) is dict:
        return SimpleNamespace(**{name: as_namespace(inner) for name, inner in value.items()})
    return [as_namespace(inner) for inner in value] if type(value) is list else value


class Open(BaseModel):
    """What the OpenAI SDK makes of fields it does not know: extra ones, kept as they came."""

    model_config = ConfigDict(extra="allow")


def as_model(value):
    if isinstance(value, dict):
        return Open.model_validate({name: as_model(inner) for name, inner in value.items()})
    return [as_model(inner) for inner in value] if isinstance(value, list) else value


# Bedrock's SDK hands out dicts alone, and its traces map ids to assessments.
FORMS = [(name, form) for name in DECLARED for form in (dict, as_namespace, as_model) if form is dict or "bedrock" not in name]


@pytest.mark.parametrize(("name", "form"), FORMS, ids=lambda value: getattr(value, "__name__", value))
def test_declared(name, form):
    payload, (kind, stage), provider, category, explanation = DECLARED[name]
    signal = native_signal(payload if form is dict else form(payload))
    assert signal is not None
    assert (signal.kind, signal.stage, signal.provider, signal.category) == (kind, stage, provider, category)
    assert explanation is ... or signal.explanation == explanation
    assert "SECRET" not in signal.model_dump_json()


def error_class(name, *bases):
    return type(name, bases or (Exception,), {})


def raised(name, *bases, fields=None, **more):
    error = error_class(name, *bases)("Error code: 4xx - SECRET PROMPT")
    vars(error).update(more if fields is None else fields)
    return error


BAD_REQUEST = error_class("BadRequestError")
EXCEPTIONS = {
    "openai 400": (
        raised(
            "BadRequestError", status_code=400, code="content_policy_violation", body={"code": "content_policy_violation", "message": "No"}
        ),
        BLOCKED,
        "openai",
        "content_policy_violation",
    ),
    "azure 400": (raised("BadRequestError", status_code=400, code="content_filter", body=AZURE_400), BLOCKED, "azure", "violence"),
    "azure 400 without a body": (raised("BadRequestError", status_code=400, code="content_filter", body=None), BLOCKED, "azure", None),
    "openrouter 403": (raised("PermissionDeniedError", status_code=403, code=403, body=OPENROUTER_403), BLOCKED, "openrouter", "sexual"),
    "litellm": (raised("ContentPolicyViolationError", BAD_REQUEST, status_code=400, body=None), BLOCKED, "litellm", None),
    "openai parse": (raised("ContentFilterFinishReasonError"), FILTERED, "openai", None),
    "langchain": (raised("OpenAIRefusalError", error_class("ModelRefusalError")), REFUSED, "langchain", None),
    "pydantic-ai": (raised("ContentFilterError", body="{}"), FILTERED, "pydantic_ai", None),
    "requests or httpx": (
        raised("HTTPError", response=SimpleNamespace(status_code=400, content=json.dumps({"error": AZURE_400}).encode())),
        BLOCKED,
        "azure",
        "violence",
    ),
    "mistral guardrail": (
        raised("SDKError", status_code=403, body='{"type": "guardrail", "message": "Request blocked by a guardrail"}'),
        BLOCKED,
        "mistral",
        None,
    ),
    "mistral guardrail that failed": (
        raised("SDKError", status_code=403, body='{"message": "Guardrail unavailable, request blocked"}'),
        NOT_RUN,
        "mistral",
        None,
    ),
}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_declared_by_an_exception(name):
    error, (kind, stage), provider, category = EXCEPTIONS[name]
    signal = native_signal(error)
    assert (signal.kind, signal.stage, signal.provider, signal.category) == (kind, stage, provider, category)
    assert "SECRET" not in signal.model_dump_json()


UNDECLARED = {
    "answer": {"choices": [chat(content="Sure!", refusal=None)], "moderation": {"input": {"type": "moderation_results", "results": []}}},
    "refusal in plain words": {"choices": [chat(content="I'm sorry, I can't help with that.")]},
    "one refused choice of two": {"choices": [chat(refusal="No."), chat(content="Sure!", index=1)]},
    "tool call": {"choices": [chat("tool_calls", tool_calls=[{"id": "1"}])]},
    "cut by length": {"choices": [chat("length", content="Sure")], "incomplete_details": {"reason": "max_output_tokens"}},
    "azure, clean": {
        "choices": [{**chat(content="Hi"), "content_filter_results": azure_mark(filtered=False)}],
        "prompt_filter_results": [{"content_filter_results": azure_mark(filtered=False)}],
    },
    "openrouter, upstream down": {"choices": None, "error": {"code": 502, "message": "Provider returned error", "metadata": {}}},
    "rate limit": {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    "anthropic answer": {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
    "gemini answer": {"candidates": [{"finish_reason": "STOP"}], "prompt_feedback": {"block_reason": "BLOCK_REASON_UNSPECIFIED"}},
    "gemini, one of two filtered": {"candidates": [{"finish_reason": "STOP"}, {"finish_reason": "SAFETY"}]},
    "bedrock answer": {"stopReason": "end_turn", "trace": guardrail(BEDROCK_CLEAN, BEDROCK_CLEAN)},
    "bedrock passes": {"action": "NONE", "assessments": [BEDROCK_CLEAN]},
    "cohere answer": {"finish_reason": "COMPLETE", "message": {"content": [{"type": "text", "text": "Hi"}]}},
    "mistral answer": {"choices": [chat("stop", content="Hi")]},
    "mistral clean": {"results": [{"categories": {"pii": False}}]},
    "ollama answer": {"message": {"role": "assistant", "content": "Hi"}, "done_reason": "stop"},
    "403 for the key": {"error": {"code": 403, "message": "invalid key"}},
    "choices None": {"choices": None},
    "choices empty": {"choices": []},
    "unknown parts": {"choices": [chat(content=[{"type": "hologram"}, 3, None])]},
    "wrong types": {"choices": [{"finish_reason": ["content_filter"], "message": {"refusal": 3}}], "error": "boom", "output": {"a": 1}},
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_undeclared(name):
    for form in (dict, as_namespace, as_model):
        assert native_signal(form(UNDECLARED[name])) is None


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ValueError("content_filter"), raised("RateLimitError", status_code=429, code="rate_limit_exceeded"), OSError(1, "x")],
)
def test_other_errors_declare_nothing(error):
    assert native_signal(error) is None


def test_what_withheld_the_answer_comes_before_moderation_trouble():
    body = {"choices": [chat(refusal="No.")], "moderation": {"input": MODERATION_ERROR}}
    assert native_signal(body).kind == "refusal"
    both = {"input": MODERATION_ERROR, "output": {"type": "moderation_results", "results": [MODERATION_HIT]}}
    assert native_signal({"choices": [chat(content="Hi")], "moderation": both}).kind == "not_run"


def test_only_what_keeps_the_answer_from_the_caller_is_withheld():
    kinds = {native_signal(row[0]).kind: native_signal(row[0]).withheld for row in DECLARED.values()}
    assert kinds == {"refusal": True, "filtered": True, "blocked": True, "flagged": False, "not_run": False}


def test_enums_count_as_their_names():
    class Lower(StrEnum):
        SAFETY = "SAFETY"

    class Numbered(Enum):
        SAFETY = 3

    assert native_signal({"candidates": [{"finish_reason": Lower.SAFETY}]}).category == "SAFETY"
    assert native_signal({"candidates": [{"finish_reason": Numbered.SAFETY}]}).category == "SAFETY"


def test_a_signal_is_frozen_and_keeps_the_explanation_out_of_its_repr():
    signal = native_signal({"choices": [chat(refusal="A private sentence.")]})
    with pytest.raises(ValueError, match="frozen"):
        signal.kind = "blocked"
    assert "private" not in repr(signal)
    assert Signal.model_validate_json(signal.model_dump_json()) == signal


class Hostile:
    """A proxy out of its context: it raises whenever anything is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    def __bool__(self):
        raise RuntimeError

    __hash__ = None


class HostileDict(dict):
    def get(self, *_):
        raise RuntimeError

    items = __iter__ = get


@dataclass
class Ring:
    choices: list

    def __getattr__(self, name):
        return self if not name.startswith("__") else None


@pytest.mark.parametrize("make", [Hostile, HostileDict, lambda: Ring([]), lambda: SimpleNamespace(choices=[Hostile()], error=Hostile())])
def test_hostile_objects_declare_nothing(make):
    thing = make()
    assert native_signal(thing) is None
    assert native_signal({"choices": [thing], "message": thing, "candidates": [thing], "trace": {"guardrail": thing}}) is None


def names(value):
    """The names of all fields in a payload."""
    inner = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return {*(value if type(value) is dict else ()), *(name for item in inner for name in names(item))}


def test_what_cannot_be_listed_is_nothing():
    class HostileList(list):
        __iter__ = HostileDict.get

    class Unmapped(dict):
        items = HostileDict.get

    assert native_signal({"choices": HostileList([1]), "candidates": HostileList([1])}) is None
    assert native_signal({"action": "GUARDRAIL_INTERVENED", "assessments": [Unmapped(a=1)]}).category is None


def test_an_assessment_is_read_to_a_bounded_depth():
    nested = {"action": "BLOCKED", "name": "deep"}
    for _ in range(2_000):
        nested = {"policy": [nested]}
    assert native_signal({"action": "GUARDRAIL_INTERVENED", "assessments": [nested]}).category is None


@pytest.mark.parametrize("body", ["no json", b"\xff\xfe", "[" * 100_000, ""])
def test_an_error_body_that_is_no_json_declares_nothing(body):
    assert native_signal(raised("SDKError", status_code=403, body=body)) is None


NAMES = st.sampled_from(sorted(names([payload for payload, *_ in DECLARED.values()]) | {"body", "response", "status_code", "innererror"}))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.sampled_from(["refusal", "content_filter", "error", "response.failed", "SAFETY", "guardrail_intervened", "BLOCKED"]),
    st.builds(Hostile),
)
FOREIGN = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=5)), max_leaves=25
)


@given(FOREIGN)
def test_nothing_makes_it_raise(thing):
    for form in (thing, as_namespace(thing)):
        signal = native_signal(form)
        assert signal is None or isinstance(signal, Signal)


@given(st.dictionaries(NAMES, FOREIGN, max_size=6))
def test_no_exception_makes_it_raise(fields):
    signal = native_signal(raised("Foreign", fields=fields))
    assert signal is None or isinstance(signal, Signal)
