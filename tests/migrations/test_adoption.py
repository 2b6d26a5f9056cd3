"""A database made by the document's own models comes over, and goes back, without losing a row."""

import functools
import json
import re
import shlex
import uuid
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Enum, NullPool, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Session
from typer.testing import CliRunner

from src.cli.commands import app
from src.common.credits.domain.commands import OpenHold, Spend
from src.common.credits.opening import opening_import
from src.common.credits.opening.opening_import import ImportReport
from src.common.credits.operations import execute
from src.common.credits.verification import verify
from src.common.database import SessionLocal, dispose_db
from src.common.exceptions import SettingsError
from src.common.postgres.adoption import FIRST_REVISION, adopt
from src.common.postgres.engines import database_url
from src.common.postgres.migrations import alembic_config as our_alembic_config
from src.common.postgres.migrations import current_revision
from src.common.settings import get_settings
from tests.document.document import run
from tests.fixtures.databases import Server
from tests.migrations.commands import REPOSITORY
from tests.migrations.test_history import structure

PAGE = (REPOSITORY / "docs/how-to/bring-a-database-over.md").read_text(encoding="utf-8")
BALANCES = (500, 1, 0, -1, -300, 2**31 - 1, -(2**31) + 1)
NAMED = functools.partial(Enum, name="enum_user_type")
"""The document's enum is anonymous, which PostgreSQL refuses: whoever runs it gave it some name."""


class Theirs(DeclarativeBase):
    """A registry of its own for the models exactly as the document writes them."""


USER = run("User", Base=Theirs, Enum=NAMED)["User"]
TRANSACTION = run("Transaction", Base=Theirs)["Transaction"]


@pytest.fixture
def theirs(alembic_engine: Connection) -> Connection:
    """The document's database: users with all kinds of balances, two purchases each."""
    Theirs.metadata.create_all(alembic_engine)
    with Session(alembic_engine) as session:
        for number, balance in enumerate(BALANCES):
            extra: dict[str, Any] = {"preferences": None} if number % 2 else {"is_active": None}
            user = USER(
                email=f"User{number}@example.com",
                password_hash="managed_externally",
                credits_balance=balance,
                **extra,
            )
            session.add(user)
            session.flush()
            session.add_all(
                TRANSACTION(
                    user_id=user.user_id,
                    stripe_session_id=f"cs_{number}_{each}",
                    amount_paid_cents=900,
                    credits_added=1000,
                )
                for each in range(2)
            )
        session.commit()
    alembic_engine.commit()
    return alembic_engine


def run_as_written(line: str) -> str:
    """Run a command of the page; what it printed."""
    program, *arguments = shlex.split(line)
    assert program == "flashslides"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def take_over(connection: Connection) -> None:
    """Adopt and upgrade."""
    adopt(connection, lambda _step: None)
    connection.execution_options(isolation_level="READ COMMITTED")
    command.upgrade(our_alembic_config(connection), "head")


def import_all(batch_size: int = 3) -> ImportReport:
    """Open everybody and compare."""
    opened = list(opening_import.import_openings(SessionLocal, batch_size=batch_size))
    report = opened[-1] if opened else ImportReport()
    for _ in opening_import.compare(SessionLocal, report, batch_size=batch_size):
        pass
    if not report.differences:
        opening_import.forbid_negative_balances(SessionLocal)
    return report


def net_balances(connection: Connection) -> dict[str, int]:
    """Balance less debt, by e-mail."""
    rows = connection.execute(
        text(
            "SELECT email, credits_balance - (SELECT coalesce(sum(outstanding), 0)"
            " FROM credit_debts d WHERE d.user_id = u.user_id) FROM users u"
        )
    )
    net = {email: int(balance) for email, balance in rows}
    connection.commit()
    return net


EXPECTED = {f"User{number}@example.com": balance for number, balance in enumerate(BALANCES)}


def test_the_adopted_schema_is_the_migrations_own(theirs: Connection, server: Server) -> None:
    """Once imported, nothing but the order of columns tells it from a database made by us."""
    take_over(theirs)
    import_all()
    name = f"ours_{uuid.uuid4().hex[:8]}"
    server.clone(name)
    url = database_url(get_settings()).set(database=name)
    ours_engine = create_engine(url, poolclass=NullPool)
    with ours_engine.connect() as ours:
        assert structure(theirs) == structure(ours)
    server.drop(name)


def test_every_row_comes_over_and_no_balance_changes(theirs: Connection) -> None:
    """Balance less debt is the old column for everybody; both purchases are historic."""
    take_over(theirs)
    report = import_all()
    assert (report.opened, report.compared, report.differences) == (len(BALANCES),) * 2 + (0,)
    assert (report.credits, report.debt) == (500 + 1 + 2**31 - 1, 1 + 300 + 2**31 - 1)
    assert net_balances(theirs) == EXPECTED
    counts = text("SELECT count(*) FILTER (WHERE predates_ledger), count(*) FROM transactions")
    assert theirs.execute(counts).one() == (14, 14)
    theirs.commit()
    *_, books = verify.verify(SessionLocal)
    assert (books.users, books.differences, books.without_opening_entry) == (len(BALANCES), 0, 0)
    again = import_all()
    assert (again.opened, again.differences) == (0, 0)


