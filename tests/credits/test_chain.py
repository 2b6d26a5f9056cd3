"""Every entry carries a hash, whoever writes it; those from before get theirs while all goes on."""

import asyncio
import uuid

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.credits import chaining, ledger
from src.common.credits.chaining import chain_entries, chain_users, complete_chain
from src.common.credits.operations import execute
from src.common.credits.verification.chained import ENTRY_HASH_DOES_NOT_FIT
from src.common.database import SessionLocal
from src.common.exceptions import Conflict
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_ledger import CreditLedger
from src.common.models.user import User
from src.common.postgres.runtime_role import PRIVILEGES
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, forget_hashes, grant, make_user, spend
from tests.credits.committed import make_users
from tests.credits.engine.batching import running
from tests.credits.forging import Write, entry

pytestmark = pytest.mark.xdist_group("credits_engine")


AT = ("effective_at", "created_at")


def hashes(session: Session, user_id: uuid.UUID) -> list[bytes | None]:
    """Those of the user's entries, in order."""
    of_user = select(CreditEntry.entry_hash).where(CreditEntry.user_id == user_id)
    return list(session.scalars(of_user.order_by(CreditEntry.seq)))


def chained_at(session: Session) -> object:
    """What the ledger says."""
    return session.scalars(select(CreditLedger.chained_at)).one()


def lack(session: Session) -> int:
    """How many entries have no hash."""
    lacking = select(func.count()).select_from(CreditEntry).where(CreditEntry.entry_hash.is_(None))
    return session.scalars(lacking).one()


def test_who_is_not_chained_stays_so(db: Session) -> None:
    """New entries get hashes only after an entry with one; nobody else is concerned."""
    before, new = make_user(db, 100), make_user(db)
    forget_hashes(db)
    execute(db, [spend(before.user_id, 1), grant(new.user_id, 5), spend(new.user_id, 1)])
    execute(db, [spend(before.user_id, 1), spend(new.user_id, 1)])
    assert hashes(db, before.user_id) == [None] * 3
    assert None not in hashes(db, new.user_id)
    assert chain_users(db, [before.user_id]) == 3
    execute(db, [spend(before.user_id, 1)])
    assert lack(db) == 0
    check_books(db)


def test_an_entry_without_a_hash_is_refused_once_all_have_one(db: Session) -> None:
    """By the database, as anything else that does not agree."""
    user_id = make_user(db, 100).user_id
    forget_hashes(db, user_id)
    with pytest.raises(DBAPIError, match=r"entry 2 of user .* comes without its hash"):
        execute(db, [spend(user_id, 1)])


def test_the_release_before_goes_on_until_all_are_chained(db: Session) -> None:
    """It writes no hash, after entries that have one too, and its role knows no new table."""
    user_id = make_user(db, 100).user_id
    forget_hashes(db)
    chain_users(db, [user_id])
    connection = db.connection()
    connection.exec_driver_sql("CREATE ROLE before")
    for table, privileges in PRIVILEGES.items():
        if table != "credit_ledgers":
            connection.exec_driver_sql(f"GRANT {privileges} ON {table} TO before")
    without = Write(
        [entry(2, "spend", -10, 90, **dict.fromkeys(AT, "clock_timestamp()"), entry_hash="NULL")],
        [(2, 1, -10, 90)],
        lots={1: (90, 2)},
        user=(90, 2),
    )
    connection.exec_driver_sql("SET LOCAL ROLE before")
    connection.exec_driver_sql(without.sql().replace(":who", f"'{user_id}'"))
    connection.exec_driver_sql("RESET ROLE")
    execute(db, [spend(user_id, 1)])
    assert hashes(db, user_id)[1:] == [None, None]
    assert chain_users(db, [user_id]) == 2
    check_books(db)


