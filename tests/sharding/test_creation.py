"""Groups are made ahead, all alike, by a command that may be killed; migrations reach each."""

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import get_engine, run_in_database_transaction
from src.common.database_settings import LedgerTriggers
from src.common.exceptions import SettingsError
from src.common.models import Base
from src.common.models.user_group import UserGroup
from src.common.postgres.ledger_triggers_form import is_in_place
from src.common.postgres.migrations import alembic_config, head_revision
from src.common.postgres.runtime_role import grant_runtime
from src.common.postgres.sides import ON_BOTH_SIDES, USERS_TABLES, Side
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.common.sharding import creation
from src.common.sharding.creation import create_groups
from src.common.sharding.groups import list_groups, ready_groups
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, grant, spend
from tests.migrations.commands import copy_of_repository, revisions, start_alembic
from tests.models.examples import a_user
from tests.notices.outbox import EVERYTHING, add_endpoint
from tests.postgres.drivers import open_connection
from tests.sharding.citus_server import DSN, on_one_server
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

DIVIDING = "d8f3a6b20c17"
STRUCTURE = text("""
    SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,
      pg_get_expr(adbin, adrelid) FROM pg_attribute
    LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(:schema))
      AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated,
      NULL FROM pg_constraint WHERE connamespace = to_regnamespace(:schema)
    UNION ALL SELECT tablename, indexname, indexdef, true, NULL
      FROM pg_indexes WHERE schemaname = :schema
    UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(pg_trigger.oid), true, NULL
      FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
      WHERE NOT tgisinternal AND relnamespace = to_regnamespace(:schema)
    UNION ALL SELECT '', proname, pg_get_functiondef(oid), true, NULL
      FROM pg_proc WHERE pronamespace = to_regnamespace(:schema)
    ORDER BY 1, 2, 3""")
TABLES = text("SELECT tablename::text FROM pg_tables WHERE schemaname = :schema")


def structure(schema: str) -> list[tuple[str, ...]]:
    """All that there is in a schema, without its name."""
    with get_engine().connect() as connection:
        rows = connection.execute(STRUCTURE, {"schema": schema}).all()
    return [tuple(str(each).replace(schema, "@here") for each in row) for row in rows]


def fail(*_arguments: object) -> None:
    """Nobody gets beyond this."""
    raise ZeroDivisionError


def tables(schema: str) -> set[str]:
    """The tables of a schema."""
    with get_engine().connect() as connection:
        return set(connection.scalars(TABLES, {"schema": schema}))


def test_public_and_groups_divide_the_tables(groups: ConnectionParameters) -> None:
    """Each table is on its side alone, so none is found in the place of another."""
    assert groups
    everything = {*Base.metadata.tables}
    for group in GROUPS:
        assert tables(group) == USERS_TABLES | {"alembic_version"}
    assert tables("public") == everything - USERS_TABLES | ON_BOTH_SIDES | {"alembic_version"}


def test_groups_are_all_alike(groups: ConnectionParameters) -> None:
    """Columns, constraints, indexes, triggers and functions; and no text names a table in vain."""
    assert groups
    first = structure("g0001")
    assert all(structure(group) == first for group in GROUPS[1:])
    elsewhere = {*Base.metadata.tables} - USERS_TABLES
    named = {f"@here.{table}" for table in elsewhere}
    assert [row for row in first if named & {*" ".join(row).replace("(", " ").split()}] == []


