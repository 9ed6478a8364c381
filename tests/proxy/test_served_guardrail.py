"""`refusal-guard serve` as a generic guardrail of a real LiteLLM proxy."""

import sys
import urllib.request
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from proxies import running, running_proxy

CONFIG = Path(__file__).with_name("guardrail.yaml")
TOKEN = "s3cret-t0ken"
ASKED = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    command = [sys.executable, "-m", "refusal_guard.cli", "serve"]
    with running(command, "/readyz", tmp_path_factory.mktemp("served") / "log", REFUSAL_GUARD_SERVE_TOKEN=TOKEN) as url:
        yield url


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    environment = {"REFUSAL_GUARD_URL": served, "REFUSAL_GUARD_SERVE_TOKEN": TOKEN}
    with (
        running_proxy(CONFIG, tmp_path_factory.mktemp("guarded"), **environment) as (url, key),
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
    ):
        yield client


def by(guardrail):
    return {"guardrails": [guardrail]}


def chat(client, model, guardrail="refusal-guard", **options):
    return client.chat.completions.create(model=model, messages=ASKED, extra_body=by(guardrail), **options)


def test_an_answer_passes(client):
    assert chat(client, "answers").choices[0].message.content.startswith("Paris")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, "answers", stream=True)).startswith("Paris")
    assert client.responses.create(model="answers", input="Capital of France?", extra_body=by("refusal-guard")).output_text.startswith(
        "Paris"
    )


def test_a_refusal_is_blocked_in_one_piece_streamed_and_as_a_response(client):
    with pytest.raises(openai.APIError, match="the response is a refusal"):
        chat(client, "refuses")
    with pytest.raises(openai.APIError, match="the response is a refusal"):
        list(chat(client, "refuses", stream=True))
    with pytest.raises(openai.APIError, match="the response is a refusal"):
        client.responses.create(model="refuses", input="Capital of France?", extra_body=by("refusal-guard"))


def test_whether_an_unreachable_service_lets_a_response_pass_is_litellms_setting(client):
    with pytest.raises(openai.APIError):
        chat(client, "answers", "unreachable-closed")
    assert chat(client, "answers", "unreachable-open").choices[0].message.content.startswith("Paris")


def test_the_metrics_know_the_models(client, served):
    chat(client, "answers")
    request = urllib.request.Request(f"{served}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    assert 'refusal_guard_scans_total{action="scanned",model="answers"' in text
