"""A database in service is copied into groups, and out of them, and both are the same."""

import os
import uuid
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine
from src.common.exceptions import Conflict, Inconsistent, SettingsError
from src.common.models import CheckoutOrder, CreditNotice, User
from src.common.postgres.errors import DATABASE_CLOSED, RetryableDatabaseError
from src.common.postgres.sides import USERS_TABLES
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.common.sharding.copying import passes
from src.common.sharding.copying.copy import opened
from src.common.sharding.copying.databases import Database
from src.common.sharding.copying.parity import Parity
from src.common.sharding.directory_check import directory_differences
from tests.cli.processes import Program
from tests.credits.books import grant, spend
from tests.credits.model_values import MoneyBack
from tests.credits.stripe_side import PACKAGES, pay, tell
from tests.models.examples import a_user
from tests.models.right_rows import RIGHT
from tests.postgres.drivers import open_connection, until
from tests.sharding.copied import THREE, Two, digests, fill, last_of, two
from tests.sharding.people import user_of
from tests.sharding.service import check_all_books, count_entries

__all__ = ["two"]


def test_what_goes_into_groups_and_back_is_the_same(two: Two) -> None:
    """Every row of every table, of users and of everybody; the books balance on the way."""
    two.use(two.old)
    users = fill()
    there = two.copied(two.divided, cut_over=True)
    assert (there.users, there.users_copied, there.is_same) == (len(users), len(users), True)
    assert {name for name in USERS_TABLES if there.of(name).here.rows} == USERS_TABLES
    assert check_all_books(THREE) == len(users)
    back = two.copied(two.old, cut_over=True)
    assert (back.users_copied, back.shared_rows_copied, back.users_removed) == (0, 0, 0)
    assert digests(back) == digests(there) == digests(there, "source")


def test_work_goes_on_wherever_the_users_are(two: Two) -> None:
    """After the copy into groups, and after the way back: notices are numbered on, too."""
    two.use(two.old)
    users = fill(3)
    for into in (two.divided, two.old, two.divided):
        two.copied(into, cut_over=True)
        for user_id in users:
            with routed_to(user_id), SessionLocal.begin() as session:
                execute(session, [grant(user_id, 5)])
        if into is two.divided:
            users += [user_of("g0001", 5), user_of("g0002", 5)]
    assert check_all_books(THREE) == len(users)
    for user_id in users:
        with routed_to(user_id), SessionLocal() as session:
            told = session.query(CreditNotice).filter_by(user_id=user_id)
            seqs = [each.seq for each in told.order_by(CreditNotice.number) if each.seq]
            assert seqs == sorted(seqs)


def change_much(users: list[uuid.UUID]) -> None:
    """What people do meanwhile: who is new, who changes, whose e-mails go from one to another."""
    with SessionLocal.begin() as session:
        people = {each.user_id: each for each in session.query(User)}
        first, second, third = (people[each] for each in users[:3])
        emails = first.email, second.email
        first.email, first.stripe_customer_id = "somewhere@example.com", "cus_else"
        session.flush()
        second.email, second.stripe_customer_id = emails[0], "cus_0"
        session.flush()
        first.email, first.stripe_customer_id = emails[1], "cus_1"
        third.preferences = {"company": "Renamed"}
        pay(session, first.user_id, "pi_unknown", PACKAGES[1])  # for which money back waits
        session.add(a_user(email="newcomer@example.com"))
        session.execute(text("DELETE FROM users WHERE email = 'gone@example.com'"))
        execute(session, [spend(users[3], 1), grant(users[4], 9)])
        session.execute(
            text("DELETE FROM charged_requests WHERE user_id = :who"), {"who": users[5]}
        )
        session.execute(text("DELETE FROM api_keys"))
        tell(session, MoneyBack("re_waits_too", "refund", "pi_nobody", "succeeded", 5))


def test_what_changes_meanwhile_comes_with_a_later_pass(two: Two) -> None:
    """The source is in service; what was copied before is copied anew where it changed, only."""
    two.use(two.old)
    users = fill(6)
    with SessionLocal.begin() as session:
        session.add(a_user(email="gone@example.com"))  # who never had credits may go
        execute(session, [grant(users[3], 50)])
    assert two.copied(two.divided).users_copied == 7
    two.use(two.old)
    change_much(users)
    compared = two.compared(two.divided)
    assert (compared.users_copied, compared.users_removed, compared.is_same) == (0, 1, False)
    again = two.copied(two.divided, cut_over=True)
    assert (again.users, again.users_copied, again.users_removed) == (7, 7, 1)
    assert again.is_same
    with two.copying(two.divided) as copy:
        assert list(directory_differences(copy.here.connection)) == []
    assert check_all_books(THREE) == 7


class Killed(BaseException):
    """As if the process had gone."""


def steps_of(steps: Generator[Parity], most: int) -> int:
    """How many database transactions are committed; none beyond so many."""
    done = 0
    commit = Database.commit

    def until_killed(database: Database) -> None:
        nonlocal done
        if done == most:
            raise Killed
        done += 1
        commit(database)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(Database, "commit", until_killed)
        last_of(steps)
    return done


