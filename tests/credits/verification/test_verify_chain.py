"""What a superuser changes with the triggers off, and the hashes show."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.accounts.operations import erase_user
from src.common.credits.verification import chained, recompute
from src.common.credits.verification.chained import (
    ENTRY_HASH_DOES_NOT_FIT,
    ENTRY_HASH_IS_MISSING,
    recompute_chain,
)
from src.common.credits.verification.comparison import ROWS_CANNOT_BE_READ
from src.common.credits.verification.report import Report
from tests.credits.books import check_books, forget_hashes, hash_again
from tests.credits.verification.test_verify_columns import a_debtor, a_life

ENTRIES = "UPDATE credit_entries SET {} WHERE user_id = :who AND seq = :seq"
CHANGES = {
    "an amount": ENTRIES.format("amount = amount - 1"),
    "a key": ENTRIES.format("idempotency_key = 'another'"),
    "a digest": ENTRIES.format("request_digest = sha256('another')"),
    "an actor": ENTRIES.format("actor = 'user:somebody'"),
    "a reference": ENTRIES.format("reference = 'another'"),
    "when it counts": ENTRIES.format("effective_at = effective_at - interval '1 microsecond'"),
    "when it was booked": ENTRIES.format("created_at = created_at + interval '1 microsecond'"),
    "a posting": (
        "UPDATE credit_postings SET amount = amount - 1 WHERE user_id = :who AND seq = :seq"
    ),
    "a posting of another lot": (
        "UPDATE credit_postings SET lot_seq = 3 WHERE user_id = :who AND seq = :seq AND lot_seq = 2"
    ),
    "a posting removed": "DELETE FROM credit_postings WHERE user_id = :who AND seq = :seq",
    "a hash": ENTRIES.format("entry_hash = sha256('another')"),
}
"""By what is changed, in the life's third entry: a spend."""


def verified(session: Session, user_id: uuid.UUID) -> dict[str, int | None]:
    """By kind, the entry that is named first."""
    report = Report()
    recompute.recompute(session, report, [user_id])
    found: dict[str, int | None] = {}
    for each in report.first:
        found.setdefault(each.kind, each.seq)
    return found


@pytest.fixture
def who(db: Session) -> uuid.UUID:
    """Somebody with a journal of every kind, and a session without triggers."""
    user_id = a_life(db)
    check_books(db)
    db.execute(text("SET LOCAL session_replication_role = replica"))
    assert verified(db, user_id) == {}
    return user_id


@pytest.mark.parametrize("change", CHANGES)
def test_the_first_entry_that_is_not_what_it_was_is_named(
    db: Session, who: uuid.UUID, change: str
) -> None:
    """Once, though every later hash differs with it."""
    db.execute(text(CHANGES[change]), {"who": who, "seq": 3})
    report = Report()
    recompute.recompute(db, report, [who])
    hashes = [each for each in report.first if each.kind == ENTRY_HASH_DOES_NOT_FIT]
    assert [each.seq for each in hashes] == [3]


@pytest.mark.parametrize(
    ("table", "column", "seq"),
    [
        ("credit_lots", "granted = granted + 1", 2),
        ("credit_lots", "priority = priority + 1", 2),
        ("credit_lots", "source = 'adjustment'", 2),
        ("credit_lots", "expires_at = expires_at + interval '1 second'", 1),
        ("credit_holds", "amount = amount + 1", 4),
    ],
)
def test_what_is_fixed_of_a_lot_or_hold_is_part_of_its_entry(
    db: Session, who: uuid.UUID, table: str, column: str, seq: int
) -> None:
    """The entry that made it is named."""
    changing = text(f"UPDATE {table} SET {column} WHERE user_id = :who AND seq = :seq")  # noqa: S608
    db.execute(changing, {"who": who, "seq": seq})
    assert verified(db, who)[ENTRY_HASH_DOES_NOT_FIT] == seq


def test_two_entries_exchanged(db: Session, who: uuid.UUID) -> None:
    """The first of them is named."""
    for table in ("credit_entries", "credit_postings"):
        for before, after in ((2, 1002), (3, 2), (1002, 3)):
            db.execute(
                text(f"UPDATE {table} SET seq = :after WHERE user_id = :who AND seq = :before"),  # noqa: S608
                {"who": who, "before": before, "after": after},
            )
    assert verified(db, who)[ENTRY_HASH_DOES_NOT_FIT] == 2


def test_an_entry_in_the_middle_removed(db: Session, who: uuid.UUID) -> None:
    """The one after it follows another."""
    db.execute(text("DELETE FROM credit_entries WHERE user_id = :who AND seq = 3"), {"who": who})
    assert verified(db, who)[ENTRY_HASH_DOES_NOT_FIT] == 4


