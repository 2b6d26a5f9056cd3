"""What is in service is neither emptied by a copy, nor kept waiting, nor left closed."""

import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.exceptions import Conflict, DatabaseBusy, Inconsistent, SettingsError
from src.common.models import ApiKey, Base, StripeEvent, UnmatchedPayment, User
from src.common.postgres.routes import routed_to_schema
from src.common.sharding.copying import databases
from tests.credits.books import grant
from tests.models.examples import a_user
from tests.models.right_rows import RIGHT
from tests.postgres.drivers import open_connection, until
from tests.sharding.citus_server import on_one_server
from tests.sharding.copied import Two, fill, last_of, two

__all__ = ["two"]

WAITS = """SELECT count(*) > 0 FROM pg_locks JOIN pg_database ON pg_database.oid = database
  WHERE NOT granted AND datname = current_database()"""


def test_who_signs_up_just_then_is_kept(two: Two) -> None:
    """A sign-up that was begun is waited for: the database is in service, and is not closed."""
    with (
        two.copying(two.old) as copy,
        open_connection(two.old) as admin,
        ThreadPoolExecutor(1) as thread,
        SessionLocal() as session,
    ):
        session.add(a_user())
        session.flush()
        copied = thread.submit(lambda: last_of(copy.copy()))
        until(admin, WAITS)
        session.commit()
        with pytest.raises(Conflict, match="in service"):
            copied.result()
        session.add(a_user())
        session.commit()
        assert session.query(User).count() == 2


@pytest.mark.parametrize("model", [StripeEvent, UnmatchedPayment])
def test_what_stripe_told_is_kept(two: Two, model: type[Base]) -> None:
    """A service that has no user yet is in service once Stripe told it something."""
    two.use(two.old)
    with SessionLocal.begin() as session:
        session.add(model(**RIGHT[model]))
    with pytest.raises(Conflict, match="in service"):
        two.copied(two.old)
    with SessionLocal() as session:
        assert session.query(model).count() == 1


def test_who_reads_here_keeps_no_database_closed(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening waits for readers as long as its patience is, while the source can go on."""
    monkeypatch.setattr(databases, "_LOCK_TRIES", 1)
    two.use(two.old)
    [user_id] = fill(1)
    with open_connection(two.divided) as reader, reader.transaction():
        reader.execute("SELECT FROM group_turns")
        with pytest.raises(DatabaseBusy, match="repeat the command"):
            two.copied(two.divided, cut_over=True)
    two.use(two.old)
    with SessionLocal.begin() as session:
        execute(session, [grant(user_id, 1)])
    assert two.copied(two.divided, cut_over=True).is_same


def test_what_was_made_anew_is_copied(two: Two) -> None:
    """Under another primary key, with what is unique: the row that is gone makes room first."""
    two.use(two.old)
    with SessionLocal.begin() as session:
        session.add(ApiKey(**RIGHT[ApiKey]))
    two.copied(two.divided)
    two.use(two.old)
    with SessionLocal.begin() as session:
        session.query(ApiKey).delete()
        session.add(ApiKey(**RIGHT[ApiKey]))
    assert two.copied(two.divided, cut_over=True).is_same


def test_a_row_that_is_refused_is_not_shown(two: Two) -> None:
    """PostgreSQL's sentence names the constraint; what is in the row stays where it is."""
    two.use(two.old)
    fill(1)
    with open_connection(two.divided) as admin:
        admin.execute(
            "ALTER TABLE g0001.users ADD CONSTRAINT not_there CHECK (email NOT LIKE '%@%');"
            "ALTER TABLE g0002.users ADD CONSTRAINT not_there CHECK (email NOT LIKE '%@%');"
            "ALTER TABLE g0003.users ADD CONSTRAINT not_there CHECK (email NOT LIKE '%@%')"
        )
    with pytest.raises(Inconsistent, match="not_there") as refused:
        two.copied(two.divided)
    assert refused.value.error_type == "COPY_REFUSED"
    shown = "".join(traceback.format_exception(refused.value))
    assert "example.com" not in shown


def test_whoever_has_an_id_is_copied(two: Two) -> None:
    """The lowest, too, which is no user's by chance."""
    two.use(two.old)
    with SessionLocal.begin() as session:
        session.add(a_user(user_id=uuid.UUID(int=0)))
    there = two.copied(two.divided, cut_over=True)
    assert (there.users, there.is_same) == (1, True)
    assert two.copied(two.old, cut_over=True).users == 1


@pytest.mark.parametrize("is_source", [True, False])
def test_rows_of_nobody_stop_the_cut_over(two: Two, *, is_source: bool) -> None:
    """Of a user whom the directory does not have, in the source or here."""
    two.use(two.divided if is_source else two.old)
    route = routed_to_schema("g0001") if is_source else nullcontext()
    with route, SessionLocal.begin() as session:
        session.add(a_user())
    into = two.old if is_source else two.divided
    two.copied(into)
    with open_connection(two.divided) as divided, open_connection(two.old) as old:
        divided.execute("SET session_replication_role = replica")
        divided.execute("DELETE FROM users_directory")
        old.execute("SET session_replication_role = replica")
        old.execute("DELETE FROM users")
    with pytest.raises(Inconsistent, match="rows of nobody in users") as refused:
        two.copied(into, cut_over=True)
    assert refused.value.error_type == "COPY_DIFFERS"


@on_one_server
@pytest.mark.parametrize("at", ["source", "here"])
def test_nothing_is_copied_from_or_to_citus(two: Two, at: str) -> None:
    """Its workers number notices by themselves. Here the server only says that it is one."""
    with open_connection(two.old if at == "source" else two.divided) as admin:
        admin.execute("SET allow_system_table_mods = on")
        admin.execute(
            "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,"
            " extversion) VALUES (16000, 'citus', 10, 'public'::regnamespace, false, '14')"
        )
    with (
        pytest.raises(SettingsError, match=r"(?i)(the source|this database) is on Citus"),
        two.copying(two.divided) as copy,
    ):
        raise AssertionError(copy)


def test_a_copy_has_no_time_out(two: Two) -> None:
    """Of those that the server has: a whole comparison is one database transaction."""
    with open_connection(two.old) as admin:
        database = Identifier(two.old.database)
        has_one = admin.info.server_version >= 170_000
        for name in ("statement_timeout", *["transaction_timeout"] * has_one):
            admin.execute(SQL("ALTER DATABASE {} SET {} = '1h'").format(database, Identifier(name)))
    with two.copying(two.divided) as copy, copy.source.held():
        found = copy.source.raw.execute(
            "SELECT setting FROM pg_settings"
            " WHERE name IN ('statement_timeout', 'transaction_timeout')"
        ).fetchall()
        assert found == [("0",)] * len(found)


def test_a_snapshot_is_never_of_an_older_moment(two: Two) -> None:
    """Within another database transaction there is none, unless nobody else writes."""
    with two.copying(two.divided) as copy:
        with copy.source.held(), copy.source.snapshot():
            assert copy.source.count_users() == 0
        copy.source.count_users()
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), copy.source.snapshot():
            raise AssertionError
