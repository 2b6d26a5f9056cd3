"""The way down: all of it is looked at first, and it is gone to its end or not at all."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script
from alembic.util import CommandError
from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from src.cli.commands import app
from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import Transaction, User
from src.common.postgres.migrations import Loss, current_revision
from src.common.purchases.operations import credit_transaction
from src.common.purchases.reconciliations import purchases_between
from tests.migrations.commands import revisions, start_alembic
from tests.migrations.test_history import structure
from tests.migrations.test_rules import sql_of
from tests.models.right_rows import RIGHT

EVERY_MIGRATION = pytest.mark.parametrize("migration", revisions(), ids=lambda it: it.revision)
BEFORE_THE_LEDGER = "c6134a1d3b72"
BEFORE_THE_TIES = "7e1d4c2b9a58"
DERIVED = {
    "anchor_turns",
    "group_turns",
    "credit_verifications",
    "credit_booking_failures",
    "worker_failures",
    "worker_heartbeats",
    "notice_endpoint_states",
    "console_sessions",
}
"""Tables that say nothing which is not found out again."""
YEARS_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def state(connection: Connection) -> tuple[object, ...]:
    """The whole schema, and the revision that the database says it has."""
    found = structure(connection), current_revision(connection)
    connection.commit()
    return found


def add_user(connection: Connection, **columns: object) -> User:
    """A user who is there by nothing but an INSERT of these columns."""
    values = {**RIGHT[User], **columns}
    user_id = connection.scalar(insert(User).values(values).returning(User.user_id))
    connection.commit()
    return User(user_id=user_id)


def book(owner: User, *, spent: int = 1) -> None:
    """Give the user a grant and a spend."""
    asked: dict[str, Any] = {"user_id": owner.user_id, "actor": "system:test"}
    with SessionLocal.begin() as session:
        execute(session, [Grant(**asked, key="a", amount=100)])
        execute(session, [Spend(**asked, key="b", amount=spent)])


def buy(owner: User, name: str, *, credited: bool) -> None:
    """A purchase, credited by the ledger or written by application code alone."""
    with SessionLocal.begin() as session:
        bought = Transaction(
            user_id=owner.user_id,
            stripe_session_id=name,
            amount_paid_cents=500,
            credits_added=500,
            livemode=False,
        )
        session.add(bought)
        session.flush()
        if credited:
            credit_transaction(session, bought, actor="system:test")


def compared(session: Session) -> list[str]:
    """The purchases that reconciliation compares with Stripe's."""
    until = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    found = purchases_between(
        session, livemode=False, account=None, since=YEARS_AGO, until=until, after=None, limit=100
    )
    return list(found)


def historic(session: Session) -> set[str]:
    """The purchases that are said to be from before the ledger."""
    flagged = select(Transaction.stripe_session_id).where(Transaction.predates_ledger)
    return set(session.scalars(flagged))


@EVERY_MIGRATION
def test_every_migration_says_what_undoing_it_loses(migration: Script) -> None:
    """Each table, column and trigger that its downgrade drops for good is in its declaration."""
    losses: tuple[Loss, ...] = migration.module.LOST_BY_DOWNGRADE
    undoing = sql_of(migration, "downgrade").partition("-- Running downgrade")[2]
    tables = set(re.findall(r"DROP TABLE (\w+)", undoing))
    assert tables - DERIVED <= {loss.table for loss in losses}
    columns = set(re.findall(r"ALTER TABLE (\w+) DROP COLUMN (?:IF EXISTS )?(\w+)", undoing))
    assert columns <= {(loss.table, loss.what) for loss in losses}
    if "DROP TRIGGER" in undoing and not re.search(r"CREATE (CONSTRAINT )?TRIGGER", undoing):
        assert any("triggers" in loss.what for loss in losses)


@EVERY_MIGRATION
def test_every_way_down_is_one_database_transaction(migration: Script) -> None:
    """No downgrade commits before its end: what was looked at first stays as it was until then."""
    assert sql_of(migration, "downgrade").count("COMMIT") == 1


