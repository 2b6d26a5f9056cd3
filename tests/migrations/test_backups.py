"""`docs/how-to/back-up-and-restore.md`: its commands as they stand, and what it warns of."""

import os
import re
import subprocess
from collections.abc import Generator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text

from src.common.credits.commands import OpenHold, Spend
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.engines import database_url
from src.common.models import Base, Transaction
from src.common.purchases.operations import credit_transaction
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import Server
from tests.migrations.commands import PROGRAMS, REPOSITORY
from tests.migrations.test_history import structure
from tests.models.examples import a_user

PAGE = (REPOSITORY / "docs/how-to/back-up-and-restore.md").read_text(encoding="utf-8")
RESTORED = ("restored", "restored_faster", "rows_only", "rows_as_replica")
ROLE = "flashslides_service"


def blocks(section: str) -> list[str]:
    """What the page says to type in one of its sections; before the first one, without a name."""
    for part in re.split(r"^## ", f"\n{PAGE}", flags=re.MULTILINE):
        if part.startswith(section):
            return re.findall(r"^```bash\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    raise AssertionError(section)


BACK_UP = (*blocks("\n#"), *blocks("Back up"))


@pytest.fixture
def books(fresh_database: ConnectionParameters) -> ConnectionParameters:
    """A database with purchases, spends and holds of several users."""
    with SessionLocal.begin() as session:
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
            execute(session, [Spend(**asked, key="a", amount=30)])
            execute(session, [OpenHold(**asked, key="b", amount=40, expires_in_seconds=9_000)])
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
        ("Restore", ("restored", "restored_faster")),
        ("Only the rows", ("rows_only", "rows_as_replica")),
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
    assert done.stdout.endswith("All books balance. Users verified: 3.\n")


@pytest.mark.usefixtures("removed", "books")
def test_rows_alone_are_refused_while_the_triggers_are_on(server: Server, tmp_path: Path) -> None:
    """All of them, or one table's: the ledger's triggers say why, and nothing stays."""
    [*_, restore] = blocks("Only the rows")[0].splitlines()
    assert "--disable-triggers" in restore
    shell(server, tmp_path, *BACK_UP)
    server.clone("rows_only")
    nothing = in_database("rows_only")
    for tables in ("credit_*", "users", "credit_entries"):
        only = "".join(f"--table={name} " for name in Base.metadata.tables if fnmatch(name, tables))
        refused = shell(server, tmp_path, BACK_UP[0], restore.replace("--disable-triggers", only))
        assert refused.returncode == 1
        assert "LEDGER_UNBALANCED" in refused.stderr
        assert in_database("rows_only") == nothing
