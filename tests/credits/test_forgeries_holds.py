"""The service's own role cannot write holds, debts, metadata or purchases nobody's rules wrote."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import HOLD_SECONDS_MAX
from src.common.models.transaction import Transaction
from tests.credits.forging import Forger, Forgery, Write, entry, lot
from tests.models.examples import a_transaction, a_user

# Alice's next entry is 14. Hold 3 is open, 30 of lot 1, of which 45 are left; hold 11 has expired.
RENEWED = "timestamptz '2020-01-02T01:00Z'"


def a_hold(expires_at: str = RENEWED, **of_hold: object) -> Write:
    """An honest hold of 10, but for these columns of it."""
    return Write(
        entries=[entry(14, "hold", -10, 555, hold_expires_at=expires_at)],
        postings=[(14, 1, -10, 35)],
        lots={1: (35, 14)},
        new_holds=[
            {
                "seq": 14,
                "amount": 10,
                "captured": 0,
                "status": "'open'",
                "expires_at": expires_at,
                **of_hold,
            }
        ],
        user=(555, 14),
    )


def a_release(amount: int, hold: int = 3, set_: str | None = "status = 'released'") -> Write:
    """The release of so much of a hold, and what becomes of it."""
    return Write(
        entries=[entry(14, "release", amount, 565 + amount, captured=0, related_seq=hold)],
        postings=[(14, 1, amount, 45 + amount)],
        lots={1: (45 + amount, 14)},
        holds={} if set_ is None else {hold: set_},
        user=(565 + amount, 14),
    )


def a_capture(captured: object, set_: str | None) -> Write:
    """A capture that is not the last, and what becomes of hold 3."""
    return Write(
        entries=[entry(14, "capture", 0, 565, captured=captured, related_seq=3)],
        holds={} if set_ is None else {3: set_},
        user=(565, 14),
    )


def a_renewal(expires_at: str, set_: str | None = None, hold: int = 3) -> Write:
    """A renewal, and what becomes of the hold."""
    return Write(
        entries=[
            entry(14, "renewal", 0, 565, captured=0, related_seq=hold, hold_expires_at=expires_at)
        ],
        holds={hold: set_ or f"expires_at = {expires_at}"},
        user=(565, 14),
    )


def a_retaking(hold: int) -> Write:
    """A late capture of 2, of a hold of which nothing was captured."""
    return Write(
        entries=[entry(14, "spend", -2, 563, captured=2, related_seq=hold)],
        postings=[(14, 1, -2, 43)],
        lots={1: (43, 14)},
        holds={hold: "captured = 2"},
        user=(563, 14),
    )


def a_repayment(outstanding: int, amount: int = 50) -> Write:
    """The debtor is given 10 more than repay so much of the debt, and what is owed then."""
    given = amount + 10
    return Write(
        entries=[
            entry(4, "grant", given, given),
            entry(5, "debt_repayment", -amount, 10, related_seq=1),
        ],
        new_lots=[{**lot(4, given), "remaining": 10, "last_seq": 5}],
        postings=[(4, 4, given, given), (5, 4, -amount, 10)],
        debts={1: f"outstanding = {outstanding}"},
        user=(10, 5),
    )


LASTS = f"timestamptz '2020-01-02T00:00Z' + interval '{HOLD_SECONDS_MAX} seconds'"
HONEST = {
    "a hold": Forgery([a_hold()]),
    "a hold as long as may be": Forgery([a_hold(LASTS)]),
    "a release": Forgery([a_release(30)]),
    "a capture": Forgery([a_capture(10, "captured = 10")]),
    "a renewal": Forgery([a_renewal(RENEWED)]),
    "a late capture": Forgery([a_retaking(11)]),
    "a repayment": Forgery([a_repayment(0)], "debtor"),
    "metadata": Forgery(
        [Write([entry(14, "clawback", 0, 565)], notes={14: "'{}'"}, user=(565, 14))]
    ),
    "the metadata of a person erased": Forgery(
        [
            "UPDATE users SET is_active = false, erased_at = now() WHERE user_id = :who",
            "DELETE FROM credit_entry_metadata WHERE user_id = :who",
        ]
    ),
    "a PaymentIntent learnt": Forgery(
        ["UPDATE transactions SET payment_intent_id = 'pi_1' WHERE transaction_id = :bought"]
    ),
}

INVENTED = (
    "INSERT INTO credit_holds VALUES (:who, {}, 30, 0, 'open', timestamptz '2020-02-01T00:00Z')"
)
HOLDS = {
    "a hold added to an old spend": Forgery([INVENTED.format(4)]),
    "a hold without an entry": Forgery([INVENTED.format(14)], by="foreign key"),
    "a hold of more than its entry took": Forgery([a_hold(amount=30)]),
    "an entry of kind `hold` without a hold": Forgery(
        [
            Write(
                [entry(14, "hold", -10, 555, hold_expires_at=RENEWED)],
                [(14, 1, -10, 35)],
                lots={1: (35, 14)},
                user=(555, 14),
            )
        ]
    ),
    "a new hold with `captured`": Forgery([a_hold(captured=3)]),
    "a hold with `expires_at` infinity": Forgery([a_hold("'infinity'")]),
    "a hold with `expires_at` in the year 9998": Forgery([a_hold("'9998-01-01'")]),
    "a hold one second longer than allowed": Forgery([a_hold(f"{LASTS} + interval '1 second'")]),
    "a hold that expires before it begins": Forgery([a_hold("timestamptz '2020-01-01T00:00Z'")]),
    "UPDATE of a hold's `captured`": Forgery(
        ["UPDATE credit_holds SET captured = 1 WHERE user_id = :who AND seq = 3"]
    ),
    "UPDATE of an open hold's `status`": Forgery(
        ["UPDATE credit_holds SET status = 'released' WHERE user_id = :who AND seq = 3"]
    ),
    "UPDATE of a closed hold's `status` to `open`": Forgery(
        ["UPDATE credit_holds SET status = 'open' WHERE user_id = :who AND seq = 9"]
    ),
    "UPDATE of a hold's `expires_at`": Forgery(
        ["UPDATE credit_holds SET expires_at = 'infinity' WHERE user_id = :who AND seq = 3"]
    ),
    "a release that does not close its hold": Forgery([a_release(30, set_=None)]),
    "a release of less than was held": Forgery([a_release(29)]),
    "a release of more than was held": Forgery([a_release(31)]),
    "a second release": Forgery([a_release(5, hold=9)]),
    "a release of what was captured": Forgery(
        [a_release(4, hold=5, set_="status = 'released', captured = 0")]
    ),
    "a release into another lot than the credits came from": Forgery(
        [
            Write(
                [
                    entry(14, "spend", -20, 545),
                    entry(15, "release", 30, 575, captured=0, related_seq=3),
                ],
                [(14, 2, -20, 0), (15, 2, 20, 20), (15, 1, 10, 55)],
                lots={1: (55, 15), 2: (20, 15)},
                holds={3: "status = 'released'"},
                user=(575, 15),
            )
        ]
    ),
    "a capture that does not raise its hold's `captured`": Forgery([a_capture(10, None)]),
    "a capture that raises its hold's `captured` by less": Forgery([a_capture(10, "captured = 9")]),
    "a capture whose entry has no `captured`": Forgery([a_capture("NULL", "captured = 10")]),
    "a capture of more than was held": Forgery([a_capture(31, "captured = 31")], by="CHECK"),
    "a late capture of an open hold": Forgery([a_retaking(3)]),
    "a late capture of a released hold": Forgery([a_retaking(9)]),
    "a renewal of a closed hold": Forgery([a_renewal(RENEWED, hold=9)]),
    "a renewal with `expires_at` infinity": Forgery([a_renewal("'infinity'")]),
    "a renewal that does not change its hold's `expires_at`": Forgery(
        [a_renewal(RENEWED, "expires_at = expires_at")]
    ),
    "UPDATE of a hold's `amount`": Forgery(["UPDATE credit_holds SET amount = 1"], by="privilege"),
    "DELETE of holds": Forgery(["DELETE FROM credit_holds"], by="privilege"),
}

OWED = "INSERT INTO credit_debts (user_id, seq, outstanding) VALUES (:who, {}, {})"
DEBTS = {
    "a debt of a user who has credits": Forgery([OWED.format(7, 5)]),
    "a debt of 0 without a clawback": Forgery([OWED.format(7, 0)]),
    "a debt for a grant that nobody paid for": Forgery(
        [
            Write(
                [entry(4, "clawback", 0, 0)],
                user=(0, 4),
            ),
            OWED.format(2, 5),
        ],
        "debtor",
    ),
    "UPDATE of a debt to 0": Forgery(["UPDATE credit_debts SET outstanding = 0"], "debtor"),
    "UPDATE of a debt to more": Forgery(["UPDATE credit_debts SET outstanding = 60"], "debtor"),
    "a grant that sets a debt to 0 without a repayment": Forgery(
        [
            Write(
                [entry(4, "grant", 60, 60)],
                [(4, 4, 60, 60)],
                [lot(4, 60)],
                debts={1: "outstanding = 0"},
                user=(60, 4),
            )
        ],
        "debtor",
    ),
    "a debt set to 0 in a statement after its reinstatement": Forgery(
        [
            Write([entry(4, "reinstatement", 0, 0)], user=(0, 4)),
            "UPDATE credit_debts SET outstanding = 0 WHERE user_id = :who",
        ],
        "debtor",
        by_at_commit="`verify`",
    ),
    "a grant to a debtor without a repayment": Forgery(
        [Write([entry(4, "grant", 60, 60)], [(4, 4, 60, 60)], [lot(4, 60)], user=(60, 4))], "debtor"
    ),
    "a repayment that lowers its debt by more": Forgery([a_repayment(0, 20)], "debtor"),
    "a repayment that lowers its debt by less": Forgery([a_repayment(40)], "debtor"),
    "a repayment of a user without a debt": Forgery(
        [
            Write(
                [entry(14, "debt_repayment", -10, 555, related_seq=7)],
                [(14, 1, -10, 35)],
                lots={1: (35, 14)},
                user=(555, 14),
            )
        ]
    ),
    "UPDATE of a debt's `opening_debt`": Forgery(
        ["UPDATE credit_debts SET opening_debt = 1"], by="privilege"
    ),
    "UPDATE of a debt's `seq`": Forgery(["UPDATE credit_debts SET seq = 2"], by="privilege"),
    "DELETE of debts": Forgery(["DELETE FROM credit_debts"], by="privilege"),
}

ANEW = "INSERT INTO credit_entry_metadata VALUES (:who, {}, '{{\"slides\": 9}}')"
METADATA = {
    "metadata added to an old entry": Forgery([ANEW.format(4)]),
    "metadata added to an entry of the previous statement": Forgery(
        [Write([entry(14, "clawback", 0, 565)], user=(565, 14)), ANEW.format(14)],
        by_at_commit="nobody",
    ),
    "DELETE of metadata, unless the person was erased": Forgery(
        ["DELETE FROM credit_entry_metadata WHERE user_id = :who"]
    ),
    "metadata of an erased person, inserted again": Forgery(
        [*HONEST["the metadata of a person erased"].statements, ANEW.format(8)]
    ),
    "UPDATE of metadata": Forgery(
        ["UPDATE credit_entry_metadata SET document = '1'"], by="privilege"
    ),
}

PURCHASES = {
    **{
        f"UPDATE of a purchase's `{column}`": Forgery(
            [f"UPDATE transactions SET {column} = {column}"],  # noqa: S608  ours
            by="privilege",
        )
        for column in (
            *("transaction_id", "user_id", "stripe_session_id", "amount_paid_cents", "currency"),
            *("credits_added", "predates_ledger", "created_at"),
        )
    },
    "UPDATE of a purchase's `payment_intent_id` once it is known": Forgery(
        [
            *HONEST["a PaymentIntent learnt"].statements,
            "UPDATE transactions SET payment_intent_id = 'pi_2' WHERE transaction_id = :bought",
        ]
    ),
    "a new purchase with `predates_ledger`": Forgery(
        [
            (
                "INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents,"
                " credits_added, predates_ledger) VALUES (:who, 'cs', 1, 1, true)"
            )
        ]
    ),
    "DELETE of purchases": Forgery(["DELETE FROM transactions"], by="privilege"),
}
FORGERIES = {**HOLDS, **DEBTS, **METADATA, **PURCHASES}


@pytest.mark.parametrize("name", HONEST)
def test_what_the_rules_could_have_written_passes(forger: Forger, name: str) -> None:
    """So that each forgery below is refused for the one thing that is wrong with it."""
    forgery = HONEST[name]
    assert forger.attempt(forgery) is None


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_hold_debt_or_purchase_is_refused(forger: Forger, name: str) -> None:
    """By what the reference says, at the latest at COMMIT."""
    assert forger.attempt(FORGERIES[name]) == FORGERIES[name].refused_by(forger.form)


@pytest.mark.parametrize(
    "change",
    [
        "stripe_session_id = 'cs_2'",
        "credits_added = 1",
        "amount_paid_cents = 1",
        "predates_ledger = true",
        "created_at = now() - interval '1 year'",
        "user_id = (SELECT user_id FROM users WHERE user_id <> transactions.user_id LIMIT 1)",
    ],
)
def test_what_was_bought_is_fixed_for_owners_too(db: Session, change: str) -> None:
    """Nobody's UPDATE changes a purchase, but for what is learnt about it later."""
    bought = a_transaction(user=a_user())
    db.add_all([bought, a_user()])
    db.commit()
    statement = f"UPDATE transactions SET {change} WHERE transaction_id = :id"  # noqa: S608  ours
    with pytest.raises(DBAPIError, match="LEDGER_UNBALANCED"):
        db.execute(text(statement), {"id": bought.transaction_id})
    db.rollback()
    db.execute(text("UPDATE transactions SET invoice_id = 'in_1', refunded_cents = 1"))
    db.commit()
    assert db.get_one(Transaction, bought.transaction_id).invoice_id == "in_1"
