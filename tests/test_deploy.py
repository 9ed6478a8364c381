"""What deploy/ holds, checked by the real promtool and against the metrics that are really exported."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
TARGETS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@needs_promtool
def test_promtool_finds_no_fault_in_the_rules():
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_alert_when_they_should():
    done = promtool("test", "rules", DEPLOY / "prometheus-tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_query_of_the_dashboard_is_one(tmp_path):
    queries = [query.replace("$__rate_interval", "5m") for query in [*TARGETS, DASHBOARD["annotations"]["list"][0]["expr"]]]
    rules = [{"record": f"panel:query{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "queries.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_different_panels_side_by_side():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(set(ids)) == len(places) >= 10
    assert all(panel["title"] and panel["description"] for panel in DASHBOARD["panels"])


def test_rules_and_dashboard_ask_for_metrics_that_are_exported_or_recorded():
    prometheus_client = pytest.importorskip("prometheus_client", reason="needs the extra prometheus")
    from refusal_guard.events.prometheus import PrometheusHook

    registry = prometheus_client.CollectorRegistry()
    PrometheusHook(registry)
    families = [(family.name, family.type) for family in registry.collect()]
    exported = {f"{name}{'_total' if kind == 'counter' else '_bucket'}" for name, kind in families}
    text = RULES.read_text().partition("rules:")[2]
    recorded = set(re.findall(r"record: (\S+)", text))
    asked = set(re.findall(r"(?:[a-z_]+:)?refusal_guard_\w+(?::\w+)?", text + "\n".join(TARGETS)))
    assert asked
    assert asked <= exported | recorded
