"""A clock that a test sets, for everything that the database tells the time.

The ledger's clock is PostgreSQL's (rule 8). In a throw-away database a schema of functions by the
names of PostgreSQL's own stands before them in the search path: they tell the time that a table
says, and the real one where it says none. So the clock holds for sessions of both drivers, for the
batch engine and for other processes, for the defaults of columns and for the ledger's triggers.

What does not ask the database for the time goes on: tokens' and API keys' expiries are compared
with Python's clock, and `CURRENT_TIMESTAMP` is PostgreSQL's own, whatever the search path.
"""

import datetime as dt
from collections.abc import Callable

import psycopg
from psycopg import sql

from src.common.credits.domain.arguments import check_instant

_FUNCTIONS = {
    "clock_timestamp": "VOLATILE",
    "statement_timestamp": "STABLE",
    "transaction_timestamp": "STABLE",
    "now": "STABLE",
}
"""PostgreSQL's own, and how often the planner may think that they change."""
_FUNCTION = """
CREATE FUNCTION flashslides_clock.{name}() RETURNS timestamptz LANGUAGE sql {volatility}
PARALLEL SAFE AS $$
  SELECT coalesce((SELECT instant FROM flashslides_testing.told), pg_catalog.{name}())
$$;
"""

_INSTALL = """
CREATE SCHEMA flashslides_clock;
GRANT USAGE ON SCHEMA flashslides_clock TO PUBLIC;
CREATE SCHEMA flashslides_testing;
GRANT USAGE ON SCHEMA flashslides_testing TO PUBLIC;
CREATE TABLE flashslides_testing.told (instant timestamptz NOT NULL);
GRANT SELECT ON flashslides_testing.told TO PUBLIC;
"""
INSTALL_CLOCK = "".join(
    [_INSTALL, *(_FUNCTION.format(name=name, volatility=each) for name, each in _FUNCTIONS.items())]
).encode()
"""Before the migrations, so that the defaults of columns are by these functions too. The table is
not in the search path, where Alembic would take it for one of the application's."""

TEACH_TRIGGERS = r"""
DO $$ DECLARE function regprocedure; BEGIN
  FOR function IN SELECT oid FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prosrc ~ '\mstatement_timestamp\(\)'
  LOOP
    EXECUTE regexp_replace(pg_get_functiondef(function), '\mstatement_timestamp\(\)',
      'flashslides_clock.statement_timestamp()', 'g');
  END LOOP;
END $$"""
"""After them: the triggers find nothing but PostgreSQL's own functions, unless they name others."""
_STOP = "INSERT INTO flashslides_testing.told VALUES (%s)"
_GO_ON = "DELETE FROM flashslides_testing.told"


def use_clock(database: str, connect: Callable[[], psycopg.Connection]) -> None:
    """Have new connections to a database find the clock's functions; tables are made as ever."""
    statement = sql.SQL(
        'ALTER DATABASE {} SET search_path = "$user", public, flashslides_clock, pg_catalog'
    )
    with connect() as connection:
        connection.execute(statement.format(sql.Identifier(database)))


class FrozenClock:
    """The time of a throw-away database; it stands still until it is moved.

    Move it between database transactions. The ledger goes on from a user's last entry: a clock that
    is moved back does not take it back.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection]) -> None:
        """Stop the database's clock where it is; the way to connect is kept."""
        self._connect = connect
        with connect() as connection:
            row = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101  it has one row
        self._now: dt.datetime = row[0].astimezone(dt.UTC)
        self.move_to(self._now)

    @property
    def now(self) -> dt.datetime:
        """What it tells, in UTC."""
        return self._now

    def move_to(self, instant: dt.datetime) -> None:
        """Let it tell this instant, which has a time zone.

        Raises:
            Invalid: VALIDATION_ERROR, the instant has no time zone.
        """
        self._now = check_instant("instant", instant).astimezone(dt.UTC)
        with self._connect() as connection, connection.transaction():
            connection.execute(_GO_ON)
            connection.execute(_STOP, [self._now])

    def shift(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move it forward by so much, or back by less than 0."""
        moved = dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self.move_to(self._now + moved)

    def release(self) -> None:
        """Let it go on, as the real time is."""
        with self._connect() as connection:
            connection.execute(_GO_ON)
