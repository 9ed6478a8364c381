"""The guardrail and the hook as LiteLLM calls them, and in a router; tests/proxy has them in a real proxy."""

import asyncio
import importlib.util
import os
import subprocess
import sys

import pytest
from documents import snippet_of
from either import MESSAGES
from model_server import TEXTS

from refusal_guard import InputError

if importlib.util.find_spec("litellm") is None:  # to import it costs seconds
    pytest.skip("needs litellm: nox -s litellm_proxy", allow_module_level=True)

from litellm import ModelResponse
from litellm.exceptions import GuardrailRaisedException

from refusal_guard_litellm import RefusalFallback, RefusalGuardrail

REFUSED = TEXTS["refuses"]
pytestmark = pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning")  # LiteLLM's own types


@pytest.fixture(scope="module")
def guardrail():
    return RefusalGuardrail(guardrail_name="refusal-guard")


def applied(guardrail, inputs, kind="response", **request):
    return asyncio.run(guardrail.apply_guardrail(inputs, request, kind))


@pytest.mark.parametrize("request_data", [{"messages": MESSAGES}, {"input": "Why?"}, {"input": MESSAGES}, {"prompt": "Why?"}, {}])
def test_a_refusal_is_blocked_whatever_the_endpoint(guardrail, request_data):
    with pytest.raises(GuardrailRaisedException) as blocked:
        applied(guardrail, {"texts": [REFUSED]}, **request_data)
    assert (blocked.value.status_code, blocked.value.blocked_content) == (400, True)
    assert REFUSED not in str(blocked.value)


@pytest.mark.parametrize(
    "inputs", [{}, {"texts": []}, {"texts": [""]}, {"texts": [TEXTS["answers"]]}, {"texts": [REFUSED], "tool_calls": [{"id": "1"}]}]
)
def test_what_is_no_refusal_passes(guardrail, inputs):
    assert applied(guardrail, inputs, messages=MESSAGES) == inputs


def test_requests_pass_unjudged(guardrail):
    assert applied(guardrail, {"texts": [REFUSED]}, "request", messages=MESSAGES)


def test_of_several_choices_all_must_be_refused(guardrail):
    assert applied(guardrail, {"texts": [REFUSED, TEXTS["answers"]]}, messages=MESSAGES)
    with pytest.raises(GuardrailRaisedException):
        applied(guardrail, {"texts": [REFUSED, REFUSED]}, messages=MESSAGES)


@pytest.mark.parametrize(
    "settings", [{"on_refusal": "raise"}, {"stream": "some"}, {"threshold": 2}, {"detector": "nobody"}, {"on_error": "x"}]
)
def test_bad_settings_are_refused_when_the_proxy_starts(settings):
    with pytest.raises(InputError):
        RefusalGuardrail(**settings)


@pytest.mark.parametrize(("text", "reason"), [(REFUSED, "content_filter"), (TEXTS["answers"], "stop")])
def test_the_hook_marks_refusals_alone(text, reason):
    response = ModelResponse(choices=[{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}])
    marked = asyncio.run(RefusalFallback().async_post_call_success_deployment_hook({"messages": MESSAGES}, response, None))
    assert [choice.finish_reason for choice in marked.choices] == [reason]


def test_the_hook_leaves_alone_what_is_no_chat_completion():
    assert asyncio.run(RefusalFallback().async_post_call_success_deployment_hook({}, object(), None)) is None


def test_the_readmes_example_falls_back():
    command, settings = [sys.executable, "-c", snippet_of("refusal_guard_litellm")], os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=settings)
    assert done.stdout.splitlines()[-1] == "It is Paris, the capital of France."
