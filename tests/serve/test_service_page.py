"""What docs/service.md and README.md say of the service holds."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from served import JSON, Served

from refusal_guard.serve.limits import Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def served():
    with Served("embedded") as served:
        yield served


@pytest.mark.parametrize("page", [PAGE, README], ids=["page", "readme"])
def test_the_request_it_shows_has_a_verdict(page, served):
    path, body = re.search(r"curl http://127.0.0.1:8000(\S+) .* -d '(.*)'", page).groups()
    verdict = served.client.post(path, content=body, headers=JSON).json()
    assert verdict["refused"]
    assert {"label", "score", "refused", "threshold", "detector", "reason", "evidence", "signal", "error"} <= set(verdict)


def test_the_routes_it_names_are_the_services(served):
    named = {path for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for path in re.findall(r"(/[\w/.]+)`", row)}
    assert named == {*served.client.get("/openapi.json").json()["paths"], "/openapi.json"}


def test_the_limits_it_names_are_options():
    assert set(re.findall(r"--((?:max|batch|body|time|thread)[\w-]*)", PAGE)) == {limit.name.replace("_", "-") for limit in fields(Limits)}


def test_the_guardrail_it_shows_is_the_one_tried_with_litellm():
    shown = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert shown in (ROOT / "tests" / "proxy" / "guardrail.yaml").read_text()
