"""The database's clock as a test wants it, for all that is asked through SQLAlchemy."""

import datetime as dt
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session

_CLOCKS = re.compile(r"(?:pg_catalog\.)?\b(?:clock|statement)_timestamp\(\)")
_OURS = "coalesce(nullif(current_setting('tests.now', true), '')::timestamptz, clock_timestamp())"


@contextmanager
def settable_clock(bind: Connection | Engine) -> Generator[None]:
    """Have statements on it read the clock that `set_clock` sets; triggers read the real one."""

    def replace(*arguments: Any) -> tuple[str, Any]:
        _, _, statement, parameters, _, _ = arguments
        return _CLOCKS.sub(_OURS, statement), parameters

    event.listen(bind, "before_cursor_execute", replace, retval=True)
    try:
        yield
    finally:
        event.remove(bind, "before_cursor_execute", replace)


def set_clock(session: Session, now: dt.datetime) -> None:
    """Let it be this time until the session rolls back."""
    session.execute(text("SELECT set_config('tests.now', :now, false)"), {"now": now.isoformat()})
