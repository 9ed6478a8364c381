"""The guardrail and the fallback hook in a real LiteLLM proxy, with the configuration that is shipped."""

import copy
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")
yaml = pytest.importorskip("yaml")

from proxies import CONFIG, running_proxy

SHIPPED = Path(__file__).parents[2] / "integrations" / "refusal_guard_litellm" / "config.yaml"
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
REFUSAL, ANSWER = "I'm sorry, but I can't", "Paris is the capital of France"
BLOCKS, FLAGS = ({"guardrails": [name]} for name in ("refusal-guard", "flags"))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a proxy with the shipped configuration, its guardrails on only where a request names them."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "config.yaml").write_text(for_tests(SHIPPED.read_text(), CONFIG.read_text()))
    with (
        running_proxy(folder / "config.yaml", folder) as (url, key),
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
    ):
        yield client


def for_tests(shipped, plain):
    """Give the shipped models answers of the plain proxy's, and add a guardrail that flags and a model without a fallback."""
    config, plain = yaml.safe_load(shipped), yaml.safe_load(plain)
    models = {model["model_name"]: model["litellm_params"] for model in plain["model_list"]}
    primary, backup = config["model_list"]
    primary["litellm_params"], backup["litellm_params"] = models["refuses"], models["answers"]
    config["model_list"].append({"model_name": "alone", "litellm_params": models["refuses"]})
    [blocks] = config["guardrails"]
    blocks["litellm_params"]["default_on"] = False
    flags = copy.deepcopy(blocks)
    flags["guardrail_name"], flags["litellm_params"]["on_refusal"] = "flags", "flag"
    config["guardrails"].append(flags)
    return yaml.safe_dump(config)


def asked(client, model, guardrails=None, **more):
    return client.chat.completions.with_raw_response.create(model=model, messages=ASKED, extra_body=guardrails, **more)


def text_of(raw):
    return raw.parse().choices[0].message.content


def test_a_refusal_falls_back(client):
    raw = asked(client, "primary")
    assert text_of(raw).startswith(ANSWER)
    assert raw.headers["x-litellm-attempted-fallbacks"] == "1"


def test_a_refusal_without_a_fallback_comes_back_marked(client):
    [choice] = asked(client, "alone").parse().choices
    assert choice.message.content.startswith(REFUSAL)
    assert choice.finish_reason == "content_filter"


def test_an_answer_passes(client):
    raw = asked(client, "backup", BLOCKS)
    assert text_of(raw).startswith(ANSWER)
    assert "x-refusal-guard" not in raw.headers


def test_a_refusal_is_blocked_and_the_error_does_not_quote_it(client):
    with pytest.raises(openai.BadRequestError, match="The model refused") as blocked:
        asked(client, "alone", BLOCKS)
    assert REFUSAL not in str(blocked.value)


def test_a_fallback_comes_before_the_guardrail(client):
    assert text_of(asked(client, "primary", BLOCKS)).startswith(ANSWER)


def streamed(client, model):
    """The texts of a stream, and the error that it ended in."""
    said = []
    try:
        for chunk in client.chat.completions.create(model=model, messages=ASKED, stream=True, extra_body=BLOCKS):
            said += [choice.delta.content or "" for choice in chunk.choices]
    except openai.APIError as error:
        return "".join(said), str(error)
    return "".join(said), None


def test_a_streamed_refusal_is_blocked_unseen(client):
    said, error = streamed(client, "alone")
    assert said == ""
    assert "The model refused" in error


def test_a_streamed_answer_passes_whole(client):
    said, error = streamed(client, "backup")
    assert (said[: len(ANSWER)], said[-6:], error) == (ANSWER, "Seine.", None)


def test_responses_are_blocked_too(client):
    with pytest.raises(openai.APIError, match="The model refused"):
        client.responses.create(model="alone", input="What is the capital of France?", extra_body=BLOCKS)
    assert client.responses.create(model="backup", input=ASKED, extra_body=BLOCKS).output_text.startswith(ANSWER)


def test_a_flagged_refusal_comes_through_with_a_header(client):
    raw = asked(client, "alone", FLAGS)
    assert text_of(raw).startswith(REFUSAL)
    assert raw.headers["x-refusal-guard"].startswith("refusal; score=")
    assert "x-refusal-guard" not in asked(client, "backup", FLAGS).headers
