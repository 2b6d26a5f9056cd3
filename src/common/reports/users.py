"""`users`: what each user has, holds and owes now, and when they last did something."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy.orm import Session

from src.common.reports.columns import instant, integer, text
from src.common.reports.held import HELD_NOW, OF_HOLDS
from src.common.reports.snapshots import EVER, ROWS_A_FETCH, UNBOOKED, Snapshot

COLUMNS = (
    text("user_id", "Who; names and e-mails are not in reports."),
    text("user_type", "`admin`, `member`, `guest` or `individual`."),
    text("status", "`active`, `inactive` or `erased`."),
    integer("balance", "Credits that the user may spend."),
    integer("held", "Credits that open holds have set aside."),
    integer("debt", "Credits that could not be taken back."),
    integer("entries", "How many entries are booked."),
    instant("last_entry_at", "When the newest booked entry counts from."),
    instant("last_login_at", "When the user last signed in."),
    instant("created_at", "Since when there is the user."),
)


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users are wanted: those that all of it holds of."""

    with_balance: bool = False
    """Only who has credits, in the balance or held."""
    with_debt: bool = False
    """Only who owes credits."""
    idle_since: dt.datetime | None = None
    """Only who has had no entry and no sign-in after this instant."""


_STATEMENT = f"""
WITH {UNBOOKED}, {HELD_NOW},
due AS (
    SELECT user_id, sum(amount) AS amount,
           sum(CASE WHEN kind IN {OF_HOLDS} THEN amount ELSE 0 END) AS returned,
           sum(CASE WHEN kind = 'debt_repayment' THEN -amount ELSE 0 END) AS repaid
    FROM unbooked GROUP BY user_id
),
held AS (SELECT user_id, sum(amount) AS held FROM held_now GROUP BY user_id),
debts AS (SELECT user_id, sum(outstanding) AS debt FROM credit_debts GROUP BY user_id),
everybody AS (
    SELECT users.user_id, CAST(user_type AS text),
           CASE WHEN erased_at IS NOT NULL THEN 'erased' WHEN is_active THEN 'active'
                ELSE 'inactive' END AS status,
           greatest(credits_balance, 0) + coalesce(due.amount, 0) AS balance,
           coalesce(held, 0) - coalesce(returned, 0) AS held,
           coalesce(debt, 0) - coalesce(repaid, 0) + greatest(-credits_balance, 0) AS debt,
           credits_version, newest.effective_at AS last_entry_at, last_login_at, users.created_at
    FROM users
    LEFT JOIN credit_entries AS newest
        ON newest.user_id = users.user_id AND newest.seq = users.credits_version
    LEFT JOIN due ON due.user_id = users.user_id
    LEFT JOIN held ON held.user_id = users.user_id
    LEFT JOIN debts ON debts.user_id = users.user_id
)
SELECT * FROM everybody
WHERE (NOT :with_balance OR balance > 0 OR held > 0)
    AND (NOT :with_debt OR debt > 0)
    AND coalesce(last_entry_at, created_at) <= :until
    AND coalesce(last_login_at, created_at) <= :until
ORDER BY user_id
"""  # noqa: S608  nothing of anybody else's in it


def read_users(
    session: Session, snapshot: Snapshot, wanted: UserFilter
) -> Iterator[tuple[Any, ...]]:
    """In the order of their ids; as `COLUMNS`. Fetched while they are iterated.

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    parameters = {
        "with_balance": wanted.with_balance,
        "with_debt": wanted.with_debt,
        "until": wanted.idle_since or EVER,
    }
    found = snapshot.read_in_order(
        session, _STATEMENT, parameters, key=itemgetter(0), rows_a_fetch=ROWS_A_FETCH
    )
    for user_id, kind, status, balance, held, debt, *rest in found:
        yield (user_id, kind, status, int(balance), int(held), int(debt), *rest)
