"""The routes of the service, asked over real connections."""

import json

import pytest

pytest.importorskip("fastapi")

from served import ANSWER, JSON, REFUSAL, Scripted, Served

from refusal_guard import NoRefusal, Verdict
from refusal_guard.testing import FixedDetector


@pytest.fixture(scope="module")
def embedded():
    with Served("embedded") as served:
        yield served.client


def judged(client, body):
    answer = client.post("/v1/scan", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("response", [REFUSAL, ANSWER, "", "I can't open links. Please paste the text.", "\ud83d"])
def test_a_pair_has_the_guards_verdict(embedded, guard, response):
    answer = embedded.post("/v1/scan", content=json.dumps({"prompt": "How long do eggs take?", "response": response}), headers=JSON)
    assert Verdict.model_validate(answer.json()) == guard.scan("How long do eggs take?", response)


def test_a_response_needs_no_prompt_and_may_be_null(embedded):
    assert judged(embedded, {"response": REFUSAL})["refused"]
    assert judged(embedded, {"response": None})["signal"] == "empty"


def test_a_list_is_answered_by_a_list_in_order(embedded):
    chat = {"messages": [{"role": "user", "content": "Eggs?"}, {"role": "assistant", "content": [{"type": "text", "text": REFUSAL}]}]}
    found = judged(embedded, [{"response": ANSWER}, chat, {"response": ""}])
    assert [verdict["label"] for verdict in found] == ["compliance", "refusal", "unknown"]
    assert judged(embedded, []) == []


@pytest.mark.parametrize(
    ("message", "signal"),
    [
        ({"refusal": "I can't help.", "content": None}, "refusal"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "refusal"),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, "tool_call"),
    ],
)
def test_what_a_provider_declares_in_a_message_counts(embedded, message, signal):
    assert judged(embedded, {"messages": [{"role": "assistant", **message}]})["signal"] == signal


@pytest.mark.parametrize("output", [REFUSAL, ANSWER, "", "I'm not sure that I can, but let us see."])
def test_llm_guards_routes_answer_as_its_scanner_does(embedded, guard, output):
    body = {"prompt": "How long do eggs take?", "output": output}
    sanitized, is_valid, risk = NoRefusal(threshold=guard.threshold, detector=guard.detector).scan(**body)
    expected = {"is_valid": is_valid, "scanners": {"NoRefusal": risk}}
    assert embedded.post("/scan/output", json=body).json() == expected
    assert embedded.post("/analyze/output", json=body).json() == expected | {"sanitized_output": sanitized}


def test_a_suppressed_scanner_says_nothing(embedded):
    body = {"prompt": "", "output": REFUSAL, "scanners_suppress": ["NoRefusal"]}
    assert embedded.post("/scan/output", json=body).json() == {"is_valid": True, "scanners": {}}


def test_half_of_an_emoji_does_not_break_an_echoed_output(embedded):
    answer = embedded.post("/analyze/output", content=b'{"prompt": "", "output": "cut \\ud83d"}', headers=JSON)
    assert (answer.status_code, answer.json()["sanitized_output"]) == (200, "cut ?")


def guardrail(client, input_type, **fields):
    answer = client.post("/beta/litellm_basic_guardrail_api", json={"input_type": input_type, "request_data": {}, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"texts": [REFUSAL]}, "BLOCKED"),
        ({"texts": [ANSWER]}, "NONE"),
        ({"texts": [REFUSAL, REFUSAL]}, "BLOCKED"),
        ({"texts": [REFUSAL, ANSWER]}, "NONE"),
        ({"texts": [REFUSAL], "tool_calls": [{"id": "1"}]}, "NONE"),
        ({"texts": []}, "NONE"),
        ({"texts": None, "structured_messages": None, "images": None, "model": None}, "NONE"),
    ],
)
def test_litellm_blocks_a_response_of_which_every_choice_is_refused(embedded, fields, action):
    answer = guardrail(embedded, "response", **fields)
    assert answer["action"] == action
    assert ("blocked_reason" in answer) == (action == "BLOCKED")
    assert REFUSAL not in json.dumps(answer)


def test_litellm_requests_pass_and_their_prompt_is_judged_with_the_response():
    detector = FixedDetector(0.0)
    with Served(detector) as served:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Eggs?"}]}]
        asked = guardrail(served.client, "request", litellm_call_id="a", texts=["Eggs?"], structured_messages=messages)
        for call in ("a", "a", "b", None):
            guardrail(served.client, "response", litellm_call_id=call, texts=[ANSWER])
    assert asked == {"action": "NONE"}
    assert [conversation.prompt for conversation in detector.seen] == ["Eggs?", "Eggs?", "", ""]


@pytest.mark.parametrize("messages", [[], [{}], [{"role": 1}], [{"role": "user", "content": [{"text": "no type"}]}]])
def test_litellm_requests_whose_messages_can_not_be_read_pass_too(embedded, messages):
    assert guardrail(embedded, "request", litellm_call_id="odd", structured_messages=messages) == {"action": "NONE"}
    assert guardrail(embedded, "response", litellm_call_id="odd", texts=[REFUSAL])["action"] == "BLOCKED"


def test_only_so_many_prompts_are_remembered():
    from refusal_guard.serve.prompts import RecentPrompts

    prompts = RecentPrompts()
    for i in range(5_000):
        prompts.remember(str(i), "p" * 100_000)
    assert prompts.of("0") is None
    assert len(prompts.of("4999")) < 50_000
    assert sum(prompts.of(str(i)) is not None for i in range(5_000)) < 3_000


def test_metrics_count_requests_by_route_and_status():
    with Served(Scripted()) as served:
        served.scan(ANSWER)
        served.scan("raise")
        served.client.get("/no/such/route/" + "x" * 100)
        text = served.client.get("/metrics").text
    assert 'refusal_guard_http_requests_total{route="/v1/scan",status="200"} 1.0' in text
    assert 'refusal_guard_http_requests_total{route="/v1/scan",status="503"} 1.0' in text
    assert 'refusal_guard_http_requests_total{route="other",status="404"} 1.0' in text
    assert "refusal_guard_waiting_responses 0.0" in text


def test_the_openapi_document_names_every_route_and_no_page_from_elsewhere(embedded):
    paths = set(embedded.get("/openapi.json").json()["paths"])
    assert paths == {
        "/v1/scan",
        "/scan/output",
        "/analyze/output",
        "/beta/litellm_basic_guardrail_api",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert embedded.get("/docs").status_code == embedded.get("/redoc").status_code == 404


def test_health_and_readiness_answer(embedded):
    assert embedded.get("/healthz").json() == embedded.get("/readyz").json() == {"status": "ok"}
