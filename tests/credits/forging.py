"""A committed, honest book, and what somebody with the service's role may try to write into it."""

import secrets
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from src.common.credits.domain import own_commands
from src.common.credits.domain.commands import (
    HOLD_SECONDS_MAX,
    STRIPE_ACTOR,
    Capture,
    Grant,
    OpenHold,
    Release,
    Renew,
    Spend,
)
from src.common.credits.money_back import settle_reversals
from src.common.credits.operations import execute
from src.common.database_settings import LedgerTriggers
from src.common.models.stripe_reversal import ReversalKind, StripeReversal
from src.common.models.transaction import Transaction
from src.common.postgres.engines import database_url
from src.common.postgres.ledger_triggers_form import put_in_place
from src.common.postgres.runtime_role import grant_runtime
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits.books import triggers_off
from tests.credits.ledger import at, do, someone
from tests.fixtures.databases import Server
from tests.postgres.drivers import open_connection

Row = Mapping[str, object]
"""Columns and their values as SQL."""

ENTRY = {
    "user_id": ":who",
    "idempotency_key": "'forged-' || gen_random_uuid()",
    "request_digest": "decode(repeat('00', 32), 'hex')",
    "actor": "'key:forger'",
    "entry_hash": "sha256('forged')",
    "effective_at": "timestamptz '2020-01-02T00:00Z'",
    "created_at": "timestamptz '2020-01-02T00:00Z'",
}
LINE = ("user_id", "seq", "lot_seq", "amount", "remaining_after")
LOT = {"user_id": ":who", "source": "'promo'", "priority": 10, "is_open": "true"}


@dataclass(frozen=True)
class People:
    """Who is in the books. What each of them has is said in `populate`."""

    who: uuid.UUID
    """Lots 1 (45 of 100), 2 (20) and 7 (500, bought); holds 3 (open, 30 of lot 1), 5 (4 of 10
    captured), 9 (5, released) and 11 (7, expired); metadata of entry 8. Balance 565 at version 13,
    a renewal."""
    debtor: uuid.UUID
    """Lot 1 (bought, used up), a debt of 50 of it. Balance 0 at version 3."""
    before: uuid.UUID
    """From before the ledger: a balance of 100, no entry."""
    new: uuid.UUID
    """Nothing yet."""
    late: uuid.UUID
    """Lots 1 (10), which has expired without being booked, and 2 (20)."""
    holding: uuid.UUID
    """Lot 1 (4 of 20), and hold 2 of it (16), which has expired without being booked."""
    bought: uuid.UUID
    """The purchase of lot 7."""
    unpaid: uuid.UUID
    """A purchase of 70 credits of `who` that credited nobody."""
    others: uuid.UUID
    """The purchase of the debtor."""


def populate(session: Session, *, has_past: bool = True) -> People:
    """Write the books by the rules; without a past nobody is from before the ledger."""
    who, debtor, new, late, holding = (someone(session) for _ in range(5))
    bought, unpaid = _purchase(session, who, 500), _purchase(session, who, 70)
    others = _purchase(session, debtor, 50)
    do(session, Grant, who, amount=100)
    do(session, Grant, who, amount=20, priority=200)
    do(session, OpenHold, who, amount=30, expires_in_seconds=HOLD_SECONDS_MAX)
    do(session, Spend, who, amount=20)
    do(session, OpenHold, who, amount=10, expires_in_seconds=600)
    do(session, Capture, who, hold_seq=5, amount=4)
    _pay(session, bought)
    do(session, Spend, who, amount=1, metadata={"slides": 3})
    do(session, OpenHold, who, amount=5, expires_in_seconds=600)
    do(session, Release, who, hold_seq=9)
    do(session, OpenHold, who, amount=7, expires_in_seconds=60)
    do(session, Renew, who, 70, hold_seq=3, expires_in_seconds=HOLD_SECONDS_MAX)
    _pay(session, others)
    do(session, Spend, debtor, amount=50)
    _refund(session, others)
    do(session, Grant, late, amount=10, expires_at=at(600))
    do(session, Grant, late, amount=20)
    do(session, Grant, holding, amount=20)
    do(session, OpenHold, holding, amount=16, expires_in_seconds=600)
    before = someone(session)
    if has_past:
        with triggers_off(session, "users"):
            session.execute(
                text("UPDATE users SET credits_balance = 100 WHERE user_id = :who"), {"who": before}
            )
    return People(
        *(who, debtor, before, new, late, holding),
        *(bought.transaction_id, unpaid.transaction_id, others.transaction_id),
    )


