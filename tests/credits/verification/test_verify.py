"""`verify` recomputes every book: sound ones pass, and each kind of corruption is named.

The corruption is made as only a superuser can, with triggers off, in a database of the test's own.
"""

import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Capture, Grant, OpenHold, Release, Renew, Spend
from src.common.credits.verification import verify
from src.common.credits.verification.report import FIRST_MAX, Difference, Report
from src.common.credits.verification.sums import CHECKS
from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters
from tests.credits.ledger import at, buy, do, someone

FAR = 10_000
Found = tuple[str, int | None, str | None, str | None]
"""Kind, seq, expected, found."""


def last_report(user_ids: list[uuid.UUID] | None = None, batch_size: int = 500) -> Report:
    """The report when all is done."""
    *_, report = verify.verify(SessionLocal, user_ids=user_ids, batch_size=batch_size)
    return report


def corrupt(statements: str, user_id: uuid.UUID) -> None:
    """Change the user's rows behind the ledger's back."""
    with SessionLocal.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements.split(";"):
            parameters = {"user_id": user_id} if ":user_id" in statement else {}
            session.execute(text(statement), parameters)


def a_life(session: Session) -> uuid.UUID:
    """A user with everything in their books.

    Lots: 1 (60, dead: its last 10 expired by entry 14), 2 (100 bought, 93 left), 3 (5, used up).
    Holds: 5 open; 6 captured by 7 and 8; 9 released by 10; 11 renewed by 12, expired by 13, 7 of
    it retaken by 15. 4 is a spend from lots 3 and 1.
    """
    user_id = someone(session)
    do(session, Grant, user_id, 0, amount=60, expires_at=at(50))
    buy(session, user_id, 1, amount=100)
    do(session, Grant, user_id, 2, amount=5, priority=0)
    do(session, Spend, user_id, 3, amount=10, metadata={"deck": 1})
    do(session, OpenHold, user_id, 4, amount=35, expires_in_seconds=FAR)
    do(session, OpenHold, user_id, 5, amount=15, expires_in_seconds=FAR)
    do(session, Capture, user_id, 6, hold_seq=6, amount=4, final=False)
    do(session, Capture, user_id, 7, hold_seq=6, amount=6)
    do(session, OpenHold, user_id, 8, amount=8, expires_in_seconds=FAR)
    do(session, Release, user_id, 9, hold_seq=9)
    do(session, OpenHold, user_id, 10, amount=9, expires_in_seconds=5)
    do(session, Renew, user_id, 11, hold_seq=11, expires_in_seconds=20)
    do(session, Capture, user_id, 60, hold_seq=11, amount=7, if_expired="retake")
    return user_id


@pytest.fixture
def life(fresh_database: ConnectionParameters) -> uuid.UUID:
    """A committed user with everything in their books, between two others."""
    assert fresh_database
    with SessionLocal.begin() as session:
        someone(session)
        user_id = a_life(session)
        a_life(session)
    return user_id


def test_sound_books_have_no_difference(life: uuid.UUID) -> None:
    """Everything the ledger writes verifies, in batches of any size, and every user once."""
    for size in (1, 2, 3, 500):
        report = last_report(batch_size=size)
        assert (report.users, report.differences, report.first) == (3, 0, [])
    report = last_report([life])
    assert (report.users, report.differences) == (1, 0)


