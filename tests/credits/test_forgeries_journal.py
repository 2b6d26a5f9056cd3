"""The service's own role cannot write a journal that the rules could not have written."""

import pytest

from tests.credits.forging import Forger, Forgery, Write, entry, lot

# Alice's next entry is 14. A spend of 10 takes them from lot 1, of which 45 are left.
SPEND = entry(14, "spend", -10, 555)
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
    "an entry without its lines": Forgery([Write([SPEND], user=(555, 14))]),
    "an entry that leaves the balance alone": Forgery([Write([SPEND], [(14, 1, -10, 35)])]),
    "an entry booked in a day": Forgery([a_spend(created_at="now() + interval '1 day'")]),
    "an entry that counts tomorrow": Forgery(
        [a_spend(effective_at="now() + interval '1 day'", created_at="now() + interval '1 day'")]
    ),
    "an entry booked at infinity": Forgery([a_spend(created_at="'infinity'")]),
    "an entry that counts after it was booked": Forgery(
        [a_spend(effective_at="timestamptz '2020-01-02T00:00:01Z'")]
    ),
    "a first entry of minus infinity": Forgery(
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
    "an entry after a lot that expired, unbooked": Forgery(
        [Write([entry(3, "spend", -1, 29)], [(3, 2, -1, 19)], lots={2: (19, 3)}, user=(29, 3))],
        "late",
    ),
    "an entry after a hold that expired, unbooked": Forgery(
        [Write([entry(3, "spend", -1, 3)], [(3, 1, -1, 3)], lots={1: (3, 3)}, user=(3, 3))],
        "holding",
    ),
    "a spend that captures nothing's credits": Forgery([a_spend(captured=10)]),
    "a grant related to another entry": Forgery([a_grant(columns={"related_seq": 1})]),
    "a spend with a hold's expiry": Forgery([a_spend(hold_expires_at="now()")]),
    "entries changed": Forgery(["UPDATE credit_entries SET reference = 'x'"], by="privilege"),
    "entries deleted": Forgery(["DELETE FROM credit_entries"], by="privilege"),
}

POSTINGS = {
    "lines that cancel out, for an old entry": Forgery(
        [
            Write([SPEND], [(14, 7, -10, 490)], lots={7: (490, 14)}, user=(555, 14)),
            Write(postings=[(14, 1, 5, 50), (14, 2, -5, 15)], lots={1: (50, 14), 2: (15, 14)}),
        ]
    ),
    "lines that cancel out, for an old entry of 0": Forgery(
        [Write(postings=[(13, 1, 5, 50), (13, 2, -5, 15)], lots={1: (50, 13), 2: (15, 13)})]
    ),
    "an entry of 0 with lines": Forgery(
        [
            Write(
                [entry(14, "clawback", 0, 565)],
                [(14, 1, 5, 50), (14, 2, -5, 15)],
                lots={1: (50, 14), 2: (15, 14)},
                user=(565, 14),
            )
        ]
    ),
    "-15 and +5 for -10": Forgery(
        [
            Write(
                [SPEND],
                [(14, 1, 5, 50), (14, 2, -15, 5)],
                lots={1: (50, 14), 2: (5, 14)},
                user=(555, 14),
            )
        ]
    ),
    "first lines that begin with another rest": Forgery(
        [
            Write(
                [SPEND, entry(15, "spend", -1, 554)],
                [(14, 1, -10, 36), (15, 2, -1, 18)],
                lots={1: (36, 14), 2: (18, 15)},
                user=(554, 15),
            )
        ]
    ),
    "credits moved by first lines that later ones hide": Forgery(
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
    "a grant into a lot there is": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575)], [(14, 1, 10, 55)], lots={1: (55, 14)}, user=(575, 14)
            )
        ]
    ),
    "a grant in part into a lot there is": Forgery(
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
    "the expiry of a lot that lasts": Forgery(
        [
            Write(
                [entry(14, "lot_expiry", -45, 520)],
                [(14, 1, -45, 0)],
                lots={1: (0, 14)},
                user=(520, 14),
            )
        ]
    ),
    "postings changed": Forgery(["UPDATE credit_postings SET amount = 1"], by="privilege"),
    "postings deleted": Forgery(["DELETE FROM credit_postings"], by="privilege"),
}

