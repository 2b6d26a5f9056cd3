"""Whichever road credits take, and money, what happened is told: none of them has to know."""

import asyncio
import uuid
from collections.abc import Generator
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from src.common.accounts.operations import erase_user
from src.common.async_database import get_async_db
from src.common.credits import async_ledger, ledger
from src.common.credits.domain.commands import Grant, OpenHold, Spend
from src.common.database import SessionLocal
from src.common.models import CreditNotice, NoticeEndpoint, NoticeSecret, User
from src.common.models.credit_notice import NoticeType
from src.common.notices import endpoints, expiring, replay, retention
from src.common.notices.ids import notice_id
from src.common.notices.rules import subscription
from src.common.postgres.runtime_role import PRIVILEGES, grant_runtime
from src.common.purchases.packages import PACKAGES
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits.books import grant, make_user, spend
from tests.credits.committed import make_users
from tests.credits.engine.batching import all_at_once, running
from tests.credits.engine.batching import told as answered
from tests.credits.ledger import at, do, someone
from tests.models.examples import a_transaction, a_user
from tests.notices.outbox import ALL_BUT_SPENT, EVERYTHING, add_endpoint, notices_of, told
from tests.purchases.lives import life_of, payment_of, settle
from tests.stripe.loop import only_purchase, start_loop

T = NoticeType