def test_the_last_entry_removed(db: Session, who: uuid.UUID) -> None:
    """The user's row says that there was one; whoever changes all of it is found by anchors."""
    db.execute(
        text(
            "DELETE FROM credit_entries WHERE user_id = :who"
            " AND seq = (SELECT credits_version FROM users WHERE user_id = :who)"
        ),
        {"who": who},
    )
    assert "users.credits_version" in verified(db, who)


def test_the_id_of_another_ledger(db: Session, who: uuid.UUID) -> None:
    """No chain begins as it should; nor where nobody knows which ledger it is."""
    for statement in ("UPDATE credit_ledgers SET ledger_id = gen_random_uuid()",
                      "DELETE FROM credit_ledgers"):  # fmt: skip
        db.execute(text(statement))
        assert verified(db, who) == {ENTRY_HASH_DOES_NOT_FIT: 1}


def test_entries_that_were_taken_from_another_user(db: Session, who: uuid.UUID) -> None:
    """Whose they are is part of each."""
    other = a_debtor(db)
    db.execute(
        text(
            "UPDATE credit_entries e SET entry_hash = o.entry_hash FROM credit_entries o"
            " WHERE e.user_id = :who AND o.user_id = :other AND e.seq = o.seq"
        ),
        {"who": who, "other": other},
    )
    assert verified(db, who) == {ENTRY_HASH_DOES_NOT_FIT: 1}


def test_a_hash_that_is_missing(db: Session, who: uuid.UUID) -> None:
    """In the middle always; from some entry on once all entries have one, and not before."""
    forget = text("UPDATE credit_entries SET entry_hash = NULL WHERE user_id = :who AND seq = 4")
    with db.begin_nested() as savepoint:
        db.execute(forget, {"who": who})
        assert verified(db, who) == {ENTRY_HASH_IS_MISSING: 4}
        db.execute(text("UPDATE credit_ledgers SET chained_at = NULL"))
        assert verified(db, who) == {ENTRY_HASH_IS_MISSING: 4}
        savepoint.rollback()
    forget_hashes(db, who, after=3)
    assert verified(db, who) == {ENTRY_HASH_IS_MISSING: 4}
    forget_hashes(db, who)
    assert verified(db, who) == {ENTRY_HASH_IS_MISSING: 1}
    db.execute(text("SET LOCAL session_replication_role = replica"))
    db.execute(text("UPDATE credit_ledgers SET chained_at = NULL"))
    assert verified(db, who) == {}
    hash_again(db, who)
    forget_hashes(db, who, after=3)
    assert verified(db, who) == {}


def test_a_journal_too_long_to_be_replayed_has_its_hashes_recomputed(
    db: Session, who: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In portions, each after the one before it."""
    monkeypatch.setattr("src.common.credits.verification.reading.JOURNAL_MAX", 3)
    monkeypatch.setattr(chained, "PORTION_ENTRIES", 4)
    assert verified(db, who) == {}
    db.execute(text(CHANGES["an actor"]), {"who": who, "seq": 6})
    assert verified(db, who) == {ENTRY_HASH_DOES_NOT_FIT: 6}
    db.execute(
        text("UPDATE credit_entries SET created_at = 'infinity' WHERE user_id = :who AND seq = 6"),
        {"who": who},
    )
    assert [*verified(db, who)] == [ROWS_CANNOT_BE_READ]


@pytest.mark.parametrize("make", [a_life, a_debtor], ids=["life", "debtor"])
def test_a_chain_can_be_recomputed_from_any_entry(
    db: Session, make: Callable[[Session], uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happened to its holds, lots and debts since; up to any entry."""
    who = make(db)
    whole = list(recompute_chain(db, who))
    assert [link.seq for link in whole] == list(range(1, len(whole) + 1))
    assert all(link.stored == link.computed for link in whole)
    monkeypatch.setattr(chained, "PORTION_ENTRIES", 2)
    for place, link in enumerate(whole):
        rest = recompute_chain(db, who, after=link.seq, previous=link.computed)
        assert list(rest) == whole[place + 1 :]
        assert list(recompute_chain(db, who, until=link.seq)) == whole[: place + 1]


def test_an_erasure_changes_no_hash(db: Session) -> None:
    """Metadata and all that says who somebody is stays outside."""
    who = a_life(db)
    before = list(recompute_chain(db, who))
    erase_user(db, who)
    db.flush()
    assert list(recompute_chain(db, who)) == before
    assert verified(db, who) == {}
    check_books(db)
