"""The service's own role cannot write a journal that the rules could not have written."""

import pytest

from tests.credits.forging import Forger, Forgery, Write, entry, lot

# Alice's next entry is 14. A spend of 10 takes them from lot 1, of which 45 are left.
SPEND = entry(14, "spend", -10, 555)
BORN = "'00000000-0000-4000-8000-000000000001'::uuid"
BORN_WITH_ENTRY = (
    "INSERT INTO users (user_id, email, password_hash, credits_balance, credits_version)"
    " VALUES ('00000000-0000-4000-8000-000000000001', 'f@x', 'x', 10, 1)"
)
ITS_ENTRY = Write([entry(1, "grant", 10, 10, user_id=BORN)])
LATER = {"effective_at": "now()", "created_at": "now()"}


def a_spend(**others: object) -> Write:
    """An honest spend of 10, but for these columns of its entry."""
    return Write(
        entries=[{**SPEND, **others}], postings=[(14, 1, -10, 35)], lots={1: (35, 14)},
        user=(555, 14),
    )  # fmt: skip


def a_grant(
    kind: str = "grant", columns: dict[str, object] | None = None, **of_lot: object
) -> Write:
    """An honest grant of 10, but for these columns of its entry and its lot."""
    return Write(
        entries=[{**entry(14, kind, 10, 575), **(columns or {})}],
        new_lots=[lot(14, 10, **of_lot)],
        postings=[(14, 14, 10, 10)],
        user=(575, 14),
    )


def a_purchase(transaction: str, credits_added: int) -> Write:
    """A grant for a purchase."""
    return Write(
        entries=[entry(14, "grant", credits_added, 565 + credits_added)],
        new_lots=[
            lot(14, credits_added, source="'purchase'", priority=100, transaction_id=transaction)
        ],
        postings=[(14, 14, credits_added, credits_added)],
        user=(565 + credits_added, 14),
    )


HONEST = {
    "a spend": Forgery([a_spend()]),
    "a grant": Forgery([a_grant()]),
    "a grant that expires": Forgery([a_grant(expires_at="timestamptz '2020-01-03T00:00Z'")]),
    "a purchase": Forgery([a_purchase(":unpaid", 70)]),
    "a grant now": Forgery(
        [
            Write(
                entries=[entry(1, "grant", 10, 10, **LATER)],
                new_lots=[lot(1, 10)],
                postings=[(1, 1, 10, 10)],
                user=(10, 1),
            )
        ],
        "new",
    ),
}

ENTRIES = {
    "an entry without postings": Forgery([Write([SPEND], user=(555, 14))]),
    "an entry whose user's balance is not updated": Forgery([Write([SPEND], [(14, 1, -10, 35)])]),
    "an entry without `entry_hash`": Forgery([a_spend(entry_hash="NULL")]),
    "an entry whose `entry_hash` is no SHA-256": Forgery(
        [a_spend(entry_hash="'\\x00'::bytea")], by="CHECK"
    ),
    "an entry with `created_at` tomorrow": Forgery(
        [a_spend(created_at="now() + interval '1 day'")]
    ),
    "an entry with `effective_at` tomorrow": Forgery(
        [a_spend(effective_at="now() + interval '1 day'", created_at="now() + interval '1 day'")]
    ),
    "an entry with `created_at` infinity": Forgery([a_spend(created_at="'infinity'")]),
    "an entry with `effective_at` after `created_at`": Forgery(
        [a_spend(effective_at="timestamptz '2020-01-02T00:00:01Z'")]
    ),
    "a first entry with `effective_at` minus infinity": Forgery(
        [
            Write(
                [entry(1, "grant", 10, 10, effective_at="'-infinity'")],
                [(1, 1, 10, 10)],
                [lot(1, 10)],
                user=(10, 1),
            )
        ],
        "new",
    ),
    "an entry while the expiry of a lot is not booked yet": Forgery(
        [Write([entry(3, "spend", -1, 29)], [(3, 2, -1, 19)], lots={2: (19, 3)}, user=(29, 3))],
        "late",
    ),
    "an entry while the expiry of a hold is not booked yet": Forgery(
        [Write([entry(3, "spend", -1, 3)], [(3, 1, -1, 3)], lots={1: (3, 3)}, user=(3, 3))],
        "holding",
    ),
    "a spend with `captured`": Forgery([a_spend(captured=10)]),
    "a grant with `related_seq`": Forgery([a_grant(columns={"related_seq": 1})]),
    "a spend with `hold_expires_at`": Forgery([a_spend(hold_expires_at="now()")]),
    "UPDATE of entries": Forgery(["UPDATE credit_entries SET reference = 'x'"], by="privilege"),
    "UPDATE of an entry's `entry_hash`": Forgery(
        ["UPDATE credit_entries SET entry_hash = sha256('x')"], by="privilege"
    ),
    "DELETE of entries": Forgery(["DELETE FROM credit_entries"], by="privilege"),
    "UPDATE of `ledger_id`": Forgery(
        ["UPDATE credit_ledgers SET ledger_id = gen_random_uuid()"], by="privilege"
    ),
}

