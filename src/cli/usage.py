"""The outermost group of commands: logging, and how wrong usage and Ctrl-C are answered."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import wraps
from typing import Any

from typer import BadParameter, TyperException
from typer.core import TyperGroup

from src.cli.reach import get_settings
from src.cli.wrong_values import sentence_of
from src.common.printable import printable

_COPES_WITHOUT_SETTINGS = {"doctor"}
"""Commands that say themselves what is wrong with the settings, and set up their logs."""


class Interrupted(Exception):
    """Ctrl-C, which typer would answer with silence."""


class Commands(TyperGroup):
    """The outermost group of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in _leaves(self):
            if command.name not in _COPES_WITHOUT_SETTINGS:
                command.callback = _logging(command.callback)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options before the command's name."""
        with _translated():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        with _translated():
            return super().invoke(ctx)


def _leaves(group: TyperGroup) -> Iterable[Any]:
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _leaves(command)
        else:
            yield command


def _logging(do: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with logs as the settings say; whoever asks for help needs neither."""

    @wraps(do)
    def do_logging(**parameters: Any) -> Any:
        from src.common.observability import configure_logging

        configure_logging(get_settings())
        return do(**parameters)

    return do_logging


@contextmanager
def _translated() -> Generator[None]:
    """Errors of use quote what was typed or pasted."""
    try:
        yield
    except TyperException as error:
        sentence = sentence_of(error) if isinstance(error, BadParameter) else error.message
        error.message = printable(sentence)
        raise
    except KeyboardInterrupt:
        raise Interrupted from None
