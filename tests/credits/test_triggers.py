"""The database's own refusal: forged books are refused by the server, on both drivers (rule 9)."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    adjust,
    capture,
    check_books,
    grant,
    hash_again,
    make_user,
    open_hold,
    release,
    spend,
)
from tests.models.examples import a_transaction, a_user

# A person has lots 1 (50 of 100 left) and 2 (20), a hold 3, a spend 4: balance 70 at version 4.
AN_ENTRY = """
INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after, result_balance,
    idempotency_key, request_digest, actor, effective_at, created_at, entry_hash)
VALUES (:who, {seq}, '{kind}', {amount}, {after}, {after}, 'forged-{seq}',
    decode(repeat('00', 32), 'hex'), 'system:forger', {effective_at}, {effective_at},
    sha256('forged'))
"""
A_POSTING = """
INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
VALUES (:who, {seq}, {lot}, {amount}, {after})
"""
A_LOT = """
INSERT INTO credit_lots
    (user_id, seq, source, priority, granted, remaining, last_seq, is_open)
VALUES (:who, {seq}, 'promo', 1, {granted}, {remaining}, {seq}, true)
"""
THE_USER = """
UPDATE users SET credits_balance = {balance}, credits_version = {version} WHERE user_id = :who
"""
THE_LOT = """
UPDATE credit_lots SET remaining = {remaining}, last_seq = {last}
WHERE user_id = :who AND seq = {lot}
"""


def an_entry(
    seq: int, kind: str, amount: int, after: int, effective_at: str = "clock_timestamp()"
) -> str:
    """Insert an entry."""
    return AN_ENTRY.format(
        seq=seq, kind=kind, amount=amount, after=after, effective_at=effective_at
    )


def a_posting(seq: int, lot: int, amount: int, after: int) -> str:
    """Insert a posting."""
    return A_POSTING.format(seq=seq, lot=lot, amount=amount, after=after)


def a_lot(seq: int, granted: int, remaining: int) -> str:
    """Insert a lot."""
    return A_LOT.format(seq=seq, granted=granted, remaining=remaining)


def the_user(balance: int, version: int) -> str:
    """Overwrite balance and version."""
    return THE_USER.format(balance=balance, version=version)


def the_lot(lot: int, remaining: int, last: int) -> str:
    """Overwrite what remains."""
    return THE_LOT.format(lot=lot, remaining=remaining, last=last)


SPEND_5 = [
    an_entry(5, "spend", -10, 60),
    a_posting(5, 1, -10, 40),
    the_lot(1, 40, 5),
    the_user(60, 5),
]
"""A spend of 10 as the ledger writes it: forged so well that it is right."""
GRANT_5 = [an_entry(5, "grant", 10, 80), a_lot(5, 10, 10), a_posting(5, 5, 10, 10), the_user(80, 5)]

COMMITTED = ["SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED"]
"""What came before was checked as a COMMIT checks it."""

A_TEMPORARY_USER = """
INSERT INTO pg_temp.users SELECT (jsonb_populate_record(u, jsonb_build_object(
    'user_id', gen_random_uuid(), 'email', 'f', 'credits_version', 1))).*