POSTINGS = {
    "postings of +5 and -5 added to an old entry": Forgery(
        [
            Write([SPEND], [(14, 7, -10, 490)], lots={7: (490, 14)}, user=(555, 14)),
            Write(postings=[(14, 1, 5, 50), (14, 2, -5, 15)], lots={1: (50, 14), 2: (15, 14)}),
        ]
    ),
    "postings of +5 and -5 added to an old entry of 0": Forgery(
        [Write(postings=[(13, 1, 5, 50), (13, 2, -5, 15)], lots={1: (50, 13), 2: (15, 13)})]
    ),
    "an entry of 0 with postings of +5 and -5": Forgery(
        [
            Write(
                [entry(14, "clawback", 0, 565)],
                [(14, 1, 5, 50), (14, 2, -5, 15)],
                lots={1: (50, 14), 2: (15, 14)},
                user=(565, 14),
            )
        ]
    ),
    "postings of -15 and +5 for an entry of -10": Forgery(
        [
            Write(
                [SPEND],
                [(14, 1, 5, 50), (14, 2, -15, 5)],
                lots={1: (50, 14), 2: (5, 14)},
                user=(555, 14),
            )
        ]
    ),
    "the first posting of a statement with a wrong `remaining_after`": Forgery(
        [
            Write(
                [SPEND, entry(15, "spend", -1, 554)],
                [(14, 1, -10, 36), (15, 2, -1, 18)],
                lots={1: (36, 14), 2: (18, 15)},
                user=(554, 15),
            )
        ]
    ),
    "wrong `remaining_after` values that later postings of the statement correct": Forgery(
        [
            Write(
                [
                    SPEND,
                    entry(15, "spend", -1, 554),
                    entry(16, "reinstatement", 10, 564),
                    entry(17, "spend", -1, 563),
                ],
                [(14, 1, -10, 45), (15, 1, -1, 44), (16, 2, 10, 20), (17, 2, -1, 19)],
                lots={1: (44, 15), 2: (19, 17)},
                user=(563, 17),
            )
        ]
    ),
    "a grant into an existing lot": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575)], [(14, 1, 10, 55)], lots={1: (55, 14)}, user=(575, 14)
            )
        ]
    ),
    "a grant of which a part goes into an existing lot": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575)],
                [(14, 1, 4, 49), (14, 14, 6, 6)],
                [lot(14, 6)],
                {1: (49, 14)},
                user=(575, 14),
            )
        ]
    ),
    "the expiry of a lot that has not expired": Forgery(
        [
            Write(
                [entry(14, "lot_expiry", -45, 520)],
                [(14, 1, -45, 0)],
                lots={1: (0, 14)},
                user=(520, 14),
            )
        ]
    ),
    "UPDATE of postings": Forgery(["UPDATE credit_postings SET amount = 1"], by="privilege"),
    "DELETE of postings": Forgery(["DELETE FROM credit_postings"], by="privilege"),
}

