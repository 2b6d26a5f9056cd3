"""deploy/grafana: the dashboard is what the code makes, and asks for metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dashboard import COLUMNS, DASHBOARD, dashboard, dashboard_file
from scripts.dashboard_panels import ROWS
from scripts.metrics_page import CATALOGUE, names_in, registered, series_names

PANELS: list[dict[str, Any]] = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool")


def test_the_file_is_what_the_code_makes() -> None:
    """`just reference` was run after the last change of a panel."""
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_file()


def test_there_is_a_row_for_each_chapter_of_the_metrics() -> None:
    """After what is seen first."""
    assert list(ROWS) == ["At a glance", *CATALOGUE]


def test_every_expression_asks_for_metrics_that_exist() -> None:
    """By the names under which Prometheus stores them."""
    for expression in EXPRESSIONS:
        named = names_in(expression)
        assert named - series_names() == set(), expression
        assert named or re.search(r"\b(up|ALERTS)\{", expression), expression


def test_every_metric_is_shown() -> None:
    """None is measured for nobody."""
    shown = set[str]().union(*map(names_in, EXPRESSIONS))
    unseen = [name for name, each in registered().items() if not shown & set(each.series)]
    assert unseen == []


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    """In words, and none twice in a row."""
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    for panels in ROWS.values():
        assert len({panel.title for panel in panels}) == len(panels)


def test_panels_fill_their_rows_and_cover_none_of_each_other() -> None:
    """Each place of the grid belongs to one panel at most, and no line of panels has a gap."""
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]
    lines = {y for _, y in taken}
    assert [
        y for y in sorted(lines) if sum((x, y) in taken for x in range(COLUMNS)) < COLUMNS
    ] == []


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """With Grafana's own variables filled in."""
    assert PROMTOOL is not None
    filled = [
        each.replace("$__rate_interval", "5m").replace("$instance", ".*") for each in EXPRESSIONS
    ]
    rules = [{"record": f"panel_{place}", "expr": each} for place, each in enumerate(filled)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
