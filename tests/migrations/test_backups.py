"""`docs/how-to/back-up-and-restore.md`: its commands as they stand, and what it warns of."""

import os
import re
import subprocess
from collections.abc import Generator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Capture, OpenHold, Spend
from src.common.credits.opening import opening_import
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import Base, Transaction, User
from src.common.postgres.engines import database_url
from src.common.purchases.operations import credit_transaction
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, from_before, grant, spend
from tests.credits.model_values import MoneyBack
from tests.credits.stripe_side import PACKAGES, pay, tell
from tests.fixtures.databases import Server
from tests.migrations.commands import PROGRAMS, REPOSITORY
from tests.migrations.test_history import structure
from tests.models.examples import a_user

PAGE = (REPOSITORY / "docs/how-to/back-up-and-restore.md").read_text(encoding="utf-8")
RESTORED = ("restored", "restored_faster", "rows_only", "rows_as_replica", "looked_up")
ROLE = "flashslides_service"


def blocks(section: str) -> list[str]:
    """What the page says to type in one of its sections; before the first one, without a name."""
    for part in re.split(r"^## ", f"\n{PAGE}", flags=re.MULTILINE):
        if part.startswith(section):
            return re.findall(r"^```bash\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    raise AssertionError(section)


# Databases and a role by the names that the page gives them, on a server that workers share.
pytestmark = pytest.mark.xdist_group("backups")
BACK_UP = (*blocks("\n#"), *blocks("Back up"))


@pytest.fixture
def books(fresh_database: ConnectionParameters) -> ConnectionParameters:
    """A database with purchases, spends, holds, metadata, refunds and debts of several users."""
    with SessionLocal.begin() as session:
        from_before(session, -70)
        for number in range(3):
            owner = a_user()
            session.add(owner)
            session.flush()
            bought = Transaction(
                user_id=owner.user_id,
                stripe_session_id=f"cs_{number}",
                amount_paid_cents=500,
                credits_added=500,
            )
            session.add(bought)
            session.flush()
            credit_transaction(session, bought, actor="system:test")
            asked: dict[str, Any] = {"user_id": owner.user_id, "actor": "system:test"}
            execute(session, [Spend(**asked, key="a", amount=30, metadata={"slides": number})])
            execute(session, [OpenHold(**asked, key="b", amount=40, expires_in_seconds=9_000)])
            execute(session, [Capture(**asked, key="c", hold_seq=3, amount=10)])
            execute(session, [OpenHold(**asked, key="d", amount=40, expires_in_seconds=9_000)])
            pay(session, owner.user_id, f"pi_{number}", PACKAGES[1])
            tell(session, MoneyBack(f"re_{number}", "refund", f"pi_{number}", "succeeded", 77))
            execute(session, [Spend(**asked, key="e", amount=420)])
            tell(session, MoneyBack(f"dp_{number}", "dispute", f"pi_{number}", "withdrawn", 70))
    list(opening_import.import_openings(SessionLocal))
    opening_import.forbid_negative_balances(SessionLocal)
    return fresh_database


@pytest.fixture
def removed(server: Server) -> Generator[None]:
    """Whatever the page makes on the server is gone after the test."""
    yield
    for name in RESTORED:
        server.drop(name)
    server.execute("DROP ROLE IF EXISTS {}", ROLE)


def shell(server: Server, folder: Path, *blocks: str) -> subprocess.CompletedProcess[str]:
    """Run the page's blocks in one shell, with PostgreSQL's programs and ours on its PATH."""
    path = f"{server.bin_dir}:{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "".join(blocks)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(connection: Connection) -> dict[str, Sequence[str]]:
    """Every row of every table, as text."""
    tables = [*Base.metadata.tables, "alembic_version"]
    query = "SELECT each::text FROM {} AS each ORDER BY 1"
    return {name: connection.scalars(text(query.format(name))).all() for name in tables}


def in_database(name: str) -> tuple[dict[str, Sequence[str]], set[tuple[str, str]]]:
    """The rows of a database on the test's server, and the names of all that its tables have.

    Names: what is read in again may be written in other words, such as a constraint's text.
    """
    url = database_url(get_settings()).set(database=name)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return contents(connection), {(row[0], row[1]) for row in structure(connection)}


@pytest.mark.usefixtures("removed")
@pytest.mark.parametrize(
    ("section", "made"),
    [
        ("Restore into a new database", ("restored", "restored_faster")),
        ("Restore only the rows", ("rows_only", "rows_as_replica")),
    ],
)
def test_the_page_is_true(
    books: ConnectionParameters,
    server: Server,
    tmp_path: Path,
    section: str,
    made: tuple[str, ...],
) -> None:
    """Each way leads to the same rows in the same tables, and all of their books balance."""
    done = shell(server, tmp_path, *BACK_UP, *blocks(section))
    assert done.returncode == 0, done.stderr
    before = in_database(books.database)
    for name in made:
        assert in_database(name) == before
    # The last line: no trigger that is off comes after it.
    assert done.stdout.endswith("All books balance. Users verified: 4.\n")
    for name in made:
        go_on(name)


def go_on(name: str) -> None:
    """What comes next is booked on what was restored, and what the rules forbid is refused."""
    url = database_url(get_settings()).set(database=name)
    with Session(create_engine(url, poolclass=NullPool)) as session:
        for user_id in session.scalars(select(User.user_id)).all():
            execute(session, [grant(user_id, 90), spend(user_id, 5)])
            session.commit()
        check_books(session)
        session.commit()
        for forgery in ("UPDATE credit_lots SET remaining = 9", "DELETE FROM credit_entries"):
            with pytest.raises(DBAPIError, match="LEDGER_UNBALANCED"):
                session.execute(text(forgery))
            session.rollback()


@pytest.mark.usefixtures("removed", "books")
def test_one_table_can_be_looked_up(server: Server, tmp_path: Path) -> None:
    """Its rows are there, without what would keep them from it."""
    done = shell(server, tmp_path, *BACK_UP, *blocks("Look up one table"))
    assert done.returncode == 0, done.stderr
    assert "clawback" in done.stdout


@pytest.mark.usefixtures("removed", "books")
def test_the_services_role_backs_up_and_restores_nothing(server: Server, tmp_path: Path) -> None:
    """Each way of the page is refused as this role."""
    given = f"flashslides db grant-runtime {ROLE}\n"
    password = f'psql "$DATABASE_NAME" --command="ALTER ROLE {ROLE} PASSWORD \'for a test\'"\n'
    as_role = f"export PGUSER={ROLE} PGPASSWORD='for a test'\n"
    done = shell(server, tmp_path, BACK_UP[0], given, password, as_role, BACK_UP[1])
    assert done.returncode == 0, done.stderr
    server.clone("rows_only")
    shell(server, tmp_path, BACK_UP[0], f"DATABASE_NAME=rows_only {given}")
    nothing = in_database("rows_only")
    restore = "pg_restore --exit-on-error --single-transaction --dbname=rows_only"
    psql = "psql --set=ON_ERROR_STOP=1 --dbname=rows_only --command"
    attempts = {
        f"{restore} --no-owner --no-privileges flashslides.dump": "permission denied for schema",
        f"{restore} --data-only --disable-triggers flashslides.dump": "must be owner of table",
        f"{restore} --data-only --table=users flashslides.dump": "LEDGER_UNBALANCED",
        f'{psql}="SET session_replication_role = replica"': "permission denied to set parameter",
        f'{psql}="CREATE DATABASE restored"': "permission denied to create database",
        f'{psql}="ALTER TABLE users DISABLE TRIGGER USER"': "must be owner of table",
    }
    for attempt, reason in attempts.items():
        refused = shell(server, tmp_path, BACK_UP[0], as_role, attempt)
        assert refused.returncode != 0, attempt
        assert reason in refused.stderr, attempt
        assert in_database("rows_only") == nothing


@pytest.mark.usefixtures("removed", "books")
def test_rows_alone_are_refused_while_the_triggers_are_on(server: Server, tmp_path: Path) -> None:
    """All of them, or one table's: the ledger's triggers say why, and nothing stays."""
    [*_, restore] = blocks("Restore only the rows")[0].splitlines()
    assert "--disable-triggers" in restore
    shell(server, tmp_path, *BACK_UP)
    server.clone("rows_only")
    nothing = in_database("rows_only")
    for tables in ("credit_*", "users", "credit_entries"):
        only = "".join(f"--table={name} " for name in Base.metadata.tables if fnmatch(name, tables))
        refused = shell(server, tmp_path, BACK_UP[0], restore.replace("--disable-triggers", only))
        assert refused.returncode == 1
        assert "LEDGER_UNBALANCED" in refused.stderr or "foreign key" in refused.stderr
        assert in_database("rows_only") == nothing