LOTS = {
    "a lot of a purchase that does not exist": Forgery([a_purchase("gen_random_uuid()", 10)]),
    "a lot of another user's purchase": Forgery([a_purchase(":others", 50)]),
    "a lot with more credits than its purchase": Forgery([a_purchase(":unpaid", 71)]),
    "a second lot of a purchase": Forgery([a_purchase(":bought", 500)], by="unique key"),
    "a lot made by a reinstatement": Forgery([a_grant("reinstatement")]),
    "a lot with `expires_at` infinity": Forgery([a_grant(expires_at="'infinity'")]),
    "a lot with `expires_at` in the year 9999": Forgery([a_grant(expires_at="'9999-06-01'")]),
    "a lot with `expires_at` in the past": Forgery([a_grant(expires_at="'2020-01-01'")]),
    "a lot with a negative `priority`": Forgery([a_grant(priority=-1)]),
    "an adjustment with `expires_at`": Forgery(
        [a_grant("adjustment", source="'adjustment'", expires_at="'2021-01-01'")]
    ),
    "an adjustment that makes a lot of another source": Forgery([a_grant("adjustment")]),
    "a new lot whose posting is larger than what it has": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575)],
                [(14, 14, 10, 9)],
                [{**lot(14, 10), "remaining": 9}],
                user=(575, 14),
            )
        ]
    ),
    "UPDATE of a lot's `remaining`": Forgery(["UPDATE credit_lots SET remaining = remaining + 1"]),
    "UPDATE of a lot's `granted`": Forgery(
        ["UPDATE credit_lots SET granted = 1000"], by="privilege"
    ),
    "UPDATE of a lot's `expires_at`": Forgery(
        ["UPDATE credit_lots SET expires_at = NULL"], by="privilege"
    ),
    "DELETE of lots": Forgery(["DELETE FROM credit_lots"], by="privilege"),
}

SET_BALANCE = "UPDATE users SET credits_balance = {} WHERE user_id = :who"
USERS = {
    "UPDATE of a balance": Forgery([SET_BALANCE.format(1000)]),
    "UPDATE of the balance of a user without entries": Forgery([SET_BALANCE.format(10)], "new"),
    "a balance from before the ledger set to 0": Forgery([SET_BALANCE.format(0)], "before"),
    "a balance from before the ledger raised": Forgery([SET_BALANCE.format(150)], "before"),
    "a first balance, and then another `user_id`": Forgery(
        [
            SET_BALANCE.format(100),
            "UPDATE users SET user_id = gen_random_uuid() WHERE user_id = :who",
        ],
        "new",
    ),
    "a `credits_version` without an entry": Forgery(["UPDATE users SET credits_version = 14"]),
    "a `credits_version` of an earlier entry": Forgery(
        ["UPDATE users SET credits_version = 12 WHERE user_id = :who"]
    ),
    "a new user with a balance": Forgery(
        ["INSERT INTO users (email, password_hash, credits_balance) VALUES ('f@x', 'x', 1)"]
    ),
    "a new user with a `credits_version`": Forgery(
        ["INSERT INTO users (email, password_hash, credits_version) VALUES ('f@x', 'x', 1)"]
    ),
    "a new user with a balance, and its entry without postings": Forgery(
        [BORN_WITH_ENTRY, ITS_ENTRY]
    ),
    "a new user with a balance, and its entry without postings, in one statement": Forgery(
        [f"WITH born AS ({BORN_WITH_ENTRY}) {ITS_ENTRY.sql()}"]
    ),
    "a new user at version 2, whose second entry has no postings": Forgery(
        [
            BORN_WITH_ENTRY.replace("10, 1)", "10, 2)"),
            Write(
                [entry(1, "grant", 4, 4, user_id=BORN)],
                new_lots=[lot(1, 4, user_id=BORN)],
                postings=[(1, 1, 4, 4)],
            )
            .sql()
            .replace(":who", BORN),
            Write([entry(2, "grant", 6, 10, user_id=BORN)]),
        ]
    ),
    "another `user_id` for a user with entries": Forgery(
        ["UPDATE users SET user_id = gen_random_uuid() WHERE user_id = :who"]
    ),
    "DELETE of users": Forgery(["DELETE FROM users"], by="privilege"),
}
FORGERIES = {**ENTRIES, **POSTINGS, **LOTS, **USERS}


@pytest.mark.parametrize("name", HONEST)
def test_what_the_rules_could_have_written_passes(forger: Forger, name: str) -> None:
    """So that each forgery below is refused for the one thing that is wrong with it."""
    assert forger.attempt(HONEST[name]) is None


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_journal_is_refused(forger: Forger, name: str) -> None:
    """By what the reference says, at the latest at COMMIT."""
    assert forger.attempt(FORGERIES[name]) == FORGERIES[name].refused_by(forger.form)
