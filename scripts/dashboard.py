"""Makes deploy/grafana/flashslides.json, the dashboard, of the panels in `dashboard_panels.py`."""

import json
from collections.abc import Iterator
from typing import Any

from scripts.dashboard_panel import Panel
from scripts.dashboard_panels import ROWS
from scripts.metrics_page import DEPLOY

DASHBOARD = DEPLOY / "grafana" / "flashslides.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHTS = {"stat": 4, "state-timeline": 8, "timeseries": 8}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "flashslides",
        "title": "FlashSlides",
        "description": "Users, Stripe purchases and prepaid credits",
        "tags": ["flashslides"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"FlashSlides.+", alertstate="firing"}',
                    "titleFormat": "{{alertname}}",
                }
            ]
        },
        "templating": {"list": _variables()},
        "panels": list(_placed()),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "label": "Instance",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": 'label_values(up{job="flashslides"}, instance)', "refId": "A"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _placed() -> Iterator[dict[str, Any]]:
    """Rows and panels from left to right, then down."""
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }
        top, left = top + 1, 0
        for panel in panels:
            height = HEIGHTS[panel.kind]
            if left + panel.width > COLUMNS:
                top, left = top + height, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            yield {"id": number, "gridPos": place, **_drawn(panel)}
            left += panel.width
        top += HEIGHTS[panels[-1].kind]


def _drawn(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.steps],
        },
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.is_stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none"},
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": name,
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for place, (expression, name) in enumerate(panel.shows)
        ],
    }


def _options(panel: Panel) -> dict[str, Any]:
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    if panel.kind == "stat":
        return {
            "colorMode": "background" if len(panel.steps) > 1 else "value",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "textMode": "value",
        }
    if panel.kind == "state-timeline":
        return {"legend": legend, "showValue": "never", "mergeValues": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def dashboard_file() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"