@pytest.fixture
def committed(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A database where commits are real, with an endpoint that is told of everything."""
    assert fresh_database
    with SessionLocal() as session:
        add_endpoint(session, *EVERYTHING)
        session.commit()
        yield session


async def test_the_engine_s_batches(committed: Session) -> None:
    """Many callers, refusals and replays among them: a notice for each entry, and no other."""
    people = make_users(30, 30, 30)
    before = len(told(committed))
    again = spend(people[0], 1)
    commands = [spend(who, 7) for who in people for _ in range(6)] + [again, again]
    async with running() as engine:
        outcomes = [answered(each) for each in await all_at_once(engine, commands)]
    done = outcomes.count("done")
    assert outcomes.count("replayed") == 1
    assert outcomes.count("INSUFFICIENT_CREDITS") == len(commands) - 1 - done
    committed.rollback()
    notices = notices_of(committed)[before:]
    assert [each.type for each in notices].count(T.SPENT) == done
    assert {each.type for each in notices} == {T.SPENT, T.LOW}
    for who in people:
        mine = [(each.seq, each.number) for each in notices if each.user_id == who]
        assert mine == sorted(mine)


async def test_the_engine_s_locked_batches(committed: Session) -> None:
    """What is parked behind somebody else's lock is told once it is done."""
    [who] = make_users(30)
    before = len(told(committed))
    committed.execute(select(User).where(User.user_id == who).with_for_update())
    async with running() as engine:
        asked = asyncio.ensure_future(engine.submit(spend(who, 25)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(committed.rollback)
        await asked
    assert told(committed)[before:] == [(T.SPENT, 2), (T.LOW, 2)]


async def test_an_async_session(committed: Session) -> None:
    """The same operations, through asyncpg."""
    [who] = make_users(30)
    async with get_async_db() as session:
        await async_ledger.spend(session, who, 30, key="k")
        await session.commit()
    committed.rollback()
    assert told(committed)[1:] == [(T.SPENT, 2), (T.LOW, 2), (T.EXHAUSTED, 2)]


def test_the_document_s_own_code(committed: Session) -> None:
    """A new user with a balance, `+=` alone, and beside a purchase; a rollback tells nothing."""
    user = a_user(credits_balance=40)
    committed.add(user)
    committed.commit()
    user.credits_balance -= 35
    committed.commit()
    user.credits_balance += 500
    committed.add(a_transaction(user_id=user.user_id))
    committed.commit()
    user.credits_balance += 9
    committed.flush()
    committed.rollback()
    assert told(committed) == [
        (T.GRANTED, 1),
        (T.SPENT, 2),
        (T.LOW, 2),
        (T.GRANTED, 3),
        (T.PURCHASE_CREDITED, 3),
    ]
    assert [each.data["kind"] for each in notices_of(committed) if "kind" in each.data] == [
        *("opening", "adjustment", "grant")
    ]


def test_the_worker(committed: Session, run_command: RunCommand) -> None:
    """What it books of a hold that expired and a lot that died."""
    user_id = someone(committed)
    do(committed, Grant, user_id, amount=30, expires_at=at(60))
    do(committed, OpenHold, user_id, 1, amount=5, expires_in_seconds=50)
    committed.commit()
    assert run_command("worker", "--once").exit_code == 0
    with SessionLocal() as session:
        assert told(session) == [
            (T.GRANTED, 1),
            (T.HOLD_EXPIRED, 3),
            (T.LOW, 4),
            (T.EXHAUSTED, 4),
        ]


def test_stripe_s_webhooks(db: Session) -> None:
    """A payment, a refund through us, another behind our back; copies of them tell nothing."""
    user = make_user(db)
    add_endpoint(db, *EVERYTHING)
    loop = start_loop()
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    paid = loop.webhooks()
    loop.deliver([*paid, *paid])
    assert told(db) == [(T.GRANTED, 1), (T.PURCHASE_CREDITED, 1)]
    ledger.spend(db, user.user_id, 500, key="k")
    loop.refund(only_purchase(db), 100)
    loop.deliver(loop.webhooks())
    loop.refund_at_stripe(session_id, 50)
    refunded = loop.webhooks()
    loop.deliver([*refunded, *refunded])
    assert told(db)[2:] == [
        *((T.SPENT, 2), (T.LOW, 2), (T.EXHAUSTED, 2)),
        *((T.PURCHASE_REFUNDED, None), (T.DEBT_OPENED, 3), (T.PURCHASE_REFUNDED, None)),
    ]
    last = notices_of(db)[-1].data
    assert last == {
        "user_id": str(user.user_id),
        "transaction_id": str(only_purchase(db).transaction_id),
        "amount_paid_cents": 500,
        "refunded_cents": 150,
        "disputed_cents": 0,
        "changed_by_cents": 50,
        "currency": "usd",
        "livemode": False,
    }
    ledger.grant(db, user.user_id, 200, key="g")
    assert told(db)[8:] == [(T.GRANTED, 5), (T.DEBT_SETTLED, 6)]


def test_no_operation_of_a_refused_batch_is_told(committed: Session) -> None:
    """A database transaction that fails as a whole leaves nothing in the outbox."""
    [who] = make_users(30)
    before = told(committed)
    with SessionLocal() as session:
        ledger.execute(session, [spend(who, 5), grant(who, 7)])
        assert len(told(session)) == len(before) + 2
        session.rollback()
    committed.rollback()
    assert told(committed) == before


def test_a_service_without_privileges_of_its_own_goes_on(db: Session) -> None:
    """Between a migration and `grant-runtime`: it may write entries, and so they are told."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    role = f"old_release_{uuid.uuid4().hex[:8]}"
    grant_runtime(db.connection(), role)
    for table in ("credit_notices", "notice_endpoints", "notice_secrets"):
        db.execute(text(f"REVOKE ALL ON {table} FROM {role}"))
    db.execute(text(f"SET LOCAL ROLE {role}"))
    do(db, Grant, user_id, amount=30)
    do(db, Spend, user_id, amount=30)
    db.execute(text("RESET ROLE"))
    assert len(notices_of(db)) == 4


def test_nobody_has_the_triggers_tell_what_was_never_committed(db: Session) -> None:
    """They write as their owner; so none may hang one at a table of their own and fill that."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    role = f"service_{uuid.uuid4().hex[:8]}"
    grant_runtime(db.connection(), role)
    db.execute(text(f"SET LOCAL ROLE {role}"))
    db.execute(text("CREATE TEMPORARY TABLE forged (LIKE credit_entries)"))
    with pytest.raises(ProgrammingError, match="permission denied for function"):
        db.execute(
            text(
                "CREATE TRIGGER forging AFTER INSERT ON forged REFERENCING NEW TABLE AS added"
                " FOR EACH STATEMENT EXECUTE FUNCTION credit_entries_told()"
            )
        )
    assert user_id


def test_a_service_can_rewrite_nothing_that_was_told(db: Session) -> None:
    """Its privileges are for what becomes of a notice, and for what nobody commits: expiry."""
    fixed = {"user_id", "number", "endpoint_id", "type", "seq", "data", "created_at"}
    granted = PRIVILEGES["credit_notices"].partition("UPDATE")[2]
    columns = {name.strip(" ()") for name in granted.split(",")}
    every = {column.name for column in CreditNotice.__table__.columns}
    assert columns == every - fixed
    assert db


def test_nothing_that_is_told_is_anybody_s_data(db: Session) -> None:
    """Erasure leaves the notices: they hold ids and numbers."""
    add_endpoint(db, *EVERYTHING)
    user = make_user(db)
    email = user.email
    do(db, Grant, user.user_id, amount=30)
    before = [(each.number, each.data) for each in notices_of(db)]
    assert before
    assert email not in str(before)
    erase_user(db, user.user_id)
    assert [(each.number, each.data) for each in notices_of(db)] == before


@pytest.mark.parametrize("types", [ALL_BUT_SPENT, (T.SPENT,)])
def test_what_is_told_goes_to_whoever_wants_it(db: Session, types: tuple[NoticeType, ...]) -> None:
    """Of two endpoints each gets its own types, and a copy of what both want."""
    both, one = add_endpoint(db, *EVERYTHING), add_endpoint(db, *types)
    user_id = someone(db)
    do(db, Grant, user_id, amount=30)
    do(db, Spend, user_id, amount=30)
    everything = told(db, endpoint_id=both)
    assert [kind for kind, _ in everything] == [T.GRANTED, T.SPENT, T.LOW, T.EXHAUSTED]
    assert told(db, endpoint_id=one) == [each for each in everything if each[0] in types]


def test_an_instruction_of_many_rows_by_hand_is_told_too(db: Session) -> None:
    """Whatever writes entries: the owner's own SQL, with lots and lines as they have to be."""
    add_endpoint(db, T.GRANTED)
    user_id = someone(db)
    entry: dict[str, Any] = {
        "user_id": user_id,
        "seq": 1,
        "kind": "grant",
        "amount": 5,
        "balance_after": 5,
        "result_balance": 5,
        "idempotency_key": "k",
        "request_digest": bytes(32),
        "actor": "system:sql",
        "effective_at": at(0),
        "created_at": at(0),
        "entry_hash": bytes(32),
    }
    names = ", ".join(entry)
    values = ", ".join(f":{name}" for name in entry)
    db.execute(
        text(
            f"WITH entry AS (INSERT INTO credit_entries ({names}) VALUES ({values})),"  # noqa: S608
            " lot AS (INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining,"
            " last_seq, is_open) VALUES (:user_id, 1, 'promo', 10, 5, 5, 1, true)),"
            " line AS (INSERT INTO credit_postings VALUES (:user_id, 1, 1, 5, 5))"
            " UPDATE users SET credits_balance = 5, credits_version = 1 WHERE user_id = :user_id"
        ),
        entry,
    )
    assert told(db) == [(T.GRANTED, 1)]


def test_endpoints_are_made_with_the_service_s_role(db: Session) -> None:
    """`grant-runtime` gives what the commands and the worker need."""
    user_id = someone(db)
    role = f"service_{uuid.uuid4().hex[:8]}"
    grant_runtime(db.connection(), role)
    db.execute(text(f"SET LOCAL ROLE {role}"))
    wanted = subscription(
        url="https://example.com/hook",
        types=["credits.granted", "credits.expiring"],
        low_threshold=None,
        expiring_lead_seconds=3600,
        is_local=False,
    )
    endpoint_id = endpoints.create_endpoint(db, wanted).endpoint.endpoint_id
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=0)
    do(db, Grant, user_id, amount=30, expires_at=at(60))
    assert expiring.tell(db, endpoint_id=endpoint_id, now=at(0)) == (1, None)
    replay.replay_notice(db, notice_id(user_id, notices_of(db)[0].number))
    endpoints.delete_endpoint(db, endpoint_id)
    assert retention.drop_old(db, kept_days=30) == 2
    count = select(func.count()).select_from(NoticeSecret)
    assert db.scalar(count) == 0
    db.execute(insert(NoticeEndpoint).values(url="https://example.com", types=["hold.expired"]))


def test_a_payment_s_whole_life(db: Session) -> None:
    """Paid twice, refunded twice, disputed and won; a refund that failed."""
    user_id = someone(db)
    add_endpoint(db, *EVERYTHING)
    payment = payment_of(user_id, "life", PACKAGES[0])
    said: dict[str, list[str]] = {}
    for name, step in life_of(payment, "life").items():
        before = len(told(db))
        settle(db, step, cause=f"evt_{name}")
        said[name] = [kind for kind, _ in told(db)[before:]]
    assert said == {
        "paid": [T.GRANTED, T.PURCHASE_CREDITED],
        "paid again": [],
        "refunded": [T.PURCHASE_REFUNDED],
        "refunded more": [T.PURCHASE_REFUNDED],
        "disputed": [T.PURCHASE_DISPUTED, T.LOW, T.EXHAUSTED],
        "reinstated": [T.PURCHASE_DISPUTED],
        "refund failed": [T.PURCHASE_REFUNDED],
    }
    money = [each.data for each in notices_of(db) if each.type.startswith("purchase.")][1:]
    assert [each["changed_by_cents"] for each in money] == [200, 150, 400, -400, -200]
    last = money[-1]
    assert (last["refunded_cents"], last["disputed_cents"]) == (150, 0)


def test_a_refund_that_came_before_its_payment_is_told_with_it(db: Session) -> None:
    """Before there is a purchase, nobody knows whose it is."""
    user_id = someone(db)
    add_endpoint(db, *EVERYTHING)
    life = life_of(payment_of(user_id, "late", PACKAGES[0]), "late")
    settle(db, life["refunded"], cause="evt_1")
    assert told(db) == []
    settle(db, life["paid"], cause="evt_2")
    assert [kind for kind, _ in told(db)] == [
        *(T.GRANTED, T.PURCHASE_CREDITED, T.PURCHASE_REFUNDED)
    ]