def test_a_group_that_was_begun_is_gone_on_with(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the command was killed: the next one finishes that group as if nothing had been."""
    assert groups
    upgrade = command.upgrade
    before = [each.revision for each in revisions() if each.revision != DIVIDING]
    stops = [before[0], before[len(before) // 2], DIVIDING]

    def stop(config: Any, _revision: str) -> None:
        upgrade(config, stops.pop(0))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", stop)
        while stops:
            with pytest.raises(KeyboardInterrupt):
                list(create_groups(get_settings(), 1))
            with get_engine().connect() as connection:
                assert ready_groups(connection) == GROUPS
    with monkeypatch.context() as patch:
        patch.setattr(creation, "roles_of_service", fail)
        with pytest.raises(ZeroDivisionError):
            list(create_groups(get_settings(), 1))
    assert list(create_groups(get_settings(), 2, is_open=False)) == ["g0009", "g0010"]
    assert structure("g0009") == structure("g0010") == structure("g0001")
    with get_engine().connect() as connection:
        opened = {each.schema: each.is_open for each in list_groups(connection)}
    assert opened == {**dict.fromkeys(GROUPS, True), "g0009": False, "g0010": False}


def test_no_group_is_made_before_the_database_is_divided(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that keeps its users in public stays as it is."""
    assert fresh_database
    monkeypatch.setenv("SHARDING", "schemas")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="db upgrade"):
        list(create_groups(get_settings(), 1))
    with get_engine().connect() as connection:
        assert connection.scalar(text("SELECT to_regnamespace('g0001')")) is None