BOOKED = "BALANCE_IS_NOT_ITS_"
CORRUPTIONS: dict[str, tuple[str, set[Found]]] = {
    "a balance": (
        "UPDATE users SET credits_balance = 94 WHERE user_id = :user_id",
        {
            (f"{BOOKED}ENTRIES", None, "93", "94"),
            (f"{BOOKED}NEWEST_ENTRYS", None, "93", "94"),
            (f"{BOOKED}LOTS", None, "93", "94"),
        },
    ),
    "a debt of a spend": (
        "INSERT INTO credit_debts VALUES (:user_id, 4, 0)",
        {("DEBT_OF_NO_PAYMENT", 4, "a lot or the opening", "spend")},
    ),
    "a version": (
        "UPDATE users SET credits_version = 16 WHERE user_id = :user_id",
        {("VERSION_IS_NOT_THE_NEWEST_ENTRY", None, "15", "16")},
    ),
    "the newest entry gone": (
        "DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 15",
        {
            (f"{BOOKED}ENTRIES", None, "100", "93"),
            (f"{BOOKED}NEWEST_ENTRYS", None, "100", "93"),
            ("VERSION_IS_NOT_THE_NEWEST_ENTRY", None, "14", "15"),
            ("ENTRY_IS_NOT_ITS_POSTINGS", 15, "-7", None),
            ("CAPTURED_IS_NOT_ITS_ENTRIES", 11, "0", "7"),
        },
    ),
    "an entry in between gone": (
        "DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 12",
        {
            ("ENTRY_IS_MISSING", 12, "12", "13"),
            ("EXPIRY_IS_NOT_ITS_ENTRIES", 11, "2020-01-01 00:00:15+00", "2020-01-01 00:00:31+00"),
        },
    ),
    "an amount": (
        "UPDATE credit_entries SET amount = -11 WHERE user_id = :user_id AND seq = 4",
        {
            (f"{BOOKED}ENTRIES", None, "92", "93"),
            ("BALANCE_AFTER_IS_NOT_THE_SUM", 4, "154", "155"),
            ("ENTRY_IS_NOT_ITS_POSTINGS", 4, "-10", "-11"),
        },
    ),
    "a balance after": (
        "UPDATE credit_entries SET balance_after = 94 WHERE user_id = :user_id AND seq = 15",
        {
            ("BALANCE_AFTER_IS_NOT_THE_SUM", 15, "93", "94"),
            (f"{BOOKED}NEWEST_ENTRYS", None, "94", "93"),
        },
    ),
    "an instant": (
        (
            "UPDATE credit_entries SET effective_at = effective_at - interval '1 day'"
            " WHERE user_id = :user_id AND seq = 4"
        ),
        {("EFFECTIVE_AT_GOES_BACK", 4, "2020-01-01 00:00:02+00", "2019-12-31 00:00:03+00")},
    ),
    "a posting gone": (
        "DELETE FROM credit_postings WHERE user_id = :user_id AND seq = 4 AND lot_seq = 1",
        {
            ("ENTRY_IS_NOT_ITS_POSTINGS", 4, "-5", "-10"),
            ("REMAINING_AFTER_IS_NOT_THE_SUM", 5, "25", "20"),
            ("LOT_IS_NOT_ITS_POSTINGS", 1, "5", "0"),
        },
    ),
    "a posting too many": (
        "INSERT INTO credit_postings VALUES (:user_id, 15, 3, 2, 2)",
        {
            ("ENTRY_IS_NOT_ITS_POSTINGS", 15, "-5", "-7"),
            ("LOT_IS_NOT_ITS_POSTINGS", 3, "2", "0"),
            ("LOT_IS_NOT_ITS_NEWEST_POSTING", 3, "2", "0"),
            ("LAST_SEQ_IS_NOT_THE_NEWEST_POSTING", 3, "15", "4"),
        },
    ),
    "a posting's remainder": (
        (
            "UPDATE credit_postings SET remaining_after = 94"
            " WHERE user_id = :user_id AND seq = 15 AND lot_seq = 2"
        ),
        {
            ("REMAINING_AFTER_IS_NOT_THE_SUM", 15, "93", "94"),
            ("LOT_IS_NOT_ITS_NEWEST_POSTING", 2, "94", "93"),
        },
    ),
    "a lot's grant": (
        "UPDATE credit_lots SET granted = 61 WHERE user_id = :user_id AND seq = 1",
        {("LOT_IS_NOT_ITS_GRANT", 1, "60", "61")},
    ),
    "a lot's remainder": (
        "UPDATE credit_lots SET remaining = 92 WHERE user_id = :user_id AND seq = 2",
        {
            (f"{BOOKED}LOTS", None, "92", "93"),
            ("LOT_IS_NOT_ITS_POSTINGS", 2, "93", "92"),
            ("LOT_IS_NOT_ITS_NEWEST_POSTING", 2, "93", "92"),
        },
    ),
    "a lot gone": (
        "DELETE FROM credit_lots WHERE user_id = :user_id AND seq = 3",
        {
            ("LOT_IS_NOT_ITS_GRANT", 3, "5", None),
            ("LOT_IS_NOT_ITS_POSTINGS", 3, "0", None),
            ("LOT_IS_NOT_ITS_NEWEST_POSTING", 3, "0", None),
            ("LAST_SEQ_IS_NOT_THE_NEWEST_POSTING", 3, "4", None),
        },
    ),
    "a lot from nowhere": (
        "INSERT INTO credit_lots VALUES (:user_id, 15, 'promo', NULL, 10, 5, NULL, 5, 15, true)",
        {
            (f"{BOOKED}LOTS", None, "98", "93"),
            ("LOT_IS_NOT_ITS_GRANT", 15, None, "5"),
            ("LOT_IS_NOT_ITS_POSTINGS", 15, "0", "5"),
            ("LOT_IS_NOT_ITS_NEWEST_POSTING", 15, None, "5"),
            ("LAST_SEQ_IS_NOT_THE_NEWEST_POSTING", 15, None, "15"),
        },
    ),
    "a lot's newest entry": (
        "UPDATE credit_lots SET last_seq = 13 WHERE user_id = :user_id AND seq = 2",
        {("LAST_SEQ_IS_NOT_THE_NEWEST_POSTING", 2, "15", "13")},
    ),
    "whether a lot is open": (
        (
            "ALTER TABLE credit_lots DROP CONSTRAINT ck_credit_lots_open_while_anything_remains;"
            "UPDATE credit_lots SET is_open = false WHERE user_id = :user_id AND seq = 2"
        ),
        {("IS_OPEN_IS_WRONG", 2, "true", "false")},
    ),
    "a hold's amount": (
        "UPDATE credit_holds SET amount = 36 WHERE user_id = :user_id AND seq = 5",
        {("HOLD_IS_NOT_ITS_ENTRY", 5, "35", "36")},
    ),
    "a hold gone": (
        "DELETE FROM credit_holds WHERE user_id = :user_id AND seq = 5",
        {("HOLD_IS_NOT_ITS_ENTRY", 5, "35", None)},
    ),
    "a hold from nowhere": (
        "INSERT INTO credit_holds VALUES (:user_id, 4, 10, 0, 'open', '2020-02-01T00:00Z')",
        {("HOLD_IS_NOT_ITS_ENTRY", 4, None, "10")},
    ),
    "what a hold captured": (
        "UPDATE credit_holds SET captured = 11 WHERE user_id = :user_id AND seq = 6",
        {("CAPTURED_IS_NOT_ITS_ENTRIES", 6, "10", "11")},
    ),
    "what an entry captured": (
        "UPDATE credit_entries SET captured = 5 WHERE user_id = :user_id AND seq = 7",
        {
            ("CAPTURED_IS_NOT_ITS_ENTRIES", 6, "11", "10"),
            ("RETURNED_IS_NOT_THE_REST", 6, "4", "5"),
        },
    ),
    "a hold that was released and is open": (
        "UPDATE credit_holds SET status = 'open' WHERE user_id = :user_id AND seq = 9",
        {("STATUS_IS_NOT_ITS_ENTRIES", 9, "released", "open")},
    ),
    "a hold that was captured and is released": (
        "UPDATE credit_holds SET status = 'released' WHERE user_id = :user_id AND seq = 6",
        {("STATUS_IS_NOT_ITS_ENTRIES", 6, "captured", "released")},
    ),
    "a hold that is open and is not": (
        "UPDATE credit_holds SET status = 'expired' WHERE user_id = :user_id AND seq = 5",
        {("STATUS_IS_NOT_ITS_ENTRIES", 5, "open", "expired")},
    ),
    "a hold returned twice": (
        "UPDATE credit_entries SET related_seq = 9 WHERE user_id = :user_id AND seq = 13",
        {
            ("RETURNED_IS_NOT_THE_REST", 9, "8", "17"),
            ("STATUS_IS_NOT_ITS_ENTRIES", 11, "open", "expired"),
        },
    ),
    "when a hold expires": (
        (
            "UPDATE credit_holds SET expires_at = '2020-01-02T00:00Z'"
            " WHERE user_id = :user_id AND seq = 5"
        ),
        {("EXPIRY_IS_NOT_ITS_ENTRIES", 5, "2020-01-01 02:46:44+00", "2020-01-02 00:00:00+00")},
    ),
    "a debt beside a balance": (
        "INSERT INTO credit_debts VALUES (:user_id, 2, 5)",
        {("DEBT_BESIDE_A_BALANCE", None, "0", "93")},
    ),
    "a debt below 0": (
        (
            "ALTER TABLE credit_debts DROP CONSTRAINT ck_credit_debts_outstanding_not_negative;"
            "INSERT INTO credit_debts VALUES (:user_id, 2, -5)"
        ),
        {("DEBT_IS_NEGATIVE", 2, "0", "-5")},
    ),
}


