"""`just poolers`: the same behind PgBouncer, which is killed, paused, and whose server restarts.

python -m benchmarks.failover.poolers [--short]

`PGBOUNCER` names another program than Debian's 1.18; from 1.21 on DATABASE_POOLER is `prepared`.
At the end the engine's rate through it is compared with its rate on the server itself.

Exit code 1: something was lost or doubled, or took too long. 77: something is not installed.
"""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import make_conninfo

from benchmarks.failover import report
from benchmarks.failover.folders import folder_of_run, outcome
from benchmarks.failover.pgbouncer import PgBouncer
from benchmarks.failover.programs import ROOT, account
from benchmarks.failover.server import Server
from benchmarks.failover.service import Service
from benchmarks.failover.trials import ACKNOWLEDGED, ACKNOWLEDGED_SHORT, Mend, Trials
from src.local_postgres import ConnectionParameters

RATIO_MIN = 0.75
_PAUSE_SECONDS = 1.0
_PREPARES_SINCE = (1, 21)
_DDL = (
    "ALTER TABLE users ADD COLUMN of_this_run integer",
    "CREATE INDEX CONCURRENTLY ix_of_this_run ON users (of_this_run)",
    "DROP INDEX CONCURRENTLY ix_of_this_run",
    "ALTER TABLE users DROP COLUMN of_this_run",
)
_LOCK_TRIES = 50


@dataclass
class Pooled:
    """A PgBouncer and the server behind it."""

    server: Server
    pgbouncer: PgBouncer

    def answers(self) -> bool:
        """Whether somebody who comes by the pooler is served."""
        connection = self.pgbouncer.connection
        try:
            psycopg.connect(_words(connection), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _nothing() -> None:
    """What was done needs no mending."""


def _kill(pooled: Pooled) -> Mend:
    pooled.pgbouncer.kill()
    pooled.pgbouncer.start()
    return _nothing


def _order(command: str, pooled: Pooled) -> Mend:
    pooled.pgbouncer.order(command)
    return _nothing


def _pause(pooled: Pooled) -> Mend:
    pooled.pgbouncer.order("PAUSE")
    time.sleep(_PAUSE_SECONDS)
    pooled.pgbouncer.order("RESUME")
    return _nothing


def _restart_server(pooled: Pooled) -> Mend:
    pooled.server.restart()
    return _nothing


def _change_schema(pooled: Pooled) -> Mend:
    """As a migration does: it waits for locks for moments only, and tries again."""
    with pooled.server.connect() as admin:
        admin.execute("SET lock_timeout = '200ms'")
        for statement in _DDL:
            _persist(admin, statement)
    pooled.pgbouncer.order("RECONNECT")
    return _nothing


def _persist(admin: psycopg.Connection, statement: str) -> None:
    for _ in range(_LOCK_TRIES):
        try:
            admin.execute(statement.encode())
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.1)
        else:
            return
    admin.execute(statement.encode())


EVENTS: tuple[tuple[str, Callable[[Pooled], Mend], float | None, bool], ...] = (
    ("pgbouncer killed and started", _kill, None, True),
    ("RECONNECT", partial(_order, "RECONNECT"), None, False),
    ("PAUSE and RESUME", _pause, None, False),
    ("server restarted behind it", _restart_server, 2.0, True),
    ("schema changed, then RECONNECT", _change_schema, None, False),
)
"""Name, what is done, how long nobody may be answered, and whether it is in the short form."""


def main(
    *,
    short: Annotated[bool, typer.Option("--short", help="A few events, few operations.")] = False,
) -> None:
    """Run the events one after the other, print a table, and compare the rates."""
    raise typer.Exit(outcome("poolers", lambda: _run(is_short=short)))


def _run(*, is_short: bool) -> list[str]:
    with folder_of_run("poolers") as parent:
        server = Server(parent, account())
        orders = {"admin_users": server.connection.user}
        pooled = Pooled(server, PgBouncer(parent, account(), server.connection, orders))
        version = pooled.pgbouncer.version()
        mode = pooler_setting(version)
        print(f"{version}, transaction mode, DATABASE_POOLER={mode}", flush=True)
        through = _environment(pooled.pgbouncer.connection) | {
            "DATABASE_POOLER": mode,
            "DATABASE_DIRECT_HOST": server.connection.host,
            "DATABASE_DIRECT_PORT": str(server.connection.port),
        }
        service = Service(parent, through, through)
        service.prepare()
        service.start_api()
        wanted = ACKNOWLEDGED_SHORT if is_short else ACKNOWLEDGED
        trials = Trials(service, server.connect, pooled.answers, wanted, judges_gaps=not is_short)
        print(report.head(), flush=True)
        for name, do, bound_seconds, belongs_to_short in EVENTS:
            if belongs_to_short or not is_short:
                trials.run(name, partial(do, pooled), bound_seconds)
        direct = _environment(server.connection) | {"DATABASE_POOLER": "none"}
        ratio = _ratio_of_rates(service, through, direct, is_short=is_short)
        if is_short or ratio >= RATIO_MIN:
            return trials.failures
        slow = f"engine through PgBouncer is {ratio:.2f} of direct, below {RATIO_MIN}"
        return [*trials.failures, slow]


def pooler_setting(version: str) -> str:
    """What `DATABASE_POOLER` has to be for a PgBouncer that calls itself so."""
    numbers = re.search(r"(\d+)\.(\d+)", version)
    is_new = numbers is not None and (int(numbers[1]), int(numbers[2])) >= _PREPARES_SINCE
    return "prepared" if is_new else "transaction"


def _ratio_of_rates(
    service: Service, through: dict[str, str], direct: dict[str, str], *, is_short: bool
) -> float:
    """Take turns, so that whatever else the machine does meets both."""
    turns, seconds = (3, 3) if is_short else (5, 5)
    rates: dict[str, list[float]] = {"through": [], "direct": []}
    for _ in range(turns):
        for name, environment in (("direct", direct), ("through", through)):
            rates[name].append(_rate(service, environment, seconds))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ratio = medians["through"] / medians["direct"]
    print(
        f"engine, 256 callers: {medians['through']:,.0f}/s through PgBouncer, "
        f"{medians['direct']:,.0f}/s direct: {ratio:.2f}",
        flush=True,
    )
    return ratio


def _rate(service: Service, environment: dict[str, str], seconds: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.failover.engine_rate", str(seconds), *service.user_ids],
        env=service.library | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _environment(connection: ConnectionParameters) -> dict[str, str]:
    return {
        "DATABASE_HOST": connection.host,
        "DATABASE_PORT": str(connection.port),
        "DATABASE_NAME": connection.database,
        "DATABASE_USER": connection.user,
        "DATABASE_PASSWORD": connection.password,
    }


def _words(connection: ConnectionParameters) -> str:
    return make_conninfo(
        host=connection.host,
        port=connection.port,
        user=connection.user,
        password=connection.password,
        dbname=connection.database,
    )


if __name__ == "__main__":
    typer.run(main)
