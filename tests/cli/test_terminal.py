"""Text that others wrote reaches the operator's terminal, whatever prints it, and does nothing."""

import logging
import threading

import pytest
import structlog

from src.cli import output, users
from src.common.exceptions import NotFound
from src.common.observability import configure_logging
from src.common.printable import printable
from src.common.settings import load_settings
from tests.cli.conftest import RunCommand
from tests.fixtures.api import logging_restored

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b1A\r\b\u202elive\u2066\x7f\u2028"


def failure() -> RuntimeError:
    """An error as somebody caught it."""
    try:
        int(HOSTILE)
    except ValueError as cause:
        error = RuntimeError(HOSTILE)
        error.__cause__ = cause
        return error
    raise AssertionError


def acting(text: str) -> set[str]:
    """The characters of a text that a terminal would act on, but for ends of lines."""
    return {character for character in text if not character.isprintable()} - {"\n"}


def test_every_character_that_acts_is_escaped() -> None:
    """Of all that Unicode has; what is printed stays."""
    everything = "".join(map(chr, range(0x110000)))
    left = printable(everything)
    assert not [each for each in left if ord(each) < 0x20 and each != "\n"]
    assert not {"\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800"} & set(left)
    for harmless in ("Zoë", "株式会社", "€ 5", "two\nlines", "\\x1b"):
        assert printable(harmless) == harmless


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        (f"--{HOSTILE}",),
        ("user", HOSTILE),
        ("user", "show", f"--{HOSTILE}"),
        ("credits", "grant", "u", HOSTILE),
        ("serve", "--port", HOSTILE),
        ("user", "show"),
    ],
)
def test_an_error_of_use_is_printable(run_command: RunCommand, arguments: tuple[str, ...]) -> None:
    """It quotes what was pasted: exit code 2, escaped."""
    result = run_command(*arguments)
    assert result.exit_code == 2
    assert result.err
    assert acting(result.out + result.err) == set()


@pytest.mark.parametrize("error", [RuntimeError(HOSTILE), NotFound(HOSTILE, "USER_NOT_FOUND")])
def test_what_a_command_fails_with_is_printable(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An expected error's sentence, and the traceback of one that nobody expected."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(users, "run_reading", fail)
    result = run_command("user", "show", "ada@example.com")
    assert result.exit_code in (1, 3)
    assert r"\x1b[2J" in result.err
    assert ("Traceback" in result.err) == isinstance(error, RuntimeError)
    assert acting(result.out + result.err) == set()


def test_what_a_thread_fails_with_is_printable(
    run_command: RunCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker's threads print no other way."""
    run_command("--version")

    def fail() -> None:
        raise RuntimeError(HOSTILE)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    written = capsys.readouterr().err
    assert r"\x1b[2J" in written
    assert acting(written) == set()


def test_what_is_said_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines, records, rows, on stdout and stderr; several lines stay several."""
    output.say(f"one\n{HOSTILE}")
    output.say(HOSTILE, err=True)
    output.print_record({"name": HOSTILE}, as_json=False)
    output.print_record({"name": HOSTILE}, as_json=True)
    output.print_rows([{"name": HOSTILE}], as_json=False, empty="none")
    captured = capsys.readouterr()
    assert captured.out.startswith("one\n")
    assert acting(captured.out + captured.err) == set()


def test_logs_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and the library's: sentences, fields of whatever type, tracebacks; a field is a line."""
    with logging_restored():
        configure_logging(load_settings(env="local"))
        logger = structlog.get_logger("flashslides.test")
        logger.warning("Ours", text=f"one\ntwo{HOSTILE}", nested={"a": HOSTILE}, error=Odd())
        logging.getLogger("theirs").warning("Theirs %s", HOSTILE)
        for log in (logger.error, logging.getLogger("theirs").error):
            log("Failed", exc_info=failure())
    written = capsys.readouterr().err
    assert r"one\ntwo" in written
    assert written.count(f"RuntimeError: {printable(HOSTILE)}") == 2
    assert written.count(r"\x1b[2J") >= 6
    assert acting(written) == set()


class Odd:
    """Something whose description is not its own."""

    def __repr__(self) -> str:
        return HOSTILE
