"""Errors of use, which quote what was typed or pasted, made harmless to the terminal."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from typer import TyperException
from typer.core import TyperGroup

from src.common.printable import printable


class Commands(TyperGroup):
    """The outermost group of commands, which all errors of use pass."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options before the command's name."""
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Generator[None]:
    try:
        yield
    except TyperException as error:
        error.message = printable(error.message)
        raise
