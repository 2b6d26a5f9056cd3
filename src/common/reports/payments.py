"""`payments`: each purchase, and what became of the credits that it bought, by now."""

import datetime as dt
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from sqlalchemy.orm import Session

from src.common.reports.columns import instant, integer, text
from src.common.reports.held import CAPTURED, HELD_NOW, OF_HOLDS
from src.common.reports.sales import LIVEMODE
from src.common.reports.snapshots import ROWS_A_FETCH, UNBOOKED, Snapshot

COLUMNS = (
    text("transaction_id", "The purchase."),
    instant("created_at", "When it was noted."),
    text("user_id", "Who bought."),
    text("stripe_session_id", "The object at Stripe that paid."),
    text("package_id", "What was bought; empty where no order of ours says it."),
    text("currency", "What was paid in."),
    text("livemode", "`live`, or `test` where no real money moved; empty where nobody said."),
    integer("paid_cents", "What was paid."),
    integer("refunded_cents", "What was refunded of that by now, also where `--to` is past."),
    integer("disputed_cents", "What disputes have withdrawn of that by now."),
    integer("credits", "Credits that it bought. The columns after it are as of now and sum to it."),
    integer("left", "In the balance; empty, like the others, where no lot of its own holds them."),
    integer("held", "Set aside by open holds."),
    integer("spent", "Spends and what was kept of holds, less what of that was undone."),
    integer("expired", "What expired."),
    integer("clawed_back", "What refunds and disputes took, less what they gave back."),
    integer("repaid", "What repaid the debts of other payments."),
    integer("adjusted", "What operators took, less what of that was undone."),
)

_KIND = """
           CASE WHEN kind = 'reversal' AND EXISTS (
                    SELECT FROM credit_entries AS undone
                    WHERE undone.user_id = entries.user_id AND undone.seq = entries.related_seq
                        AND undone.kind = 'adjustment')
                THEN 'adjustment' ELSE kind END AS kind"""
"""An entry's kind; of a reversal that gives back what an operator took: `adjustment`."""

_STATEMENT = f"""
WITH {UNBOOKED}, {HELD_NOW}, {CAPTURED},
bought AS (
    SELECT transactions.*, lots.seq AS lot_seq, granted, remaining
    FROM transactions LEFT JOIN credit_lots AS lots
        ON lots.transaction_id = transactions.transaction_id
    WHERE transactions.created_at > :since AND transactions.created_at <= :until
),
lines AS (
    SELECT user_id, lot_seq, {_KIND}, lines.amount
    FROM bought JOIN credit_postings AS lines USING (user_id, lot_seq)
    JOIN credit_entries AS entries USING (user_id, seq)
    UNION ALL
    SELECT user_id, lot_seq, kind, amount FROM unbooked
    UNION ALL
    SELECT user_id, lot_seq, 'kept', -amount FROM captured
),
used AS (
    SELECT user_id, lot_seq, sum(amount) FILTER (WHERE kind <> 'kept') AS left,
           coalesce(-sum(amount) FILTER (WHERE kind IN ('spend', 'kept', 'reversal')), 0) AS spent,
           coalesce(-sum(amount) FILTER (WHERE kind = 'lot_expiry'), 0) AS expired,
           coalesce(-sum(amount) FILTER (WHERE kind IN ('clawback', 'reinstatement')), 0)
               AS clawed_back,
           coalesce(-sum(amount) FILTER (WHERE kind = 'debt_repayment'), 0) AS repaid,
           coalesce(-sum(amount) FILTER (WHERE kind = 'adjustment'), 0) AS adjusted
    FROM lines GROUP BY user_id, lot_seq
),
held AS (
    SELECT user_id, lot_seq, sum(amount) AS held
    FROM (
        SELECT user_id, lot_seq, amount FROM held_now
        UNION ALL
        SELECT user_id, lot_seq, -amount FROM unbooked WHERE kind IN {OF_HOLDS}
    ) AS changes GROUP BY user_id, lot_seq
)
SELECT transaction_id, bought.created_at, bought.user_id, stripe_session_id, package_id,
       bought.currency, {LIVEMODE.replace("livemode", "bought.livemode")},
       amount_paid_cents, refunded_cents,
       disputed_cents, credits_added, used.left,
       CASE WHEN bought.lot_seq IS NOT NULL THEN coalesce(held, 0) END, spent, expired,
       clawed_back, repaid, adjusted
FROM bought
LEFT JOIN checkout_orders AS orders USING (stripe_session_id)
LEFT JOIN used ON used.user_id = bought.user_id AND used.lot_seq = bought.lot_seq
LEFT JOIN held ON held.user_id = bought.user_id AND held.lot_seq = bought.lot_seq
ORDER BY bought.created_at, transaction_id
"""  # noqa: S608  nothing of anybody else's in it


def read_payments(
    session: Session, snapshot: Snapshot, since: dt.datetime, until: dt.datetime
) -> Iterator[tuple[Any, ...]]:
    """Those of a time, the oldest first; as `COLUMNS`. Fetched while they are iterated.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    return snapshot.read_in_order(
        session,
        _STATEMENT,
        {"since": since, "until": until},
        key=itemgetter(1, 0),
        rows_a_fetch=ROWS_A_FETCH,
    )