def _purchase(session: Session, user_id: uuid.UUID, credits_added: int) -> Transaction:
    bought = Transaction(
        user_id=user_id,
        stripe_session_id=f"cs_{uuid.uuid4()}",
        amount_paid_cents=credits_added,
        credits_added=credits_added,
    )
    session.add(bought)
    session.flush()
    return bought


def _refund(session: Session, bought: Transaction) -> None:
    """All of it, as Stripe tells, a minute after the start."""
    bought.refunded_cents = bought.amount_paid_cents
    reversal_id = f"re_{secrets.token_hex(4)}"
    session.add(
        StripeReversal(
            livemode=False,
            reversal_id=reversal_id,
            kind=ReversalKind.REFUND,
            transaction_id=bought.transaction_id,
            amount_cents=bought.amount_paid_cents,
            currency="usd",
            status="succeeded",
        )
    )
    targets = {1: bought.credits_added}
    settle_reversals(
        session,
        bought.user_id,
        targets,
        key=own_commands.reversal_key(reversal_id),
        actor=STRIPE_ACTOR,
        now=at(60),
    )


def _pay(session: Session, bought: Transaction) -> None:
    command = own_commands.purchase(
        bought.user_id,
        bought.credits_added,
        transaction_id=bought.transaction_id,
        stripe_session_id=bought.stripe_session_id,
        actor=STRIPE_ACTOR,
    )
    execute(session, [command], now=at(0))


@dataclass
class Write:
    """One statement like the ledger's own: its rows, and what lots, holds, debts, user become."""

    entries: list[Row] = field(default_factory=list[Row])
    postings: list[tuple[int, int, int, int]] = field(
        default_factory=list[tuple[int, int, int, int]]
    )
    """(seq, lot_seq, amount, remaining_after)."""
    new_lots: list[Row] = field(default_factory=list[Row])
    lots: Mapping[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """By lot: what remains, and its newest posting's entry."""
    new_holds: list[Row] = field(default_factory=list[Row])
    holds: Mapping[int, str] = field(default_factory=dict[int, str])
    """By hold: what is SET."""
    debts: Mapping[int, str] = field(default_factory=dict[int, str])
    notes: Mapping[int, str] = field(default_factory=dict[int, str])
    user: tuple[int, int] | None = None
    """Balance and version."""

    def sql(self) -> str:
        """All of it at once."""
        *others, last = self.parts()
        ctes = ", ".join(f"part_{n} AS ({part})" for n, part in enumerate(others))
        return f"WITH {ctes} {last}" if others else last

    def parts(self) -> list[str]:
        """A statement for each table."""
        parts = [
            *(_insert("credit_entries", {**ENTRY, **row}) for row in self.entries),
            *(_insert("credit_lots", {**LOT, **row}) for row in self.new_lots),
            *(
                _insert("credit_postings", dict(zip(LINE, (":who", *row), strict=True)))
                for row in self.postings
            ),
            *(
                _set("credit_lots", f"(remaining, last_seq, is_open) = {left, last, left > 0}", seq)
                for seq, (left, last) in self.lots.items()
            ),
            *(_insert("credit_holds", {"user_id": ":who", **row}) for row in self.new_holds),
            *(_set("credit_holds", what, seq) for seq, what in self.holds.items()),
            *(_set("credit_debts", what, seq) for seq, what in self.debts.items()),
            *(
                _insert(
                    "credit_entry_metadata", {"user_id": ":who", "seq": seq, "document": document}
                )
                for seq, document in self.notes.items()
            ),
        ]
        if self.user is not None:
            parts.append(_set("users", f"(credits_balance, credits_version) = {self.user}"))
        return parts


def entry(seq: int, kind: str, amount: int, after: int, **others: object) -> Row:
    """A row of the journal."""
    return {
        "seq": seq,
        "kind": f"'{kind}'",
        "amount": amount,
        "balance_after": after,
        "result_balance": after,
        **others,
    }


def lot(seq: int, granted: int, **others: object) -> Row:
    """A new lot, whole."""
    return {"seq": seq, "granted": granted, "remaining": granted, "last_seq": seq, **others}


def _insert(table: str, row: Row) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(map(str, row.values()))})"  # noqa: S608  ours