def test_a_database_with_users_is_not_divided(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and keeps everything; an empty one is divided once."""
    assert fresh_database

    def add(session: Session) -> None:
        session.add(a_user())

    run_in_database_transaction(add)
    monkeypatch.setenv("SHARDING", "schemas")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="users in public has rows"):
        command.upgrade(alembic_config(), "head")
    assert tables("public") >= USERS_TABLES
    with open_connection(fresh_database) as admin:
        admin.execute("DELETE FROM users")
    for _ in range(2):
        command.upgrade(alembic_config(), "head")
        assert not tables("public") & (USERS_TABLES - ON_BOTH_SIDES)


def test_a_divided_database_is_for_those_who_know(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SHARDING=schemas it is not migrated; with it, it is not downgraded."""
    assert groups
    with pytest.raises(CommandError, match="cannot be downgraded"):
        command.downgrade(alembic_config(), "-1")
    monkeypatch.setenv("SHARDING", "none")
    get_settings.cache_clear()
    for attempt in (command.upgrade, command.downgrade):
        with pytest.raises(CommandError, match="set SHARDING=schemas"):
            attempt(alembic_config(), "head")


MIGRATION = '''"""Change a table of {side}."""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss
from src.common.postgres.sides import Side

revision = "{revision}"
down_revision = "{below}"
branch_labels = None
depends_on = None
TABLES_OF = Side.{side}
LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '100ms'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("{table}", sa.Column("later", sa.Integer()))


def downgrade() -> None:
    op.drop_column("{table}", "later")
'''


def test_later_migrations_change_their_side_alone_and_go_on(
    groups: ConnectionParameters, tmp_path: Path
) -> None:
    """A group that is in use when its turn comes is migrated by the next try; the others once."""
    root = copy_of_repository(tmp_path)
    below = head_revision()
    for revision, side, table in (
        ("aaaaaaaaaaaa", "EVERYBODY", "api_keys"),
        ("bbbbbbbbbbbb", "USERS", "users"),
    ):
        written = MIGRATION.format(revision=revision, below=below, side=side, table=table)
        file = root / "alembic" / "versions" / f"2099_01_01_0000-{revision}.py"
        file.write_text(written, encoding="utf-8")
        below = revision
    with open_connection(groups) as other, other.transaction():
        other.execute("LOCK TABLE g0003.users")
        failed = start_alembic("upgrade", "head", root=root)
        failed.communicate(timeout=600)
        assert failed.returncode != 0
    assert later("api_keys") == {"public"}
    assert later("users") == {"g0001", "g0002"}
    done = start_alembic("upgrade", "head", root=root)
    _, logged = done.communicate(timeout=600)
    assert done.returncode == 0, logged
    assert later("api_keys") == {"public"}
    assert later("users") == set(GROUPS)
    assert structure("g0008") == structure("g0001")


def later(table: str) -> set[str]:
    """Where a table has the column of a later migration."""
    statement = text(
        "SELECT table_schema FROM information_schema.columns"
        " WHERE table_name = :table AND column_name = 'later'"
    )
    with get_engine().connect() as connection:
        return set(connection.scalars(statement, {"table": table}))


def test_migrations_after_the_dividing_one_say_whose_tables_they_change() -> None:
    """Without it one of them would run on the wrong side too."""
    after = [each.revision for each in revisions()]
    for migration in revisions()[after.index(DIVIDING) + 1 :]:
        assert migration.module.TABLES_OF in {*Side}


def test_notices_of_a_group_are_told_to_everybodys_endpoints(groups: ConnectionParameters) -> None:
    """The triggers of a group look at the endpoints in public, and write to the group."""
    assert groups
    run_in_database_transaction(lambda session: add_endpoint(session, *EVERYTHING))
    user_id = user_of("g0005", 10)
    with get_engine().connect() as connection:
        told = {
            group: connection.scalar(text(f"SELECT count(*) FROM {group}.credit_notices"))  # noqa: S608
            for group in ("g0004", "g0005")
        }
    assert told["g0004"] == 0
    assert told["g0005"] == 1, user_id


@on_one_server
@pytest.mark.parametrize("form", LedgerTriggers)
def test_both_forms_of_the_triggers_are_put_in_place_in_groups(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch, form: LedgerTriggers
) -> None:
    """By `db upgrade`, and once only; the ledger works in either."""
    assert groups
    monkeypatch.setenv("DATABASE_LEDGER_TRIGGERS", form)
    get_settings.cache_clear()
    command.upgrade(alembic_config(), "head")
    user_id = user_of("g0006", 10)
    with routed_to(user_id):

        def work(session: Session) -> None:
            assert is_in_place(session.connection(), form)
            execute(session, [spend(user_id, 3), grant(user_id, 5)])
            check_books(session)

        run_in_database_transaction(work)


def test_the_services_role_works_in_every_group(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in one that was made after it was granted; and it changes no history there."""
    assert groups
    role = f"service_{groups.database}"[:60]
    with get_engine().begin() as connection:
        grant_runtime(connection, role)
    assert list(create_groups(get_settings(), 1)) == ["g0009"]
    try:
        with open_connection(groups) as admin:
            admin.execute(f"ALTER ROLE {role} PASSWORD 'known'".encode())
        monkeypatch.setenv("DATABASE_USER", role)
        monkeypatch.setenv("DATABASE_PASSWORD", "known")
        get_settings.cache_clear()
        for group in ("g0001", "g0009"):
            user_id = user_of(group, 10)
            with routed_to(user_id), pytest.raises(Exception, match="permission denied"):
                run_in_database_transaction(
                    lambda session: session.execute(text("DELETE FROM credit_entries"))
                )
    finally:
        with open_connection(groups) as admin:
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())


def test_a_role_counts_groups_and_opens_none(fresh_database: ConnectionParameters) -> None:
    """It notes how many users they have, and when it counted; of Citus it has the whole table."""
    role = f"service_{fresh_database.database}"[:60]
    with get_engine().begin() as connection:
        grant_runtime(connection, role)
    may = text(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'user_groups'::regclass AND attnum > 0"
        " AND has_column_privilege(:role, attrelid, attnum, 'UPDATE') ORDER BY 1"
    )
    try:
        with get_engine().connect() as connection:
            columns = connection.scalars(may, {"role": role}).all()
        every = {column.name for column in UserGroup.__table__.columns}
        assert {*columns} == (every if DSN else {"counted_at", "users_count"})
    finally:
        with open_connection(fresh_database) as admin:
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())


def test_a_role_that_was_granted_before_there_were_groups_moves_what_waits(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Money back that comes before its payment, from `public` to a group."""
    role = f"service_{fresh_database.database}"[:60]
    with get_engine().begin() as connection:
        grant_runtime(connection, role)
    monkeypatch.setenv("SHARDING", "schemas")
    get_settings.cache_clear()
    command.upgrade(alembic_config(), "head")
    assert list(create_groups(get_settings(), 1)) == ["g0001"]
    may = text("SELECT has_table_privilege(:role, 'public.stripe_reversals', 'DELETE')")
    try:
        with get_engine().connect() as connection:
            assert connection.scalar(may, {"role": role})
    finally:
        with open_connection(fresh_database) as admin:
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())
