"""Lists that come in pages: the options all of them have, and how a page tells of the next."""

from typing import Annotated, Any

import typer

from src.cli.output import say
from src.common.postgres.pagination import PAGE_SIZE_MAX, Page

Limit = Annotated[int, typer.Option(min=1, max=PAGE_SIZE_MAX, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option(help="Where to go on, as the last page said.")]


def tell_of_more(page: Page[Any]) -> None:
    """Say how to see the next page, where there is one."""
    if page.next_cursor is not None:
        say(f"There are more: --cursor {page.next_cursor}", err=True)
