"""Checks in every run that the figures tie: movements, balances and lots say the same."""

import datetime as dt
from collections.abc import Mapping

from sqlalchemy.orm import Session

from src.common.exceptions import Inconsistent
from src.common.reports.snapshots import UNBOOKED, UNOPENED, Snapshot

_BALANCES = f"""
WITH {UNBOOKED}, {UNOPENED}
SELECT coalesce((SELECT sum(credits_balance) FROM users WHERE credits_version > 0), 0)
     + coalesce((SELECT sum(amount) FROM unbooked), 0)
     + coalesce((SELECT sum(amount) FROM unopened), 0)
"""  # noqa: S608  nothing of anybody else's in it
_BALANCES_THEN = f"""
WITH {UNBOOKED}
SELECT coalesce((SELECT sum(amount) FROM credit_entries WHERE effective_at <= :until), 0)
     + coalesce((SELECT sum(amount) FROM unbooked WHERE effective_at <= :until), 0)
"""  # noqa: S608


class FiguresDiffer(Inconsistent):
    """The ledger's own sums contradict each other: somebody wrote past its triggers."""


def total_of_balances(session: Session, snapshot: Snapshot, until: dt.datetime) -> int:
    """Σ of all users' effective balances as of an instant (rule 8).

    Raises:
        DatabaseBusy: a passing condition of the database.
    """
    is_past = until < snapshot.now
    asked, parameters = (_BALANCES_THEN, {"until": until}) if is_past else (_BALANCES, {})
    return sum(int(total) for (total,) in snapshot.read(session, asked, parameters))


def require_equal(until: dt.datetime, balances: int | None, **figures: Mapping[str, int]) -> None:
    """Raise unless all of `figures` are the same, part by part, and sum to `balances`.

    Args:
        until: As of when they are.
        balances: Σ of all users' balances; None where the figures are no credits.
        figures: By their reports' names: credits by source, or cents by currency.

    Raises:
        FiguresDiffer: FIGURES_DIFFER, with each of the figures.
    """
    first, *others = figures.values()
    if balances in {None, sum(first.values())} and all(each == first for each in others):
        return
    said = {name: dict(parts) for name, parts in figures.items()}
    raise FiguresDiffer(
        f"The ledger's figures as of {until:%Y-%m-%d %H:%M:%S} UTC differ: "
        + "".join(f"{name} {parts}, " for name, parts in said.items())
        + f"balances {balances}. `flashslides verify` names what is wrong",
        "FIGURES_DIFFER",
        balances=balances,
        **said,
    )
