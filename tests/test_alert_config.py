"""Alerts from TOML and YAML files, and errors that name the key at fault."""

import re
from pathlib import Path

import pytest
from alert_cases import Clock, event
from processes import run_python

from refusal_guard import InputError
from refusal_guard.alerts import DEFAULT_RULES, Rule, read_alerts

TOML = """
max_per_hour = 5

[[rules]]
name = "refusals"
kind = "refusals"
by = ["model"]
rate = 0.3
min_samples = 2
only = { model = ["small", "large"] }

[[rules]]
name = "down"
kind = "not_run"
consecutive = 3

[[notifiers]]
type = "log"

[[notifiers]]
type = "webhook"
url_env = "ALERTS_TEST_URL"
format = "slack"
headers = { Authorization = "Bearer key" }
"""
YAML = """
max_per_hour: 5
rules:
  - {name: refusals, kind: refusals, by: [model], rate: 0.3, min_samples: 2, only: {model: [small, large]}}
  - name: down
    kind: not_run
    consecutive: 3
notifiers:
  - type: log
  - {type: webhook, url_env: ALERTS_TEST_URL, format: slack, headers: {Authorization: Bearer key}}
"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="alerts.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(("text", "name"), [(TOML, "alerts.toml"), (YAML, "alerts.yaml"), (YAML, "alerts.yml")])
def test_a_file_says_what_code_says(text, name, written, monkeypatch, caplog):
    if name != "alerts.toml":
        pytest.importorskip("yaml", reason="needs the extra yaml")
    monkeypatch.setenv("ALERTS_TEST_URL", "http://127.0.0.1:9/")
    alerts = read_alerts(written(text, name), clock=Clock())
    assert alerts.rules == (
        Rule(name="refusals", kind="refusals", by=("model",), rate=0.3, min_samples=2, only={"model": {"small", "large"}}),
        Rule(name="down", kind="not_run", consecutive=3),
    )
    assert alerts.limits.max_per_hour == 5
    assert [getattr(notifier, "__name__", type(notifier).__name__) for notifier in alerts.notifiers] == ["log_alert", "Webhook"]
    for _ in range(2):
        alerts(event(refused=True))
    alerts.close(0.5)
    assert "Refusals: model small" in caplog.text


def test_the_file_in_the_documentation_is_one(written, monkeypatch):
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "http://127.0.0.1:9/")
    page = (Path(__file__).parents[1] / "docs" / "alerts.md").read_text()
    [shown] = re.findall(r"```toml\n(\[*.*?)```", page, re.DOTALL)
    alerts = read_alerts(written(shown))
    assert alerts.rules == (DEFAULT_RULES[0],)
    assert alerts.limits.max_per_hour == 20


def test_an_empty_file_is_the_default(written):
    alerts = read_alerts(written(""))
    assert [rule.name for rule in alerts.rules] == ["refusals", "blocked_prompts", "flagged_prompts", "not_run"]
    assert [notifier.__name__ for notifier in alerts.notifiers] == ["log_alert"]


RULE = '[[rules]]\nname = "r"\nkind = "refusals"\nrate = 0.2\n'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("max_per_day = 5", "max_per_day"),
        ("max_per_hour = 0", "max_per_hour"),
        ("rules = []", "rules"),
        (RULE + "thresold = 1", "rules.0.thresold"),
        (RULE + "window = -300", "rules.0.window"),
        (RULE + RULE.replace('"r"', '"s"') + "min_samples = 'many'", "rules.1.min_samples"),
        (RULE + RULE, "same name: r"),
        (RULE.replace("rate = 0.2", ""), "rules.0 .*never fire"),
        (RULE + "only = { model = [] }", "rules.0.only.model"),
        ('[[notifiers]]\ntype = "pager"', "notifiers.0.*pager"),
        ('[[notifiers]]\nurl = "http://localhost"', "notifiers.0"),
        ('[[notifiers]]\ntype = "log"\n[[notifiers]]\ntype = "webhook"', "notifiers.1.webhook .*url or url_env"),
        ('[[notifiers]]\ntype = "webhook"\nurl = "ftp://SECRET/"', "notifiers.0: a webhook takes"),
        ('[[notifiers]]\ntype = "webhook"\nurl_env = "ALERTS_TEST_UNSET"', "notifiers.0: .*ALERTS_TEST_UNSET is not set"),
        ('[[notifiers]]\ntype = "webhook"\nurl = "http://SECRET/"\ntimeout = 0', "notifiers.0.webhook.timeout"),
        ("rules = [", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_an_error_names_the_file_and_the_key_and_no_secret(text, key, written):
    with pytest.raises(InputError, match=key) as caught:
        read_alerts(written(text))
    assert "alerts.toml" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "rules: {", "rules: !!python/object/apply:os.getcwd []"])
def test_yaml_that_is_none_or_no_table_is_an_error(text, written):
    pytest.importorskip("yaml", reason="needs the extra yaml")
    with pytest.raises(InputError, match=r"alerts\.yaml"):
        read_alerts(written(text, "alerts.yaml"))


@pytest.mark.parametrize("name", ["alerts.json", "alerts"])
def test_a_file_of_another_kind_is_an_error(name, written):
    with pytest.raises(InputError, match="toml"):
        read_alerts(written("{}", name))


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_alerts(tmp_path / "alerts.toml")


@pytest.mark.parametrize(
    ("package", "name", "text"),
    [("yaml", "alerts.yaml", "max_per_hour: 5"), ("apprise", "alerts.toml", '[[notifiers]]\ntype = "apprise"\nurl = "json://localhost"')],
)
def test_a_missing_library_names_its_extra(package, name, text, written):
    code = f"""
import sys
sys.modules[{package!r}] = None
from refusal_guard.alerts import read_alerts
from refusal_guard.errors import MissingExtraError
try:
    read_alerts({str(written(text, name))!r})
except MissingExtraError as error:
    print(error.extra)
"""
    assert run_python(code) == [package]
