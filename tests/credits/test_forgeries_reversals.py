"""The service's own role cannot undo what is not there to be undone (rules 9 and 12)."""

import pytest

from tests.credits.forging import Forger, Forgery, Write, entry

# Alice's next entry is 14. Spend 4 took 20 of lot 1, of which 45 are left; of hold 5 4 of 10 were
# captured; hold 11 of 7 has expired; 45 of lot 1 and 20 of lot 2, both given, are left; lot 7 was
# bought.


def undoing(related_seq: object, amount: int, lot: int = 1, before: int = 45) -> Write:
    """An entry that undoes so much of another, in this lot."""
    after = before + amount
    return Write(
        entries=[entry(14, "reversal", amount, 565 + amount, related_seq=related_seq)],
        postings=[(14, lot, amount, after)],
        lots={lot: (after, 14)},
        user=(565 + amount, 14),
    )


def twice(related_seq: int, first: int, second: int) -> Write:
    """Two such entries, of lot 1."""
    return Write(
        entries=[
            entry(14, "reversal", first, 565 + first, related_seq=related_seq),
            entry(15, "reversal", second, 565 + first + second, related_seq=related_seq),
        ],
        postings=[(14, 1, first, 45 + first), (15, 1, second, 45 + first + second)],
        lots={1: (45 + first + second, 15)},
        user=(565 + first + second, 15),
    )


HONEST = {
    "all of a spend": Forgery([undoing(4, 20)]),
    "a spend in two parts": Forgery([twice(4, 12, 8)]),
    "what a hold captured": Forgery([undoing(5, 4)]),
    "a grant": Forgery([undoing(2, -20, 2, 20)]),
    "what is left of a grant": Forgery([undoing(1, -45)]),
}
FORGERIES = {
    "nothing": Forgery([undoing("NULL", 20)]),
    "an entry that is not there": Forgery([undoing(20, 20)]),
    "itself": Forgery([undoing(14, 20)]),
    "more than a spend took": Forgery([undoing(4, 21)]),
    "more than a spend took, in two parts": Forgery([twice(4, 12, 9)]),
    "more than a spend took, in two statements": Forgery(
        [
            undoing(4, 20),
            Write(
                entries=[entry(15, "reversal", 1, 586, related_seq=4)],
                postings=[(15, 1, 1, 66)],
                lots={1: (66, 15)},
                user=(586, 15),
            ),
        ]
    ),
    "a spend in another lot": Forgery([undoing(4, 20, 7, 500)], by="CHECK"),
    "a spend in a lot it did not take from": Forgery(
        [
            Write(
                entries=[entry(14, "spend", -20, 545)],
                postings=[(14, 2, -20, 0)],
                lots={2: (0, 14)},
                user=(545, 14),
            ),
            Write(
                entries=[entry(15, "reversal", 20, 565, related_seq=4)],
                postings=[(15, 2, 20, 20)],
                lots={2: (20, 15)},
                user=(565, 15),
            ),
        ]
    ),
    "a spend once more": Forgery([undoing(4, -20)]),
    "more than a hold captured": Forgery([undoing(5, 5)]),
    "a hold of which nothing was captured": Forgery([undoing(11, 7)]),
    "an open hold": Forgery([undoing(3, 30)]),
    "a capture": Forgery([undoing(6, 4)]),
    "a purchase": Forgery([undoing(7, -20, 7, 500)]),
    "a grant in another's lot": Forgery([undoing(2, -20)]),
    "a grant upwards": Forgery([undoing(1, 20)]),
    "a release": Forgery([undoing(10, -5)]),
    "with an expiry": Forgery(
        [
            Write(
                entries=[
                    entry(
                        14,
                        "reversal",
                        20,
                        585,
                        related_seq=4,
                        hold_expires_at="timestamptz '2020-01-03T00:00Z'",
                    )
                ],
                postings=[(14, 1, 20, 65)],
                lots={1: (65, 14)},
                user=(585, 14),
            )
        ]
    ),
    "for nothing": Forgery(
        [Write(entries=[entry(14, "reversal", 0, 565, related_seq=4)], user=(565, 14))],
        by="CHECK",
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_the_rules_write_is_let_through(forger: Forger, name: str) -> None:
    """The checks refuse nothing that is right."""
    assert forger.attempt(HONEST[name]) is None


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_not_there_to_be_undone_is_refused(forger: Forger, name: str) -> None:
    """By the wall that is meant to: a trigger, or a CHECK."""
    assert forger.attempt(FORGERIES[name]) == FORGERIES[name].refused_by(forger.form)