def test_an_import_cut_short_goes_on(theirs: Connection) -> None:
    """Each batch is whole; the rest is opened by the next run, or by the first operation."""
    take_over(theirs)
    first = next(opening_import.import_openings(SessionLocal, batch_size=3))
    assert first.opened == 3
    users = text("SELECT user_id FROM users WHERE credits_version = 0 AND credits_balance = 500")
    rest = theirs.scalars(users).all()
    theirs.commit()
    for user_id in rest:
        with SessionLocal.begin() as session:
            execute(session, [Spend(user_id=user_id, key="a", actor="system:test", amount=1)])
    report = import_all()
    assert report.opened == len(BALANCES) - 3 - len(rest)
    assert (report.compared, report.differences) == (len(BALANCES), 0)


def test_a_dry_run_writes_nothing(theirs: Connection) -> None:
    """It counts what would be opened."""
    take_over(theirs)
    *_, report = opening_import.import_openings(SessionLocal, batch_size=2, dry_run=True)
    assert report.opened == len(BALANCES)
    assert theirs.scalar(text("SELECT count(*) FROM credit_entries")) == 0


def test_a_difference_is_found_and_named(theirs: Connection) -> None:
    """A debt that somebody changed behind the ledger's back."""
    take_over(theirs)
    import_all()
    theirs.execute(text("SET LOCAL session_replication_role = replica"))
    theirs.execute(text("UPDATE credit_debts SET outstanding = 299 WHERE outstanding = 300"))
    theirs.commit()
    report = import_all()
    assert (report.differences, report.expected, report.found) == (1, -300, -299)
    assert report.first_difference is not None


def test_a_negative_balance_is_no_obstacle_before_the_import(theirs: Connection) -> None:
    """A debtor's row can be changed meanwhile: the CHECK comes with the import."""
    take_over(theirs)
    theirs.execute(text("UPDATE users SET last_login_at = now()"))
    theirs.commit()
    import_all()
    validated = text(
        "SELECT convalidated FROM pg_constraint"
        " WHERE conname = 'ck_users_credits_balance_not_negative'"
    )
    assert theirs.scalars(validated).all() == [True]


def test_the_way_back_keeps_the_balances(theirs: Connection) -> None:
    """By the page's commands, down to the document's tables: holds given back, less debts."""
    take_over(theirs)
    import_all()
    rich = text("SELECT user_id FROM users WHERE email = 'User0@example.com'")
    user_id = theirs.scalars(rich).one()
    theirs.commit()
    asked: dict[str, Any] = {"user_id": user_id, "actor": "system:test"}
    with SessionLocal.begin() as session:
        execute(
            session,
            [
                Spend(**asked, key="a", amount=100),
                OpenHold(**asked, key="b", amount=50, expires_in_seconds=600),
            ],
        )
    [way_back] = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in way_back.splitlines():
        run_as_written(line)
    assert current_revision(theirs) == FIRST_REVISION
    theirs.commit()
    with Session(theirs) as session:
        balances = {user.email: user.credits_balance for user in session.scalars(select(USER))}
        assert balances == EXPECTED | {"User0@example.com": 400}
        session.get_one(USER, user_id).credits_balance += 1000
        session.commit()
    theirs.commit()
    command.upgrade(our_alembic_config(theirs), "head")
    assert import_all().differences == 0
    assert net_balances(theirs) == EXPECTED | {"User0@example.com": 1400}


@pytest.mark.parametrize("statement", ["", "DROP INDEX ix_users_company"])
def test_adoption_can_be_run_again_after_it_was_killed(
    theirs: Connection, alembic_config: Config, statement: str
) -> None:
    """Whatever was done stays done."""
    adopt(theirs, lambda _step: None)
    theirs.execute(text("DROP TABLE alembic_version"))
    if statement:
        theirs.execute(text(statement))
    theirs.commit()
    adopt(theirs, lambda _step: None)
    theirs.execution_options(isolation_level="READ COMMITTED")
    command.upgrade(alembic_config, "head")
    command.check(alembic_config)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE users SET email = 'USER1@EXAMPLE.COM' WHERE credits_balance = 500", "case"),
        ("UPDATE users SET preferences = '[]' WHERE credits_balance = 500", "JSON object"),
        ("UPDATE transactions SET credits_added = 0", "no credits"),
        ("ALTER TABLE users ALTER user_type TYPE varchar", "no enum"),
        ("DROP TABLE transactions", "no table transactions"),
    ],
)
def test_what_cannot_come_over_is_named_and_nothing_changed(
    theirs: Connection, damage: str, problem: str
) -> None:
    """Its owner mends it and adopts again."""
    theirs.execute(text(damage))
    theirs.commit()
    before = structure(theirs)
    theirs.commit()
    with pytest.raises(SettingsError, match=problem):
        adopt(theirs, lambda _step: None)
    assert structure(theirs) == before


