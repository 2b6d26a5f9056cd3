"""Several imports of opening balances at once, and one that is killed: all are opened just once."""

import json
import multiprocessing
import random
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from src.common.credits.opening import opening_import
from src.common.credits.verification import verify
from src.common.database import SessionLocal, get_engine
from src.local_postgres import ConnectionParameters
from tests.cli.processes import Program
from tests.credits.crashes import counting, interrupted
from tests.credits.workers import point_to
from tests.fixtures.databases import environment_of
from tests.migrations.test_adoption import (
    BALANCES,
    EXPECTED,
    USER,
    import_all,
    net_balances,
    take_over,
    theirs,
)

__all__ = ["theirs"]

PROCESSES = 3
MORE_USERS = 150
BATCH_SIZE = 4


def add_users(connection: Connection) -> dict[str, int]:
    """More of the document's users; the balance of each, by e-mail."""
    drawn = random.Random(7)  # noqa: S311  the same people each time
    people = {f"more{each}@example.com": drawn.randint(-500, 500) for each in range(MORE_USERS)}
    with Session(connection) as session:
        session.add_all(
            USER(email=email, password_hash="managed_externally", credits_balance=balance)
            for email, balance in people.items()
        )
        session.commit()
    connection.commit()
    return people


def check(connection: Connection, expected: Mapping[str, int]) -> None:
    """Balance less debt is the old column for everybody, opened once, and all books balance."""
    assert net_balances(connection) == expected
    twice = text(
        "SELECT count(*) FROM (SELECT FROM credit_entries GROUP BY user_id HAVING count(*) > 1) t"
    )
    assert connection.scalar(twice) == 0
    connection.commit()
    *_, books = verify.verify(SessionLocal)
    assert (books.users, books.differences) == (len(expected), 0)
    assert books.without_opening_entry == 0


def test_several_imports_at_once_open_everybody_once(
    theirs: Connection,
    empty_database: ConnectionParameters,
    tmp_path: Path,
) -> None:
    """Each command succeeds with a parity report of 0 differences; together they open all."""
    expected = EXPECTED | add_users(theirs)
    take_over(theirs)
    program = Program(tmp_path, environment_of(empty_database))
    importing = ("credits", "import-opening-balances", "--json", "--batch-size", str(BATCH_SIZE))
    processes = [program.start(*importing) for _ in range(PROCESSES)]
    answers = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, program.said()
    reports = [json.loads(answer) for answer in answers]
    assert [report["differences"] for report in reports] == [0] * PROCESSES
    assert [report["compared"] for report in reports] == [len(expected)] * PROCESSES
    unopened = sum(balance == 0 for email, balance in expected.items() if email not in EXPECTED)
    assert sum(report["opened"] for report in reports) == len(expected) - unopened
    check(theirs, expected)


def import_until(environment: Mapping[str, str], number: int, pipe: Pipe) -> None:
    """A process's whole life: import as far as a statement, say so, and wait to be killed."""
    point_to(environment)

    def wait(_connection: Connection) -> None:
        pipe.send("at the statement")
        signal.pause()

    with interrupted(get_engine(), number, wait):
        for _ in opening_import.import_openings(SessionLocal, batch_size=1):
            pass
    pipe.send("done")


def test_an_import_killed_at_any_statement_goes_on(
    theirs: Connection,
    empty_database: ConnectionParameters,
) -> None:
    """Killed with -9 before each statement of a batch: what was done stays, the rest comes."""
    take_over(theirs)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.credits.crashes"])
    with counting(get_engine()) as statements:
        first = next(opening_import.import_openings(SessionLocal, batch_size=1))
    opened = first.opened
    assert opened == 1
    a_batch = statements()
    for number in range(1, a_batch + 2):
        ours, theirs_end = context.Pipe()
        with ours, theirs_end:
            process = context.Process(
                target=import_until, args=(environment_of(empty_database), number, theirs_end)
            )
            process.start()
            assert ours.recv() == "at the statement"
            process.kill()
            process.join()
            process.close()
        opened += number > a_batch
        entries = theirs.scalar(text("SELECT count(*) FROM credit_entries"))
        theirs.commit()
        assert entries == opened
    assert import_all().opened == len(BALANCES) - opened
    check(theirs, EXPECTED)
