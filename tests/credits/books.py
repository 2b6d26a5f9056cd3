"""Rule 9 recomputed by SQL of the tests' own, and what most ledger tests need."""

import datetime as dt
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol, TypeVar

from sqlalchemy import ARRAY, Uuid, bindparam, insert, select, text, true, update
from sqlalchemy.orm import Session

from src.common.credits.chaining import chain_users
from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Grant,
    OpenHold,
    Release,
    Renew,
    Reverse,
    Spend,
)
from src.common.credits.domain.own_commands import Purchase
from src.common.credits.operations import execute
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_ledger import CreditLedger
from src.common.models.credit_lot import CreditLot
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.credits.entry_hash_sql import ENTRY_HASH
from tests.models.examples import a_user

T = TypeVar("T")

ACTOR = "key:tests"
_keys = count(1)

_DIFFERENCES = {
    "users": """
        SELECT u.user_id, u.credits_balance, u.credits_version FROM users u
        LEFT JOIN (SELECT user_id, sum(amount) AS total, max(seq) AS last, count(*) AS entries
                   FROM credit_entries GROUP BY user_id) e USING (user_id)
        LEFT JOIN (SELECT user_id, sum(remaining) AS total FROM credit_lots GROUP BY user_id) l
            USING (user_id)
        LEFT JOIN credit_entries n ON (n.user_id, n.seq) = (u.user_id, e.last)
        WHERE NOT (u.user_id = ANY (:unopened) AND u.credits_version = 0 AND e.last IS NULL)
          AND (u.credits_balance <> coalesce(e.total, 0)
            OR u.credits_balance <> coalesce(l.total, 0)
            OR u.credits_balance <> coalesce(n.balance_after, 0)
            OR u.credits_version <> coalesce(e.last, 0)
            OR u.credits_version <> coalesce(e.entries, 0))""",
    "entries": """
        SELECT * FROM (
            SELECT e.*, lag(balance_after, 1, 0) OVER journal AS balance_before,
                   lag(effective_at) OVER journal AS effective_before,
                   (SELECT coalesce(sum(p.amount), 0) FROM credit_postings p
                    WHERE (p.user_id, p.seq) = (e.user_id, e.seq)) AS in_postings
            FROM credit_entries e WINDOW journal AS (PARTITION BY user_id ORDER BY seq)) rows
        WHERE balance_after <> balance_before + amount OR in_postings <> amount
           OR effective_at < effective_before OR created_at < effective_at""",
    "lots": """
        SELECT * FROM (
            SELECT l.*, n.remaining_after, n.newest,
                   (SELECT sum(p.amount) FROM credit_postings p
                    WHERE (p.user_id, p.lot_seq) = (l.user_id, l.seq)) AS in_postings,
                   (SELECT p.amount FROM credit_postings p
                    WHERE (p.user_id, p.lot_seq, p.seq) = (l.user_id, l.seq, l.seq)) AS first
            FROM credit_lots l LEFT JOIN LATERAL (
                SELECT p.remaining_after, p.seq AS newest FROM credit_postings p
                WHERE (p.user_id, p.lot_seq) = (l.user_id, l.seq)
                ORDER BY p.seq DESC LIMIT 1) n ON true) rows
        WHERE remaining IS DISTINCT FROM remaining_after OR last_seq IS DISTINCT FROM newest
           OR remaining IS DISTINCT FROM in_postings OR granted IS DISTINCT FROM first""",
    "holds": """
        SELECT h.* FROM credit_holds h
        LEFT JOIN credit_entries o ON (o.user_id, o.seq) = (h.user_id, h.seq)
        LEFT JOIN LATERAL (
            SELECT coalesce(sum(captured), 0) AS captured,
                   coalesce(sum(amount) FILTER (WHERE kind <> 'spend'), 0) AS returned,
                   coalesce(sum(captured) FILTER (WHERE kind <> 'spend'), 0) AS in_time
            FROM credit_entries e WHERE (e.user_id, e.related_seq) = (h.user_id, h.seq)
              AND kind IN ('capture', 'release', 'hold_expiry', 'spend')) r ON true
        WHERE h.amount <> -o.amount OR h.captured <> r.captured
           OR r.returned <> CASE h.status WHEN 'open' THEN 0 ELSE h.amount - r.in_time END""",
    # Each hash after the one before it, as the database itself makes it of what it holds.
    "chain": f"""
        SELECT user_id, seq, entry_hash FROM (
            SELECT e.*, d.chained_at, CASE WHEN e.seq = 1 THEN uuid_send(d.ledger_id)
                   ELSE lag(e.entry_hash) OVER (PARTITION BY e.user_id ORDER BY e.seq)
                   END AS previous
            FROM credit_entries e, credit_ledgers d) e
        WHERE (entry_hash IS NOT NULL OR chained_at IS NOT NULL)
          AND entry_hash IS DISTINCT FROM {ENTRY_HASH}""",  # noqa: S608  ours
}