def _set(table: str, what: str, seq: int | None = None) -> str:
    of_seq = "" if seq is None else f" AND seq = {seq}"
    return f"UPDATE {table} SET {what} WHERE user_id = :who{of_seq}"  # noqa: S608  ours


@dataclass(frozen=True)
class Forgery:
    """What somebody tries, as one database transaction, and what stands in the way."""

    statements: list[str | Write]
    whose: str = "who"
    by: str = "trigger"
    by_at_commit: str | None = None
    """What the triggers' second form leaves it to; None if it makes no difference."""

    def refused_by(self, form: LedgerTriggers) -> str | None:
        """What is to refuse it where the triggers have this form; None if nothing does."""
        return self.by if form is LedgerTriggers.STATEMENT or not self.by_at_commit else None

    def in_pieces(self) -> "Forgery":
        """The same, each statement like the ledger's own cut into one for each table."""
        pieces = [
            piece
            for each in self.statements
            for piece in (each.parts() if isinstance(each, Write) else [each])
        ]
        return replace(self, statements=[*pieces])


BY_SQLSTATE = {
    "P0001": "trigger",
    "42501": "privilege",
    "23514": "CHECK",
    "23503": "foreign key",
    "23505": "unique key",
}


@dataclass(frozen=True)
class Forger:
    """A connection of the service's own role."""

    connection: psycopg.Connection
    people: People
    database: ConnectionParameters
    form: LedgerTriggers

    def attempt(self, forgery: Forgery, *, stays: bool = False) -> str | None:
        """What refuses it, at the latest at COMMIT; None if nothing does.

        `:name` in a statement is one of the people; `:who` is whose books they are. Only what
        `stays` is committed.
        """
        names = {**vars(self.people), "who": getattr(self.people, forgery.whose)}
        try:
            for each in forgery.statements:
                statement = each.sql() if isinstance(each, Write) else each
                for name, value in names.items():
                    statement = statement.replace(f":{name}", f"'{value}'::uuid")
                self.connection.execute(cast("Any", statement))
            self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if stays:
                self.connection.commit()
        except psycopg.Error as error:
            by = BY_SQLSTATE[error.sqlstate or ""]
            if by == "trigger" and not str(error).startswith("LEDGER_UNBALANCED: "):
                raise
            return by
        finally:
            self.connection.rollback()
        return None


@contextmanager
def owning(there: ConnectionParameters) -> Generator[Session]:
    """A session of the owner's on such a database."""
    url = database_url(get_settings()).set(
        host=there.host,
        port=there.port,
        username=there.user,
        password=there.password,
        database=there.database,
    )
    engine = create_engine(url)
    with Session(engine) as session:
        yield session
    engine.dispose()


@contextmanager
def forging(server: Server, form: LedgerTriggers = LedgerTriggers.STATEMENT) -> Generator[Forger]:
    """A database of its own with committed books, and the service's own role connected to it."""
    name = f"forged_{secrets.token_hex(4)}"
    role = f"runtime_{secrets.token_hex(4)}"
    there = server.clone(name)
    with owning(there) as session:
        people = populate(session)
        put_in_place(session.connection(), form)
        grant_runtime(session.connection(), role)
        session.commit()
    with open_connection(there) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        connection.autocommit = False
        yield Forger(connection, people, there, form)
        connection.rollback()
    server.drop(name)
    server.execute("DROP ROLE {}", role)
