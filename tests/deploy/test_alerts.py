"""deploy/prometheus: the rules are Prometheus's, name what there is, and fire when they should.

What needs `promtool` (Debian's package `prometheus`) is skipped where it is not installed.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.metrics_page import RULES, names_in, series_names
from tests.deploy.alerts import BESIDE, FIRING, HEALTHY, QUIET

ROOT = Path(__file__).parents[2]
PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}


def promtool(*arguments: str, folder: Path = RULES.parent) -> None:
    """Run it; what it says is told where it fails."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_prometheus_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    """As files of its own: syntax, types, labels, templates."""
    promtool("check", "rules", RULES.name)
    for name in (RULES.name, "prometheus.yml"):
        shutil.copy(RULES.parent / name, tmp_path)
    (tmp_path / "metrics_token").write_text("secret")
    promtool("check", "config", "prometheus.yml", folder=tmp_path)


def test_the_rules_are_shaped_as_rules() -> None:
    """Each is an alert with an expression, how long it must hold, how bad it is and what to say."""
    assert len(ALERTS) == sum(len(group["rules"]) for group in GROUPS)
    for name, rule in ALERTS.items():
        assert name.startswith("FlashSlides"), name
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, name
        assert rule["labels"].keys() == {"severity"}, name
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"].keys() == {"summary", "runbook"}, name
        assert rule["expr"], name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_metrics_that_exist(name: str) -> None:
    """By the names under which Prometheus stores them."""
    named = names_in(ALERTS[name]["expr"])
    assert named - series_names() == set()
    assert named or "up{" in ALERTS[name]["expr"]


def test_the_made_series_are_series_of_ours() -> None:
    """What the alerts are tried with has the names that Prometheus will have."""
    made = {key.partition("{")[0] for key in HEALTHY}
    assert made - {"up"} <= series_names()


def in_a_test(series: dict[str, str], firing: dict[str, Any]) -> dict[str, Any]:
    """A test of promtool's: at the end of two hours exactly these alerts fire."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": "2h", "alertname": alert, "exp_alerts": firing.get(alert, [])}
            for alert in ALERTS
        ],
    }


def expected(alert: str) -> list[dict[str, Any]]:
    """How promtool is told that an alert fires."""
    rule = ALERTS[alert]
    return [
        {
            "exp_labels": rule["labels"] | FIRING[alert].labels,
            "exp_annotations": rule["annotations"] | {"summary": FIRING[alert].summary},
        }
    ]


@with_promtool
def test_no_alert_fires_in_a_healthy_system(tmp_path: Path) -> None:
    """Two hours of it, with a few errors that happen everywhere."""
    run_tests(tmp_path, [in_a_test(HEALTHY, {})])


@with_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_alone_where_it_should(alert: str, tmp_path: Path) -> None:
    """In a system that differs from a healthy one in this alone; no other alert is deceived."""
    firing = {name: expected(name) for name in {alert, *BESIDE.get(alert, set())}}
    run_tests(tmp_path, [in_a_test(HEALTHY | FIRING[alert].differs, firing)])


@with_promtool
@pytest.mark.parametrize("differs", QUIET.values(), ids=QUIET)
def test_what_is_no_trouble_wakes_nobody(differs: dict[str, str], tmp_path: Path) -> None:
    """Though it looks like one."""
    run_tests(tmp_path, [in_a_test(HEALTHY | differs, {})])


def run_tests(folder: Path, tests: list[dict[str, Any]]) -> None:
    """Have promtool run them."""
    shutil.copy(RULES, folder)
    file = folder / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [RULES.name], "tests": tests}))
    promtool("test", "rules", file.name, folder=folder)


def test_every_alert_is_tried() -> None:
    """And nothing that is no alert."""
    assert FIRING.keys() == ALERTS.keys()