_ALL_DIFFERENCES = text(
    " UNION ALL ".join(
        f"SELECT '{what}', to_jsonb(r) FROM ({rows}) r"  # noqa: S608  both are ours
        for what, rows in _DIFFERENCES.items()
    )
).bindparams(bindparam("unopened", type_=ARRAY(Uuid(as_uuid=True))))


class InSession(Protocol):
    """Runs work, written once for the sync API, in a session of one of the drivers."""

    async def __call__(self, work: Callable[[Session], T]) -> T:
        """What the work returned."""
        ...


def check_books(session: Session, unopened: Sequence[uuid.UUID] = ()) -> None:
    """Every book of rule 9 balances, by our own sums and by the database's deferred triggers.

    `unopened` are users from before the ledger, whom perhaps nothing has touched since.
    """
    assert session.execute(_ALL_DIFFERENCES, {"unopened": list(unopened)}).all() == []
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    session.execute(text("SET CONSTRAINTS ALL DEFERRED"))


def new_key() -> str:
    """An idempotency key nobody else has."""
    return f"key-{next(_keys)}"


def _filled(user_id: uuid.UUID, others: dict[str, Any]) -> dict[str, Any]:
    return {"user_id": user_id, "key": new_key(), "actor": ACTOR, **others}


def grant(user_id: uuid.UUID, amount: int, **others: Any) -> Grant:
    """A grant with a key of its own."""
    return Grant(amount=amount, **_filled(user_id, others))


def write_purchase(session: Session, user_id: uuid.UUID, credits_added: int) -> Transaction:
    """The row of a purchase, as a payment's own code writes it: it credits nobody yet."""
    return session.scalars(
        insert(Transaction)
        .values(
            user_id=user_id,
            stripe_session_id=f"cs_{uuid.uuid4().hex}",
            amount_paid_cents=credits_added,
            credits_added=credits_added,
        )
        .returning(Transaction)
    ).one()


def purchase(session: Session, user_id: uuid.UUID, amount: int, **others: Any) -> Purchase:
    """The command that credits a purchase, whose row is written here."""
    paid = write_purchase(session, user_id, amount)
    given = {"key": f"~purchase:{paid.stripe_session_id}", **others}
    return Purchase(amount=amount, transaction_id=paid.transaction_id, **_filled(user_id, given))


def spend(user_id: uuid.UUID, amount: int, **others: Any) -> Spend:
    """A spend with a key of its own."""
    return Spend(amount=amount, **_filled(user_id, others))


def adjust(user_id: uuid.UUID, amount: int, **others: Any) -> Adjust:
    """An adjustment with a key of its own."""
    return Adjust(amount=amount, **_filled(user_id, {"reason": "a test", **others}))


def open_hold(user_id: uuid.UUID, amount: int, seconds: int = 600, **others: Any) -> OpenHold:
    """A hold with a key of its own."""
    return OpenHold(amount=amount, expires_in_seconds=seconds, **_filled(user_id, others))


def capture(user_id: uuid.UUID, hold_seq: int, amount: int, **others: Any) -> Capture:
    """A capture with a key of its own."""
    return Capture(hold_seq=hold_seq, amount=amount, **_filled(user_id, others))


def release(user_id: uuid.UUID, hold_seq: int, **others: Any) -> Release:
    """A release with a key of its own."""
    return Release(hold_seq=hold_seq, **_filled(user_id, others))