def test_our_own_database_is_not_adopted(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """It has a revision."""
    command.upgrade(alembic_config, "head")
    with pytest.raises(SettingsError, match="ours already"):
        adopt(alembic_engine, lambda _step: None)


def test_the_commands_do_it_all(theirs: Connection) -> None:
    """The page's three commands, a dry run before the last: on one database."""
    assert theirs
    steps = re.findall(r"^\| \d \| (.*?) \|", PAGE, re.MULTILINE)
    adopting, upgrading, importing = re.findall(r"`(flashslides .*?)`", " ".join(steps))
    assert "Adopted" in run_as_written(adopting)
    run_as_written(upgrading)
    dry = json.loads(run_as_written(f"{importing} --json --dry-run"))
    assert (dry["opened"], dry["compared"], dry["dry_run"]) == (len(BALANCES), 0, True)
    done = json.loads(run_as_written(f"{importing} --json --batch-size 2"))
    assert (done["opened"], done["differences"]) == (len(BALANCES), 0)
    theirs.execute(text("SET LOCAL session_replication_role = replica"))
    theirs.execute(text("UPDATE credit_debts SET outstanding = 299 WHERE outstanding = 300"))
    theirs.commit()
    assert CliRunner().invoke(app, shlex.split(importing)[1:]).exit_code == 1


UNBOOKABLE = (
    "UPDATE users SET credits_version = 1 WHERE email IN ('User1@example.com', 'User4@example.com')"
)
MENDED = UNBOOKABLE.replace("credits_version = 1", "credits_version = 0")


def behind_the_ledgers_back(connection: Connection, statement: str) -> None:
    """A superuser's change, past all triggers."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    connection.execute(text(statement))
    connection.commit()


@pytest.mark.parametrize("batch_size", ["1", "500"])
def test_who_cannot_be_opened_keeps_nobody_else_from_it(
    theirs: Connection, batch_size: str
) -> None:
    """The others are opened; the two are counted, named and noted, until somebody mended them."""
    take_over(theirs)
    behind_the_ledgers_back(theirs, UNBOOKABLE)
    importing = ("credits", "import-opening-balances", "--batch-size", batch_size)
    runner = CliRunner()
    done = runner.invoke(app, [*importing, "--json"])
    assert done.exit_code == 1, done.output
    report = json.loads(done.stdout)
    assert (report["opened"], report["not_opened"]) == (len(BALANCES) - 2, 2)
    emails = text("SELECT user_id, email FROM users WHERE email LIKE 'User_@example.com'")
    names = {str(user_id): email for user_id, email in theirs.execute(emails)}
    damaged = {names[each["user_id"]]: each["error_type"] for each in report["first_not_opened"]}
    # There is no entry before theirs, and so no hash to follow.
    assert damaged == dict.fromkeys(("User1@example.com", "User4@example.com"), "LEDGER_UNBALANCED")
    noted = text("SELECT count(*) FROM credit_booking_failures WHERE attempts = 1")
    assert theirs.scalar(noted) == 2
    theirs.commit()
    said = runner.invoke(app, importing)
    assert said.exit_code == 1
    assert all(each["user_id"] in said.stdout for each in report["first_not_opened"])
    behind_the_ledgers_back(theirs, MENDED)
    mended = json.loads(runner.invoke(app, [*importing, "--json"]).stdout)
    assert (mended["opened"], mended["not_opened"], mended["differences"]) == (2, 0, 0)
    assert theirs.scalar(text("SELECT count(*) FROM credit_booking_failures")) == 0
    theirs.commit()
    assert net_balances(theirs) == EXPECTED


def test_a_locked_user_is_left_to_the_next_import(
    theirs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named as not opened, and not noted: there is nothing wrong with their books."""
    take_over(theirs)
    monkeypatch.setenv("DATABASE_LOCK_TIMEOUT_MS", "50")
    get_settings.cache_clear()
    dispose_db()
    locking = "SELECT user_id FROM users WHERE email = 'User4@example.com' FOR UPDATE"
    locked = theirs.scalar(text(locking))
    *_, report = opening_import.import_openings(SessionLocal)
    theirs.rollback()
    assert report.opened == len(BALANCES) - 1
    assert [(each.user_id, each.error_type) for each in report.first_not_opened] == [
        (locked, "DATABASE_BUSY")
    ]
    again = import_all()
    assert (again.opened, again.not_opened, again.differences) == (1, 0, 0)
    assert theirs.scalar(text("SELECT count(*) FROM credit_booking_failures")) == 0
