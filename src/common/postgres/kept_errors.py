"""What is kept of an error in a table: its type, and a sentence without personal data.

An exception's own text may quote what was read or sent; the texts of ours and of the database do
not (`errors.py` cuts those that would).
"""

import traceback
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from src.common.exceptions import ExceptionWithErrorType
from src.common.postgres.errors import is_ledger_unbalanced

MESSAGE_LENGTH_MAX = 500
LEDGER_UNBALANCED = "LEDGER_UNBALANCED"


@dataclass(frozen=True)
class KeptError:
    """An error as it is noted."""

    error_type: str
    message: str


def keep(error: BaseException) -> KeptError:
    """What may be kept of this error."""
    if isinstance(error, ExceptionWithErrorType):
        return _kept(error.error_type, error.message)
    if isinstance(error, DBAPIError):
        first_line = str(error.orig).partition("\n")[0]
        if is_ledger_unbalanced(error):
            return _kept(LEDGER_UNBALANCED, first_line.partition(f"{LEDGER_UNBALANCED}: ")[2])
        return _kept(type(error.orig).__name__, first_line)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"in {frames[-1].name}" if frames else "nobody knows where"
    return _kept(type(error).__name__, f"{type(error).__name__} {where}")


def _kept(error_type: str, message: str) -> KeptError:
    """Fit for a column: PostgreSQL's texts have no NUL, and UTF-8 no half characters."""
    written = message.replace("\0", "").encode(errors="replace").decode()
    return KeptError(error_type, written[:MESSAGE_LENGTH_MAX])