def test_wherever_it_is_interrupted_it_goes_on(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two of its database transactions: the source goes on until it is closed.

    Nothing is doubled.
    """
    monkeypatch.setattr(passes, "USERS_A_PORTION", 3)
    two.use(two.old)
    users = fill(6)
    with two.copying(two.divided) as copy:
        steps = steps_of(copy.copy(), 1_000)
    assert steps > 10
    for most in (0, steps // 2, steps - 2, steps - 1, steps):
        two.use(two.old)
        assert not refuses(users[0])
        with two.copying(two.divided) as copy:
            assert steps_of(copy.cut_over(), most) == most
    two.use(two.old)
    assert refuses(users[0])
    two.use(two.divided)
    with routed_to(users[0]):
        assert refuses(users[0])
    assert two.copied(two.divided, cut_over=True).is_same
    with routed_to(users[0]):
        assert not refuses(users[0])
    assert check_all_books(THREE) == 6


def refuses(user_id: uuid.UUID) -> bool:
    """Whether the database of the settings refuses writes, as one that is read-only."""
    with SessionLocal() as session:
        try:
            execute(session, [grant(user_id, 1)])
            session.commit()
        except RetryableDatabaseError as error:
            return error.reason == DATABASE_CLOSED
    return False


def test_an_acknowledged_write_is_there_after_the_cut_over(two: Two) -> None:
    """A writer goes on all the time: what it was told is booked, is booked; the rest is refused."""
    two.use(two.old)
    users = fill(3)
    with SessionLocal.begin() as session:
        execute(session, [grant(each, 1_000_000) for each in users])
    engine = get_engine()
    entries = [count_entries(each) for each in users]
    written: list[int] = []
    begun = Event()

    def write() -> None:
        with Session(engine) as session:
            for number in range(100_000):
                try:
                    execute(session, [spend(users[number % 3], 1)])
                    session.commit()
                except RetryableDatabaseError as error:
                    session.rollback()
                    if error.reason == DATABASE_CLOSED:
                        return
                else:
                    written.append(number)
                    begun.set()

    writer = Thread(target=write)
    with engine.connect():  # the settings' change closes what is idle only
        writer.start()
        assert begun.wait(60)
        two.copied(two.divided)
        before = len(written)
        parity = two.copied(two.divided, cut_over=True)
        writer.join(60)
    assert not writer.is_alive()
    assert len(written) >= before > 0
    assert parity.is_same
    assert sum(map(count_entries, users)) == len(written) + sum(entries)
    assert check_all_books(THREE) == 3


def test_nothing_is_written_over_a_database_in_service(two: Two) -> None:
    """Neither one with users that is open, nor after the cut-over; and not itself."""
    two.use(two.divided)
    user_of("g0001", 5)
    two.use(two.old)
    fill(1)
    for into in (two.old, two.divided):
        with pytest.raises(Conflict, match="in service"):
            two.copied(into)
    with (
        pytest.raises(SettingsError, match="settings itself"),
        opened(get_settings(), "new") as copy,
    ):
        raise AssertionError(copy)


def test_what_a_group_would_refuse_stops_the_cut_over(two: Two) -> None:
    """A payment of two users: the directory has one user of each. The source goes on."""
    two.use(two.old)
    users = fill(2)
    with SessionLocal.begin() as session:
        order = CheckoutOrder(
            **RIGHT[CheckoutOrder] | {"idempotency_key": "other"},
            user_id=users[0],
            stripe_session_id="cs_pi_1",
        )
        session.execute(text("DELETE FROM checkout_orders"))
        session.add(order)
    with pytest.raises(Inconsistent, match="not noted as theirs"):
        two.copied(two.divided, cut_over=True)
    two.use(two.old)
    assert not refuses(users[0])


def test_a_role_without_the_privilege_is_told(two: Two) -> None:
    """It may write no row past the ledger's triggers, and nothing is changed."""
    role = f"owner_{two.old.database}"
    with two.copying(two.divided) as copy:
        raw = copy.here.raw
        raw.autocommit = True
        raw.execute(f"CREATE ROLE {role}".encode())
        try:
            raw.execute(f"SET ROLE {role}".encode())
            raw.autocommit = False
            with pytest.raises(SettingsError, match="superuser"), copy.here.writing():
                raise AssertionError(role)
        finally:
            raw.rollback()
            raw.autocommit = True
            raw.execute(b"RESET ROLE")
            raw.execute(f"DROP ROLE {role}".encode())
            raw.autocommit = False


WAITS = """SELECT count(*) > 0 FROM pg_locks JOIN pg_database ON pg_database.oid = database
  WHERE NOT granted AND datname = current_database()"""


@pytest.mark.parametrize("at", ["stripe_events", "g0002.users", "group_turns"])
def test_a_command_that_was_killed_is_repeated(two: Two, tmp_path: Path, at: str) -> None:
    """Among everybody's rows, among users, and before the closing and the opening."""
    two.use(two.old)
    users = fill(3)
    two.copied(two.divided)
    two.use(two.old)
    with SessionLocal.begin() as session:
        execute(session, [grant(each, 7) for each in users])
        session.execute(text("UPDATE stripe_events SET attempts = 5"))
    two.use(two.divided)
    program = Program(tmp_path, dict(os.environ), is_installed=True)
    with open_connection(two.divided) as admin, admin.transaction():
        admin.execute(f"LOCK TABLE {at} IN SHARE MODE".encode())
        started = program.start("shards", "copy", "--from", "old", "--cut-over")
        until(admin, WAITS)
        started.kill()
        started.communicate()
    two.use(two.old)
    assert not refuses(users[0])
    assert two.copied(two.divided, cut_over=True).is_same
    assert check_all_books(THREE) == 3
