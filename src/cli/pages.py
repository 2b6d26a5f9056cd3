"""Lists that come in pages: the options all of them have, and how a page is printed."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from src.cli.output import print_json, print_rows, say
from src.common.postgres.pagination import PAGE_SIZE_MAX

Limit = Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="How many at most.")]
Cursor = Annotated[
    str | None, typer.Option(help="Which page: the `next_cursor` of the page before.")
]


def print_page(
    rows: Sequence[Mapping[str, Any]],
    next_cursor: str | None,
    *,
    as_json: bool,
    empty: str,
    **others: Any,
) -> None:
    """Print a page, or the sentence `empty`, and how to see the next one where there is one.

    `others` is what JSON has beside it.
    """
    if as_json:
        print_json({"items": rows, "next_cursor": next_cursor, **others})
        return
    print_rows(rows, as_json=False, empty=empty)
    if next_cursor is not None:
        say(f"There are more: --cursor {next_cursor}", err=True)
