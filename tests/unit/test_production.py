"""What lies in ``examples/production/`` fits together, and fits the package: rules, dashboard, mapping, manifest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from arroyo_sync.observe.metrics import METRICS, Kind, MetricDef
from tests.support.programs import EXAMPLES, OPERATORS, anchors_of
from tests.support.readme_tables import factory_defaults
from tests.support.requirements import require_program

PRODUCTION = EXAMPLES / "production"
sys.path.insert(0, str(PRODUCTION))

import forwarder  # noqa: E402  an example, which Python finds only now

SUFFIXES = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.TIMING: "_seconds"}
EXPORTED_AS = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.TIMING: "observer"}


def load(name: str) -> Any:
    return yaml.safe_load((PRODUCTION / name).read_text())


RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in load("alerts.yml")["groups"][0]["rules"]}
DASHBOARD: dict[str, Any] = json.loads((PRODUCTION / "dashboard.json").read_text())


def expressions() -> Iterator[str]:
    """Every expression of the dashboard, its variables included."""
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def prometheus_name(metric: MetricDef) -> str:
    return metric.name.replace(".", "_") + SUFFIXES[metric.kind]


def series_in(expression: str) -> dict[str, set[str]]:
    """The metrics that an expression names, by their Prometheus names, with the labels that it selects or groups by."""
    labels = set(re.findall(r"(\w+)=~?\"", expression))
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        labels |= set(grouping.replace(" ", "").split(","))
    names = set(re.findall(r"\b(?:arroyo_sync|commit_log)_\w+", expression))
    without_them = set(re.findall(r"ignoring \([^)]*\) (\w+)", expression))  # it is joined on what is left
    return {re.sub(r"_bucket$", "", name): set() if name in without_them else labels for name in names}


NAMES = {prometheus_name(metric): metric for metric in METRICS}


def test_the_mapping_names_every_metric() -> None:
    """Each once, by its kind; gauges are forgotten when a partition goes elsewhere, and nothing else is."""
    mappings = load("statsd-mapping.yml")["mappings"]
    assert {each["match"]: (each["match_metric_type"], each["name"]) for each in mappings} == {
        metric.name: (EXPORTED_AS[metric.kind], prometheus_name(metric)) for metric in METRICS
    }
    assert len(mappings) == len(METRICS)
    assert all(("ttl" in each) == (each["match_metric_type"] == "gauge") for each in mappings)


@pytest.mark.parametrize("expression", [rule["expr"] for rule in RULES.values()] + list(expressions()))
def test_rules_and_dashboard_use_metrics_and_tags_that_exist(expression: str) -> None:
    """Under the names that the mapping gives; `follower` is the tag of the example's backend."""
    used = series_in(expression)
    assert used
    for name, labels in used.items():
        assert name in NAMES
        assert labels - {"le", "follower"} <= set(NAMES[name].tags), name


def test_the_dashboard_shows_every_metric() -> None:
    """A metric that nobody shows needn't be sent."""
    assert {name for expression in expressions() for name in series_in(expression)} == set(NAMES)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """And no two have the same number, by which Grafana knows them."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker."""
    return require_program("the check of the alert rules", "prometheus", "promtool")


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_more_pods_than_partitions_run_while_a_new_image_is_rolled_out() -> None:
    """By default one more is begun before another ends: with as many as partitions, one has none, and isn't ready."""
    manifest = load("kubernetes.yaml")
    assert manifest["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


def test_prometheus_takes_the_rules(promtool: str) -> None:
    """By its own check."""
    run(promtool, "check", "rules", str(PRODUCTION / "alerts.yml"))


def test_each_alert_is_raised_by_its_fault_and_none_by_a_healthy_follower(promtool: str) -> None:
    """By Prometheus' own evaluation of made-up series."""
    run(promtool, "test", "rules", str(PRODUCTION / "alerts_test.yml"))
    tests = [case for test in load("alerts_test.yml")["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in tests if case.get("exp_alerts")} == set(RULES)
    healthy = load("alerts_test.yml")["tests"][0]["alert_rule_test"]
    assert {case["alertname"] for case in healthy if not case.get("exp_alerts")} == set(RULES)


def test_prometheus_takes_the_expressions_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    plain = [each.replace("$__rate_interval", "5m") for each in expressions() if not each.startswith("label_values")]
    rules = [{"record": f"panel_{number}", "expr": each} for number, each in enumerate(plain)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))


def anchors() -> set[str]:
    """Where a link to a heading of the operators' page may lead."""
    return anchors_of(OPERATORS.read_text())


@pytest.mark.parametrize("alert", RULES)
def test_each_alert_links_to_a_heading_that_exists(alert: str) -> None:
    """And says how urgent it is, and what is the matter."""
    annotations = RULES[alert]["annotations"]
    file, _, anchor = annotations["runbook_url"].partition("#")
    assert PRODUCTION / file == OPERATORS
    assert anchor in anchors()
    assert annotations["summary"]
    assert RULES[alert]["labels"]["severity"] in {"page", "ticket", "info"}


@pytest.fixture
def pod() -> dict[str, Any]:
    return dict(load("kubernetes.yaml")["spec"]["template"]["spec"])


def test_the_manifest_runs_the_forwarder_with_flags_that_it_knows(pod: dict[str, Any]) -> None:
    """And gives it time to end: for the work in progress, and for the reader."""
    follower, exporter = pod["containers"]
    options = forwarder._parser().parse_args(follower["args"])
    stop_timeout = factory_defaults()["stop_timeout"]
    assert isinstance(stop_timeout, float)
    assert pod["terminationGracePeriodSeconds"] >= options.join_timeout + stop_timeout + 10
    assert f"--statsd.listen-udp={options.statsd_host}:{options.statsd_port}" in exporter["args"]
    mapping = next(each for each in exporter["args"] if "mapping-config" in each)
    (mount,) = exporter["volumeMounts"]
    assert mapping == f"--statsd.mapping-config={mount['mountPath']}/statsd-mapping.yml"


def test_the_probes_watch_the_file_that_the_follower_touches(pod: dict[str, Any]) -> None:
    """By Arroyo's own check, in the versions that have it."""
    follower = pod["containers"][0]
    file = forwarder._parser().parse_args(follower["args"]).healthcheck_file
    assert follower["livenessProbe"]["exec"]["command"] == ["python", "-m", "arroyo.healthcheck", file]
    assert follower["startupProbe"]["exec"]["command"] == ["test", "-e", file]
    has_it = importlib.util.find_spec("arroyo.healthcheck") is not None
    major, minor, *_ = map(int, importlib.metadata.version("sentry-arroyo").split("."))
    assert has_it == ((major, minor) >= (2, 46))
    assert "sentry-arroyo>=2.46" in (PRODUCTION / "kubernetes.yaml").read_text()


def test_secrets_come_from_the_cluster(pod: dict[str, Any]) -> None:
    """None stands in the manifest; and the variables are the settings that librdkafka knows."""
    environment = pod["containers"][0]["env"]
    secret = {each["name"] for each in environment if "valueFrom" in each}
    assert secret == {"ARROYO_SYNC_KAFKA_SASL_USERNAME", "ARROYO_SYNC_KAFKA_SASL_PASSWORD"}
    assert all(each["valueFrom"]["secretKeyRef"]["key"] for each in environment if "valueFrom" in each)
    assert set(forwarder.kafka_settings({each["name"]: "x" for each in environment})) == {
        "bootstrap.servers",
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "sasl.password",
    }
