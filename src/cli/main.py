"""The command `flashslides`: how it begins, and how errors and Ctrl-C leave it.

Results go to stdout, everything else to stderr; `exit_codes.py` says which exit code means what.
All else is imported by `main`, so that Ctrl-C is understood meanwhile. In the milliseconds in which
Python itself starts, and takes itself down, Ctrl-C is Python's.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from types import FrameType

# Python's last collection would look at all that was imported: a third of a short command's CPU.
atexit.register(gc.freeze)
COLLECTED_FROM = 200_000
"""From how many objects on, as many as a short command imports."""


def main() -> None:
    """Run the command; an expected error becomes one sentence and an exit code."""
    collect_late()
    # For plugins pydantic would read the metadata of every package there is.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    heeds_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeds_ctrl_c:  # not below nohup, or in the background of a shell
        signal.signal(signal.SIGINT, _end_at_once)
    from src.cli.commands import command

    threading.excepthook = _report_thread
    try:
        if heeds_ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the edge
        _leave(error)
    finally:
        if heeds_ctrl_c:  # while Python ends
            signal.signal(signal.SIGINT, _end_at_once)


def collect_late() -> None:
    """Have the collector come late, and then as ever, leaving alone what is there by then.

    Before, it would look again and again at what was just imported: a sixth of a short command's
    CPU.
    """
    usual = gc.get_threshold()

    def go_on_as_ever(phase: str, _found: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(go_on_as_ever)
            gc.freeze()
            gc.set_threshold(*usual)

    gc.callbacks.append(go_on_as_ever)
    gc.set_threshold(COLLECTED_FROM, *usual[1:])


def _leave(error: BaseException) -> None:
    """Say what was wrong: a sentence, or of a defect what Python would print, but printable."""
    from src.cli import exit_codes
    from src.cli.usage import Interrupted
    from src.common.exceptions import ExceptionWithErrorType, SettingsError
    from src.local_postgres import LocalPostgresError

    match error:
        case KeyboardInterrupt() | Interrupted():
            _fail("Interrupted", exit_codes.INTERRUPTED)
        case LocalPostgresError():
            _fail(str(error), exit_codes.FAILED)
        case SettingsError():
            _fail(f"Settings: {error.message}", exit_codes.MISCONFIGURED)
        case ExceptionWithErrorType():
            _fail(f"{error.message} ({error.error_type})", exit_codes.of(error))
        case _ if _hides_ctrl_c(error):
            _fail("Interrupted", exit_codes.INTERRUPTED)
        case _:
            _say(traceback.format_exc())
            sys.exit(exit_codes.FAILED)


def _hides_ctrl_c(error: BaseException) -> bool:
    """Whether pydantic met Ctrl-C while it built a model: only the text of its error says so."""
    from pydantic_core import SchemaError

    return isinstance(error, SchemaError) and "KeyboardInterrupt" in str(error)


def _report_thread(ended: threading.ExceptHookArgs) -> None:
    lines = traceback.format_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)
    _say("".join(lines))


def _fail(sentence: str, exit_code: int) -> None:
    _say(f"flashslides: {sentence}")
    sys.exit(exit_code)


def _say(text: str) -> None:
    from src.cli.output import say

    say(text, err=True)


def _end_at_once(_signal: int, _frame: FrameType | None) -> None:
    """Ctrl-C while nothing is open that would have to be closed."""
    os.write(2, b"flashslides: Interrupted\n")
    os._exit(130)