LOTS = {
    "a lot of an invented purchase": Forgery([a_purchase("gen_random_uuid()", 10)]),
    "a lot of another user's purchase": Forgery([a_purchase(":others", 50)]),
    "a lot of other credits than its purchase's": Forgery([a_purchase(":unpaid", 71)]),
    "a second lot of a purchase": Forgery([a_purchase(":bought", 500)], by="unique key"),
    "a lot of a reinstatement": Forgery([a_grant("reinstatement")]),
    "a lot that never dies, in a date": Forgery([a_grant(expires_at="'infinity'")]),
    "a lot that dies in the year 9999": Forgery([a_grant(expires_at="'9999-06-01'")]),
    "a lot that is dead already": Forgery([a_grant(expires_at="'2020-01-01'")]),
    "a lot before all others": Forgery([a_grant(priority=-1)]),
    "an adjustment that expires": Forgery(
        [a_grant("adjustment", source="'adjustment'", expires_at="'2021-01-01'")]
    ),
    "an adjustment that makes a gift": Forgery([a_grant("adjustment")]),
    "a lot whose rest is more than its line": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575)],
                [(14, 14, 10, 9)],
                [{**lot(14, 10), "remaining": 9}],
                user=(575, 14),
            )
        ]
    ),
    "what remains, by hand": Forgery(["UPDATE credit_lots SET remaining = remaining + 1"]),
    "what was granted": Forgery(["UPDATE credit_lots SET granted = 1000"], by="privilege"),
    "when a lot dies": Forgery(["UPDATE credit_lots SET expires_at = NULL"], by="privilege"),
    "lots deleted": Forgery(["DELETE FROM credit_lots"], by="privilege"),
}

SET_BALANCE = "UPDATE users SET credits_balance = {} WHERE user_id = :who"
USERS = {
    "a balance, by hand": Forgery([SET_BALANCE.format(1000)]),
    "a first balance, by hand": Forgery([SET_BALANCE.format(10)], "new"),
    "a balance from before the ledger, taken": Forgery([SET_BALANCE.format(0)], "before"),
    "a balance from before the ledger, raised": Forgery([SET_BALANCE.format(150)], "before"),
    "a first balance that moves to a new number": Forgery(
        [
            SET_BALANCE.format(100),
            "UPDATE users SET user_id = gen_random_uuid() WHERE user_id = :who",
        ],
        "new",
    ),
    "a version that has no entry": Forgery(["UPDATE users SET credits_version = 14"]),
    "a version of before": Forgery(["UPDATE users SET credits_version = 12 WHERE user_id = :who"]),
    "a new user with a balance": Forgery(
        ["INSERT INTO users (email, password_hash, credits_balance) VALUES ('f@x', 'x', 1)"]
    ),
    "a new user with a version": Forgery(
        ["INSERT INTO users (email, password_hash, credits_version) VALUES ('f@x', 'x', 1)"]
    ),
    "a user with books renumbered": Forgery(
        ["UPDATE users SET user_id = gen_random_uuid() WHERE user_id = :who"]
    ),
    "users deleted": Forgery(["DELETE FROM users"], by="privilege"),
}
FORGERIES = {**ENTRIES, **POSTINGS, **LOTS, **USERS}


@pytest.mark.parametrize("name", HONEST)
def test_what_the_rules_could_have_written_passes(forger: Forger, name: str) -> None:
    """So that each forgery below is refused for the one thing that is wrong with it."""
    assert forger.attempt(HONEST[name]) is None


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_journal_is_refused(forger: Forger, name: str) -> None:
    """By what the reference says, at the latest at COMMIT."""
    assert forger.attempt(FORGERIES[name]) == FORGERIES[name].by