def test_a_refused_downgrade_leaves_everything_as_it_was(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """From each revision: the first migration's rows would go, so no later one is undone."""
    for migration in revisions():
        command.upgrade(alembic_config, migration.revision)
        if migration.down_revision is None:
            add_user(alembic_engine)
        before = state(alembic_engine)
        with pytest.raises(CommandError, match="rows of users; nothing was changed"):
            command.downgrade(alembic_config, "base")
        alembic_engine.rollback()
        assert state(alembic_engine) == before
    assert alembic_engine.scalar(text("SELECT count(*) FROM users")) == 1


def test_all_that_would_be_lost_is_named(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """Each step's own losses, the triggers among them, in the order of the way down."""
    command.upgrade(alembic_config, "head")
    book(add_user(alembic_engine))
    with pytest.raises(CommandError) as refused:
        command.downgrade(alembic_config, "base")
    named = re.findall(r"would lose (.*); nothing", str(refused.value))[0].split(", ")
    assert named == [
        "entry_hash of credit_entries",
        "ledger_id of credit_ledgers",
        "the triggers that guard the rows of credit_entries",
        "rows of credit_entries",
        "rows of credit_postings",
        "rows of credit_lots",
        "rows of users",
    ]


def lose_opening_debt(connection: Connection) -> None:
    """A debt from before the ledger."""
    owner = add_user(connection)
    book(owner)
    forget_hashes(connection)
    debt = text("INSERT INTO credit_debts VALUES (:user_id, 1, 5, 5)")
    connection.execute(debt, {"user_id": owner.user_id})


def forget_hashes(connection: Connection) -> None:
    """As if all entries were from before there were hashes; from here on past the triggers."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    connection.execute(text("UPDATE credit_entries SET entry_hash = NULL"))


def lose_remark(connection: Connection) -> None:
    """An event of Stripe's that the inbox has remarked upon."""
    columns = "livemode, event_id, type, stripe_created_at, remark"
    values = "false, 'evt_1', 't', now(), 'seen'"
    connection.execute(text(f"INSERT INTO stripe_events ({columns}) VALUES ({values})"))  # noqa: S608


def lose_purchase_without_credit(connection: Connection) -> None:
    """A purchase that nobody was credited for, of a user whom the ledger does not know yet."""
    buy(add_user(connection), "cs_alone", credited=False)


@pytest.mark.parametrize(
    ("make", "lost"),
    [
        (lose_opening_debt, "opening_debt of credit_debts"),
        (lose_remark, "remark of stripe_events"),
        (lose_purchase_without_credit, "predates_ledger of transactions"),
    ],
)
def test_a_column_is_lost_only_where_it_says_something(
    alembic_config: Config,
    alembic_engine: Connection,
    make: Callable[[Connection], None],
    lost: str,
) -> None:
    """One row with a value is enough to be asked, with every table kept."""
    below = "2fc471da6c01"
    command.upgrade(alembic_config, "head")
    make(alembic_engine)
    alembic_engine.commit()
    before = state(alembic_engine)
    with pytest.raises(CommandError, match=f"would lose {lost}; nothing"):
        command.downgrade(alembic_config, below)
    alembic_engine.rollback()
    assert state(alembic_engine) == before


def test_the_refusal_names_the_option_of_the_command(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """`flashslides db downgrade` and plain `alembic` each name their own way to insist."""
    command.upgrade(alembic_config, "head")
    add_user(alembic_engine)
    ours = CliRunner().invoke(app, ["db", "downgrade", "base"])
    assert ours.exit_code == 1
    assert "flashslides db downgrade … --allow-data-loss" in ours.output
    assert "-x" not in ours.output
    theirs = start_alembic("downgrade", "base")
    said = " ".join(
        "".join(theirs.communicate(timeout=600)).split()
    )  # wrapped to a terminal's width
    assert theirs.returncode != 0
    assert "alembic -x allow-data-loss=true downgrade …" in said


def test_printed_sql_asks_as_well(
    alembic_config: Config,
    alembic_engine: Connection,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What `downgrade … --sql` prints changes nothing where it would lose a row."""
    command.upgrade(alembic_config, "head")
    add_user(alembic_engine)
    before = state(alembic_engine)
    alembic_config.output_buffer = None
    command.downgrade(alembic_config, "head:base", sql=True)
    printed = capsys.readouterr().out
    assert "RAISE EXCEPTION 'This downgrade would lose rows of users'" in printed
    raw = alembic_engine.connection.driver_connection
    assert isinstance(raw, PsycopgConnection)
    raw.autocommit = True
    with pytest.raises(Exception, match="would lose rows of users"):
        raw.execute(printed.encode())
    raw.rollback()
    raw.autocommit = False
    assert state(alembic_engine) == before


def test_a_stamp_over_an_unknown_revision_is_no_way_down(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """`stamp --purge` forgets a revision that nobody knows, with rows in every table."""
    command.upgrade(alembic_config, "head")
    add_user(alembic_engine)
    alembic_engine.execute(text("UPDATE alembic_version SET version_num = 'unknown'"))
    alembic_engine.commit()
    command.stamp(alembic_config, BEFORE_THE_TIES, purge=True)
    assert current_revision(alembic_engine) == BEFORE_THE_TIES
    alembic_engine.rollback()
    command.stamp(alembic_config, BEFORE_THE_LEDGER)
    assert current_revision(alembic_engine) == BEFORE_THE_LEDGER


def test_down_and_up_again_keeps_what_predates_the_ledger(
    alembic_config: Config, alembic_engine: Connection
) -> None:
    """Only what has no lot and was there before its user's first entry; the rest is compared."""
    command.upgrade(alembic_config, BEFORE_THE_LEDGER)
    old = add_user(alembic_engine, credits_balance=500)
    columns = "user_id, stripe_session_id, amount_paid_cents, credits_added, livemode"
    bought = text(f"INSERT INTO transactions ({columns}) VALUES (:id, 'cs_old', 500, 500, false)")  # noqa: S608
    alembic_engine.execute(bought, {"id": old.user_id})
    alembic_engine.commit()
    command.upgrade(alembic_config, "head")
    new = add_user(alembic_engine, email="new@example.com")
    for owner in (old, new):
        book(owner)
        for number in range(3):
            buy(owner, f"cs_{owner.user_id}_{number}", credited=True)
        buy(owner, f"cs_{owner.user_id}_alone", credited=False)
    with SessionLocal.begin() as session:
        before = historic(session), compared(session)
    assert before[0] == {"cs_old"}
    assert len(before[1]) == 8
    forget_hashes(alembic_engine)
    alembic_engine.commit()
    command.downgrade(alembic_config, BEFORE_THE_TIES)
    command.upgrade(alembic_config, "head")
    with SessionLocal.begin() as session:
        assert (historic(session), compared(session)) == before
