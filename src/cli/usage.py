"""The outermost group of commands: how wrong usage and Ctrl-C are answered."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from typer import TyperException
from typer.core import TyperGroup

from src.common.printable import printable


class Interrupted(Exception):
    """Ctrl-C, which typer would answer with silence."""


class Commands(TyperGroup):
    """The outermost group of commands."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options before the command's name."""
        with _translated():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        with _translated():
            return super().invoke(ctx)


@contextmanager
def _translated() -> Generator[None]:
    """Errors of use quote what was typed or pasted."""
    try:
        yield
    except TyperException as error:
        error.message = printable(error.message)
        raise
    except KeyboardInterrupt:
        raise Interrupted from None
