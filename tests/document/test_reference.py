"""The generated pages of the reference are what the code says now."""

import re
from pathlib import Path
from typing import Any

import pytest

from scripts import http_page, reference, reports_page, rooms, schema
from scripts.http_chapters import CHAPTERS
from scripts.json_types import type_of
from src.api.src.main import app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_errors_page_lists_every_error() -> None:
    """`just reference` was run after the last change of the API's errors."""
    assert (REFERENCE / "errors.md").read_text() == reference.errors_page()


def test_the_command_line_page_lists_every_command() -> None:
    """`just reference` was run after the last change of a command."""
    assert (REFERENCE / "cli.md").read_text() == reference.command_line_page()


def test_the_command_line_page_is_read_as_it_is_written() -> None:
    """Summaries are whole, and no character stands there as its HTML name."""
    page = reference.command_line_page()
    listed = re.findall(r"^\* `([a-z][a-z-]*)`: (.+)$", page, re.MULTILINE)
    assert len(listed) > 50
    assert [name for name, summary in listed if not summary.endswith(".")] == []
    assert re.findall(r"&[#\w]+;", page) == []


def test_the_schema_page_has_every_table() -> None:
    """`just reference` was run after the last change of a model."""
    assert (REFERENCE / "schema.md").read_text() == reference.MADE_BY + schema.schema_page()


def test_the_reports_page_has_every_report_and_column() -> None:
    """`just reference` was run after the last change of a report."""
    page = (REFERENCE / "reports.md").read_text()
    assert page == reference.MADE_BY + reports_page.reports_page()


def test_the_page_of_rooms_has_every_module() -> None:
    """`just reference` was run after the last module was added, moved or described anew."""
    assert (REFERENCE / "rooms.md").read_text() == reference.MADE_BY + rooms.rooms_page()


def test_the_http_page_has_every_operation() -> None:
    """`just reference` was run after the last change of an operation, a field or an error."""
    page = (REFERENCE / "http.md").read_text()
    assert page == reference.MADE_BY + http_page.http_page(app.openapi())


def test_every_operation_has_its_place_on_the_http_page() -> None:
    """None is left out, and none is told twice."""
    placed = [each.address for chapter in CHAPTERS for each in chapter.operations]
    assert sorted(placed) == sorted(http_page.operations_of(app.openapi()))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 2000}, "integer, 1 to 2,000"),
        ({"type": "integer", "exclusiveMinimum": 0}, "integer, at least 1"),
        ({"type": "string", "maxLength": 9, "pattern": "^a"}, "string, at most 9 characters, `^a`"),
        ({"anyOf": [{"$ref": "#/x/Lot"}, {"type": "null"}]}, "<Lot> or null"),
        (
            {"type": "array", "minItems": 1, "items": {"const": "a"}},
            "list of `a`, at least 1 items",
        ),
        ({"type": "string", "format": "date-time"}, "instant"),
        ({"enum": ["a", "b"]}, "`a` or `b`"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integer"),
    ],
)
def test_types_are_told_with_their_bounds(schema: dict[str, Any], words: str) -> None:
    """Ends included, null and unions in words."""
    assert type_of(schema, lambda name: f"<{name}>") == words
