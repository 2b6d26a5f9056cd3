"""The generated pages of the reference are what the code says now."""

from pathlib import Path

from scripts import reference, rooms, schema

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_errors_page_lists_every_error() -> None:
    """`just reference` was run after the last change of the API's errors."""
    assert (REFERENCE / "errors.md").read_text() == reference.errors_page()


def test_the_command_line_page_lists_every_command() -> None:
    """`just reference` was run after the last change of a command."""
    assert (REFERENCE / "cli.md").read_text() == reference.command_line_page()


def test_the_schema_page_has_every_table() -> None:
    """`just reference` was run after the last change of a model."""
    assert (REFERENCE / "schema.md").read_text() == reference.MADE_BY + schema.schema_page()


def test_the_page_of_rooms_has_every_module() -> None:
    """`just reference` was run after the last module was added, moved or described anew."""
    assert (REFERENCE / "rooms.md").read_text() == reference.MADE_BY + rooms.rooms_page()