FROM public.users u WHERE user_id = :who
"""
A_NEW_NUMBER_AND_A_BALANCE = """
UPDATE users SET user_id = gen_random_uuid(), credits_version = 5, credits_balance = 9
WHERE email = 'f@example.com'
"""

FORGERIES: dict[str, list[str]] = {
    "a balance in bulk": ["UPDATE users SET credits_balance = credits_balance + 10"],
    "a balance taken": [the_user(60, 4)],
    "a version alone": ["UPDATE users SET credits_version = 5 WHERE user_id = :who"],
    "a version back": [the_user(70, 3)],
    "no books at all": [the_user(0, 0)],
    "a balance moved back to an earlier entry": [the_user(120, 2)],
    "a user with a balance": [
        "INSERT INTO users (email, password_hash, credits_balance) VALUES ('f@example.com', 'x', 1)"
    ],
    "a user with a version": [
        "INSERT INTO users (email, password_hash, credits_version) VALUES ('f@example.com', 'x', 1)"
    ],
    "an entry of nothing": [an_entry(5, "renewal", 0, 70)],
    "an entry without postings": [an_entry(5, "grant", 10, 80), the_user(80, 5)],
    "an entry after a gap": [an_entry(6, "renewal", 0, 70), the_user(70, 6)],
    "an entry that counts earlier": [
        an_entry(5, "renewal", 0, 70, "now() - interval '1 day'"),
        the_user(70, 5),
    ],
    "entries with a gap between them": [
        an_entry(5, "renewal", 0, 70),
        an_entry(7, "renewal", 0, 70),
        the_user(70, 7),
    ],
    "an entry that counts before the one beside it": [
        an_entry(5, "renewal", 0, 70, "clock_timestamp() + interval '1 hour'"),
        an_entry(6, "renewal", 0, 70),
        the_user(70, 6),
    ],
    "a balance between two that agree": [
        an_entry(5, "renewal", 0, 70),
        an_entry(6, "renewal", 0, 75),
        an_entry(7, "renewal", 0, 70),
        the_user(70, 7),
    ],
    "an entry with another balance": [
        an_entry(5, "spend", -10, 61),
        *SPEND_5[1:],
    ],
    "a spend whose postings are less": [
        SPEND_5[0],
        a_posting(5, 1, -9, 41),
        the_lot(1, 41, 5),
        the_user(60, 5),
    ],
    "a spend from a lot that keeps it": [*SPEND_5[:2], the_user(60, 5)],
    "a spend that leaves the user alone": SPEND_5[:3],
    "a posting that says another rest": [
        SPEND_5[0],
        a_posting(5, 1, -10, 41),
        the_lot(1, 40, 5),
        the_user(60, 5),
    ],
    "a spend of which its lot gives half": [
        SPEND_5[0],
        a_posting(5, 1, -10, 45),
        the_lot(1, 45, 5),
        the_user(60, 5),
    ],
    "a spend that the balance feels less": [
        an_entry(5, "spend", -10, 61),
        a_posting(5, 1, -10, 41),
        the_lot(1, 41, 5),
        the_user(61, 5),
    ],
    "a balance with its lots against its entries": [
        SPEND_5[0],
        a_posting(5, 1, -10, 45),
        the_lot(1, 45, 5),
        the_user(65, 5),
    ],
    "an entry after a gap that begins anew": [
        an_entry(6, "release", 70, 70),
        a_posting(6, 1, 70, 50),
        the_lot(1, 50, 6),
        the_user(70, 6),
    ],
    "two entries that cancel out": [
        an_entry(5, "spend", -10, 60),
        an_entry(6, "release", 10, 70),
        the_user(70, 6),
    ],
    "lines that cancel out": [
        an_entry(5, "renewal", 0, 70),
        a_posting(5, 1, -10, 40),
        a_posting(5, 2, 10, 30),
        the_user(70, 5),
    ],
    "a posting more for an old grant": [a_posting(2, 1, -5, 95)],
    "a version back to the same balance": [
        an_entry(5, "renewal", 0, 70),
        the_user(70, 5),
        *COMMITTED,
        the_user(70, 4),
    ],
    "a posting more for an old entry": [a_posting(4, 2, -1, 19)],
    "a posting for a later lot number": [*SPEND_5, a_posting(5, 2, -1, 19), the_lot(2, 19, 5)],
    "a lot without a posting": [an_entry(5, "renewal", 0, 70), a_lot(5, 10, 10), the_user(70, 5)],
    "a lot with more than its grant": [GRANT_5[0], a_lot(5, 1000, 10), *GRANT_5[2:]],
    "a lot for an old entry": [a_lot(4, 10, 10)],
    "a lot's rest": [the_lot(1, 40, 4)],
    "a lot's rest and number": [the_lot(1, 40, 5)],
    "a lot's rest moved to another": [the_lot(1, 51, 4), the_lot(2, 19, 3)],
    "a lot's number": [the_lot(2, 20, 4)],
    "a lot's number back": [the_lot(1, 50, 1)],
    **{
        f"a lot's {column}": [f"UPDATE credit_lots SET {column} = {value} WHERE user_id = :who"]  # noqa: S608  ours
        for column, value in {
            "seq": "seq + 10",
            "source": "'opening'",
            "priority": "priority + 1",
            "granted": "granted + 1",
            "expires_at": "now() + interval '1 day'",
            "transaction_id": "CASE seq WHEN 1 THEN gen_random_uuid() END",
            "user_id": "gen_random_uuid()",
        }.items()
    },
    "an entry of nobody": [an_entry(1, "renewal", 0, 0).replace(":who", "gen_random_uuid()")],
    "a posting of no entry": [a_posting(5, 1, -10, 40), the_lot(1, 40, 5)],
    "a posting of no lot": [SPEND_5[0], a_posting(5, 4, -10, 40), the_user(60, 5)],
    "a posting of nobody": [a_posting(1, 1, 10, 10).replace(":who", "gen_random_uuid()")],
    "a user deleted": ["DELETE FROM users WHERE user_id = :who"],
    "a user renumbered": ["UPDATE users SET user_id = gen_random_uuid() WHERE user_id = :who"],
    "an entry of a user who is temporary": [
        "CREATE TEMPORARY TABLE users (LIKE users) ON COMMIT DROP",
        A_TEMPORARY_USER,
        an_entry(1, "renewal", 0, 0).replace(":who", "(SELECT user_id FROM pg_temp.users)"),
    ],
    "a user renumbered with a balance": [
        "INSERT INTO users (email, password_hash) VALUES ('f@example.com', 'x')",
        *COMMITTED,
        A_NEW_NUMBER_AND_A_BALANCE,
    ],
    "lots deleted": ["DELETE FROM credit_lots WHERE user_id = :who"],
    "an entry changed": ["UPDATE credit_entries SET reference = 'x' WHERE user_id = :who"],
    "no entry changed": ["UPDATE credit_entries SET reference = 'x' WHERE false"],
    "entries deleted": ["DELETE FROM credit_entries WHERE user_id = :who"],
    "a posting changed": ["UPDATE credit_postings SET amount = 1 WHERE user_id = :who"],
    "postings deleted": ["DELETE FROM credit_postings WHERE user_id = :who"],
    "all emptied": ["TRUNCATE users CASCADE"],
    "entries emptied": ["TRUNCATE credit_entries CASCADE"],
    "postings emptied": ["TRUNCATE credit_postings"],
    "lots emptied": ["TRUNCATE credit_lots CASCADE"],
}


def _person(session: Session) -> uuid.UUID:
    who = make_user(session).user_id
    execute(session, [grant(who, 100), grant(who, 20, priority=200)])
    execute(session, [open_hold(who, 30), spend(who, 20)])
    check_books(session)
    return who


def _forge(session: Session, who: uuid.UUID, statements: list[str]) -> None:
    with session.begin_nested():
        for statement in statements:
            session.execute(text(statement), {"who": who})
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def in_one_statement(statements: list[str]) -> list[str]:
    """The same changes as the ledger makes them: at once, for the triggers to see them together."""
    *others, last = statements
    parts = ", ".join(f"part_{n} AS ({part})" for n, part in enumerate(others))
    return [f"WITH {parts} {last}" if parts else last]


IN_ONE_STATEMENT = {
    forgery: in_one_statement(statements)
    for forgery, statements in FORGERIES.items()
    # Some are no part of another statement, and nothing is committed within one.
    if not statements[0].startswith(("TRUNCATE", "CREATE")) and not {*statements} & {*COMMITTED}
}


@pytest.mark.parametrize("forgeries", [FORGERIES, IN_ONE_STATEMENT], ids=["steps", "at once"])
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forgery_is_refused(
    in_session: InSession, forgery: str, forgeries: dict[str, list[str]]
) -> None:
    """P0001 LEDGER_UNBALANCED, no integrity error, and a hint what to call instead."""

    def work(session: Session) -> None:
        who = _person(session)
        with pytest.raises(DBAPIError) as caught:
            _forge(session, who, forgeries.get(forgery, FORGERIES[forgery]))
        assert not isinstance(caught.value, IntegrityError)
        assert getattr(caught.value.orig, "sqlstate", None) == "P0001"
        assert "LEDGER_UNBALANCED: " in str(caught.value.orig)
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("statements", [SPEND_5, GRANT_5], ids=["spend", "grant"])
async def test_what_is_written_as_the_ledger_writes_it_passes(
    in_session: InSession, statements: list[str]
) -> None:
    """So that the forgeries above are refused for the one thing that is wrong with them."""

    def work(session: Session) -> None:
        who = _person(session)
        _forge(session, who, in_one_statement(statements))
        hash_again(session, who)
        check_books(session)

    await in_session(work)


def _buy(session: Session, user: User) -> None:
    session.add(a_transaction(user=user, credits_added=5))
    user.credits_balance += 5


FLOWS: dict[str, Callable[[Session, User], object]] = {
    "a profile changed": lambda _session, user: setattr(user, "first_name", "Ada"),
    "the document's own +=": lambda _session, user: setattr(user, "credits_balance", 90),
    "the document's purchase": _buy,
    "a new user": lambda session, _user: session.add(a_user()),
    "a new user with a balance": lambda session, _user: session.add(a_user(credits_balance=5)),
    "an adjustment": lambda session, user: execute(session, [adjust(user.user_id, -70)]),
    "a capture": lambda session, user: execute(session, [capture(user.user_id, 3, 5)]),
    "a release": lambda session, user: execute(session, [release(user.user_id, 3)]),
    "many at once": lambda session, user: execute(
        session, [spend(user.user_id, 1) for _ in range(70)]
    ),
    "a bulk change of other columns": lambda session, _user: session.execute(
        text("UPDATE users SET first_name = 'x', credits_balance = credits_balance")
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
async def test_what_is_legitimate_passes(in_session: InSession, flow: str) -> None:
    """After each commit every constraint holds when it is checked at once."""

    def work(session: Session) -> None:
        user = session.get_one(User, _person(session))
        session.commit()
        FLOWS[flow](session, user)
        session.commit()
        check_books(session)

    await in_session(work)


def test_a_bulk_update_is_refused_at_commit(db: Session) -> None:
    """The ORM's own bulk statements bypass the listener, and not the trigger."""
    who = _person(db)
    db.commit()
    db.bulk_update_mappings(
        User.__mapper__,
        [{"user_id": who, "credits_balance": 1_000}],
    )
    with pytest.raises(DBAPIError, match="LEDGER_UNBALANCED"):
        db.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    db.rollback()


LOTS = 100
_LOOKED_AT = """
SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_xact_user_tables
WHERE relname = 'credit_postings'
"""


async def test_a_spend_from_many_lots_is_summed_up_once(in_session: InSession) -> None:
    """What the triggers look at grows with the number of lines, not with its square."""

    def work(session: Session) -> None:
        # By the index, whatever statistics say of so small a table; and no plan of before.
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("DISCARD PLANS"))
        who = make_user(session).user_id
        execute(session, [grant(who, 1) for _ in range(LOTS)])
        before = session.execute(text(_LOOKED_AT)).scalar_one()
        execute(session, [spend(who, LOTS)])
        looked_at = session.execute(text(_LOOKED_AT)).scalar_one() - before
        assert LOTS <= looked_at < 10 * LOTS

    await in_session(work)