CHANGES = {
    "another hash": "SET entry_hash = sha256('another') WHERE seq = 1",
    "no hash any more": "SET entry_hash = NULL WHERE seq = 1",
    "still no hash": "SET entry_hash = NULL WHERE seq = 2",
    "something beside the hash": "SET entry_hash = sha256('x'), reference = 'x' WHERE seq = 2",
    "something in place of the hash": "SET reference = 'x' WHERE seq = 2",
    "nothing at all": "SET amount = amount WHERE false",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hash_is_added_once_and_nothing_else_changes(db: Session, change: str) -> None:
    """Owners included."""
    user_id = make_user(db, 100).user_id
    execute(db, [spend(user_id, 1)])
    forget_hashes(db, user_id, after=1)
    with pytest.raises(DBAPIError, match="the ledger is append-only"), db.begin_nested():
        db.execute(text(f"UPDATE credit_entries {CHANGES[change]}"))
    db.execute(text("UPDATE credit_entries SET entry_hash = sha256('x') WHERE seq = 2"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE credit_ledgers SET ledger_id = gen_random_uuid()",
        "UPDATE credit_ledgers SET chained_at = NULL",
        "DELETE FROM credit_ledgers",
        "TRUNCATE credit_ledgers",
        "INSERT INTO credit_ledgers (ledger_number) VALUES (2)",
        "INSERT INTO credit_ledgers DEFAULT VALUES",
    ],
)
def test_a_database_is_one_ledger_for_ever(db: Session, change: str) -> None:
    """Its id stays, and that all entries are chained."""
    with pytest.raises(DBAPIError):
        db.execute(text(change))


@pytest.fixture
def unchained(fresh_database: ConnectionParameters) -> list[uuid.UUID]:
    """People from before there were hashes, one with a long journal, in a database of its own."""
    assert fresh_database
    user_ids = make_users(0, 5, 5, 5, 5)
    with SessionLocal.begin() as session:
        execute(session, [grant(user_ids[0], 100)])
        execute(session, [spend(user_ids[0], 1) for _ in range(40)])
        forget_hashes(session)
    return user_ids


def test_everybody_gets_their_hashes(
    unchained: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long journal in portions; then the ledger says so, and all is as if it had always been."""
    monkeypatch.setattr(chaining, "BATCH_ENTRIES", 16)
    monkeypatch.setattr(chaining, "PAGE_USERS", 2)
    told = [(each.entries, each.is_complete) for each in complete_chain(SessionLocal)]
    assert told[-1] == (45, True)
    assert len(told) > 5  # in several batches
    assert not any(is_complete for _, is_complete in told[:-1])
    with SessionLocal() as session:
        assert lack(session) == 0
        assert chained_at(session) is not None
        check_books(session)
        execute(session, [spend(user_id, 1) for user_id in unchained])
        check_books(session)


def test_the_first_id_that_there_can_be_gets_its_hashes(unchained: list[uuid.UUID]) -> None:
    """Afterwards an entry without one could not be followed by any."""
    assert unchained
    with SessionLocal.begin() as session:
        session.add(User(user_id=uuid.UUID(int=0), email="first@example.com", password_hash="x"))
        session.flush()
        execute(session, [grant(uuid.UUID(int=0), 5)])
        forget_hashes(session, uuid.UUID(int=0))
    for _ in complete_chain(SessionLocal):
        pass
    with SessionLocal() as session:
        assert lack(session) == 0


def test_nothing_is_hashed_without_the_ledger_s_id(
    unchained: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given once cannot be changed: neither a long journal nor short ones get any."""
    monkeypatch.setattr(chaining, "BATCH_ENTRIES", 16)
    with SessionLocal.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text("DELETE FROM credit_ledgers"))
    for user_ids in (unchained[:1], unchained[1:]):
        with SessionLocal.begin() as session, pytest.raises(Conflict, match="credit_ledgers"):
            chain_users(session, user_ids)
    with pytest.raises(Conflict, match="credit_ledgers"):
        list(complete_chain(SessionLocal))
    with SessionLocal() as session:
        assert lack(session) == 45


@pytest.mark.parametrize("batches_done", range(6))
def test_who_stops_it_goes_on_where_it_was(
    unchained: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch, batches_done: int
) -> None:
    """However far it came, and whatever was written meanwhile."""
    monkeypatch.setattr(chaining, "BATCH_ENTRIES", 16)
    going = chain_entries(SessionLocal)
    for _ in range(batches_done):
        next(going)
    going.close()
    with SessionLocal.begin() as session:
        execute(session, [spend(user_id, 1) for user_id in unchained])
        check_books(session)
    for _ in complete_chain(SessionLocal):
        pass
    with SessionLocal() as session:
        assert lack(session) == 0
        check_books(session)


def test_who_is_locked_is_not_waited_for(unchained: list[uuid.UUID]) -> None:
    """The others are done; the next pass comes back, and finds them once they are free."""
    with SessionLocal() as holder, SessionLocal() as looking:
        ledger.lock_users(holder, [unchained[0], unchained[1]])
        going = chain_entries(SessionLocal)
        done = next(each for each in going if each.locked_users == 2 and each.entries == 3)
        looking.rollback()
        assert hashes(looking, unchained[0])[-1] is None
        holder.rollback()
        *_, done = going
    assert (done.entries, done.locked_users) == (45, 0)


def test_an_entry_that_is_not_what_it_was_ends_it(unchained: list[uuid.UUID]) -> None:
    """Nothing is hashed over it, and nobody says that all are chained."""
    with SessionLocal.begin() as session:
        assert chain_users(session, [unchained[0]]) == 41
        forget_hashes(session, unchained[0], after=20)
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text("UPDATE credit_entries SET actor = 'key:x' WHERE seq = 7"))
        session.execute(text("UPDATE credit_ledgers SET chained_at = NULL"))
    with pytest.raises(Conflict, match="Entry 7 of user") as refused:
        for _ in complete_chain(SessionLocal):
            pass
    assert refused.value.error_type == ENTRY_HASH_DOES_NOT_FIT
    with SessionLocal() as session:
        assert chained_at(session) is None