def renew(user_id: uuid.UUID, hold_seq: int, seconds: int, **others: Any) -> Renew:
    """A renewal with a key of its own."""
    return Renew(hold_seq=hold_seq, expires_in_seconds=seconds, **_filled(user_id, others))


def reverse(user_id: uuid.UUID, seq: int, amount: int | None = None, **others: Any) -> Reverse:
    """A reversal with a key of its own."""
    facts = _filled(user_id, {"reason": "a test", **others})
    return Reverse(seq=seq, amount=amount, **facts)


def make_user(session: Session, balance: int = 0, now: dt.datetime | None = None) -> User:
    """A user with these credits in one lot; flushed."""
    user = a_user()
    session.add(user)
    session.flush()
    if balance:
        execute(session, [grant(user.user_id, balance)], now=now)
    return user


def journal(session: Session, user_id: uuid.UUID) -> list[tuple[str, int]]:
    """The user's entries in order: kind and amount."""
    rows = session.execute(
        select(CreditEntry.kind, CreditEntry.amount)
        .where(CreditEntry.user_id == user_id)
        .order_by(CreditEntry.seq)
    )
    return [(kind, amount) for kind, amount in rows]


@contextmanager
def triggers_off(session: Session, table: str) -> Generator[None]:
    """Flush what the ledger would not write, or no longer would: past the table's triggers."""
    session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
    yield
    session.flush()
    session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))


def forget_hashes(session: Session, user_id: uuid.UUID | None = None, after: int = 0) -> None:
    """As if entries were from before there were hashes: a user's, after one of them, or all."""
    session.execute(text("SET LOCAL session_replication_role = replica"))
    whose = CreditEntry.user_id == user_id if user_id else true()
    session.execute(
        update(CreditEntry).where(whose, CreditEntry.seq > after).values(entry_hash=None)
    )
    if user_id is None:
        session.execute(update(CreditLedger).values(chained_at=None))
    session.execute(text("SET LOCAL session_replication_role = origin"))


def hash_again(session: Session, user_id: uuid.UUID) -> None:
    """Give forged entries the hashes that fit: nothing about them is secret."""
    forget_hashes(session, user_id)
    chain_users(session, [user_id])


def allow_a_clock_ahead(session: Session) -> None:
    """Let entries be booked years ahead of this database's clock, which a test cannot set."""
    session.execute(
        text(
            "DO $$ BEGIN EXECUTE replace(pg_get_functiondef("
            "'credit_entries_balanced'::regproc), '5 minutes', '50 years'); END $$"
        )
    )
    session.commit()


def from_before(session: Session, balance: int) -> User:
    """A user as the document's own code left them: with a balance, and no entry."""
    user = make_user(session)
    session.execute(
        text("ALTER TABLE users DROP CONSTRAINT IF EXISTS ck_users_credits_balance_not_negative")
    )
    with triggers_off(session, "users"):
        session.connection().execute(
            update(User).where(User.user_id == user.user_id).values(credits_balance=balance)
        )
    session.refresh(user)
    return user


def owe(session: Session, user_id: uuid.UUID, seq: int, outstanding: int) -> None:
    """Let a user owe credits of the lot `seq`, as money back would have it."""
    with triggers_off(session, "credit_debts"):
        session.add(CreditDebt(user_id=user_id, seq=seq, outstanding=outstanding))


def booked_balance(session: Session, user_id: uuid.UUID) -> int:
    """What the row says, whatever is in memory."""
    return session.execute(select(User.credits_balance).where(User.user_id == user_id)).scalar_one()


def purchases(session: Session, user: User) -> list[tuple[str, int]]:
    """The user's lots that a purchase paid for: the entry's key and the credits."""
    rows = session.execute(
        select(CreditEntry.idempotency_key, CreditLot.granted)
        .join(
            CreditLot,
            (CreditLot.user_id == CreditEntry.user_id) & (CreditLot.seq == CreditEntry.seq),
        )
        .where(CreditEntry.user_id == user.user_id, CreditLot.transaction_id.is_not(None))
        .order_by(CreditEntry.seq)
    )
    return [(key, granted) for key, granted in rows]