@pytest.mark.parametrize(("statements", "expected"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_each_corruption_is_found_and_named(
    life: uuid.UUID, statements: str, expected: set[Found]
) -> None:
    """Exactly the sums that differ, what the rest says and what was found; nobody else's.

    The rules, which come first, have found the user without them.
    """
    corrupt(statements, life)
    report = last_report()
    sums = [each for each in report.first if each.kind in CHECKS]
    assert {(each.kind, each.seq, each.expected, each.found) for each in sums} == expected
    assert report.first[0].kind not in CHECKS
    assert {each.user_id for each in report.first} == {life}
    assert (report.users, report.differing_users) == (3, 1)
    assert (len(sums), len(report.first)) == (len(expected), report.differences)
    assert last_report([life]).first == report.first


def test_every_check_has_a_corruption_that_it_finds() -> None:
    """No check is there that no test has seen fail."""
    found = {kind for _, differences in CORRUPTIONS.values() for kind, *_ in differences}
    assert found == set(CHECKS)


def test_books_without_a_user_are_found(life: uuid.UUID) -> None:
    """A user deleted with triggers off leaves books that nobody's batch reads."""
    corrupt("DELETE FROM users WHERE user_id = :user_id", life)
    report = last_report()
    assert report.first == [
        Difference(user_id=life, seq=1, kind="USER_IS_MISSING", expected="a user", found=None)
    ]
    assert (report.users, report.differing_users, report.differences) == (2, 1, 1)


def test_a_balance_from_before_the_ledger_is_no_difference(life: uuid.UUID) -> None:
    """A user with a balance and no entry at all is counted apart."""
    with SessionLocal.begin() as session:
        before = someone(session)
    corrupt("UPDATE users SET credits_balance = 70 WHERE user_id = :user_id", before)
    report = last_report()
    assert (report.without_opening_entry, report.differences) == (1, 0)
    assert last_report([life]).without_opening_entry == 0


def test_all_differences_are_counted_and_the_first_are_named(life: uuid.UUID) -> None:
    """However many there are, the report stays small."""
    corrupt(
        "INSERT INTO credit_postings SELECT :user_id, seq, 1, 1, 1"
        " FROM generate_series(1001, 2000) AS seq",
        life,
    )
    report = last_report()
    assert report.differences > 1_000
    assert (len(report.first), report.differing_users) == (FIRST_MAX, 1)


def test_a_sample_is_of_the_size_asked_for(life: uuid.UUID) -> None:
    """So many different users, or all there are."""
    with SessionLocal.begin() as session:
        assert verify.count_users(session) == 3
        assert len(set(verify.sample_users(session, 2))) == 2
        assert life in verify.sample_users(session, 100)


def test_writers_meanwhile_make_no_difference(life: uuid.UUID) -> None:
    """A database transaction in flight is not seen in part: each batch is one snapshot."""
    with SessionLocal.begin() as session:
        do(session, Spend, life, 70, amount=1)
        assert last_report().differences == 0
    assert last_report().differences == 0


def test_verify_reports_after_each_batch(life: uuid.UUID) -> None:
    """Whoever waits sees how far it is."""
    assert life
    seen = [report.users for report in verify.verify(SessionLocal, batch_size=1)]
    assert seen == [1, 2, 3, 3]