def test_a_session_that_waits_while_its_user_is_chained_chains_its_entry(
    unchained: list[uuid.UUID],
) -> None:
    """What it read before it had the lock said that the last entry had no hash."""
    who = unchained[0]

    def write() -> None:
        with SessionLocal.begin() as session:
            execute(session, [spend(who, 1)])

    async def both() -> None:
        with SessionLocal() as chaining_session:
            ledger.lock_users(chaining_session, [who])
            waiting = asyncio.create_task(asyncio.to_thread(write))
            await until_somebody_waits()
            assert chain_users(chaining_session, [who]) == 41
            chaining_session.commit()
            await waiting

    asyncio.run(both())
    with SessionLocal() as session:
        assert None not in hashes(session, who)
        check_books(session)


async def until_somebody_waits() -> None:
    """Until a session waits for a row's lock."""
    with SessionLocal() as session:
        while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
            session.rollback()
            await asyncio.sleep(0.01)


async def test_the_engine_chains_what_it_writes_beside_the_command(
    unchained: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users are chained under it while batch follows batch; no entry stays without, no gap."""
    monkeypatch.setattr(chaining, "BATCH_ENTRIES", 16)

    def chain() -> None:
        for _ in complete_chain(SessionLocal):
            pass

    async def ask(user_id: uuid.UUID) -> None:
        for _ in range(10):
            await engine.execute(grant(user_id, 1))

    async with running(credits_engine_lanes=2) as engine:
        asking = [asyncio.create_task(ask(each)) for each in unchained for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.to_thread(chain)
        await asyncio.gather(*asking)
    with SessionLocal() as session:
        assert lack(session) == 0
        assert session.scalar(select(func.count()).select_from(CreditEntry)) == 45 + 400
        check_books(session)
