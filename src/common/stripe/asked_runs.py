"""The comparison with Stripe that somebody asks for: written down, for the worker to take up."""

import datetime as dt
import uuid
from collections.abc import Sequence

from sqlalchemy.orm import Session

from src.common.exceptions import Unavailable
from src.common.purchases import reconciliations as runs
from src.common.settings import Settings
from src.common.stripe.reconcile import STAGES, end_of_now

COMPARED_DAYS = 3
"""How far back the worker compares, each time."""


def window_begins_at() -> dt.datetime:
    """A midnight, so that a run that was cut off is found again."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - dt.timedelta(days=COMPARED_DAYS)


def ask_for_runs(session: Session, settings: Settings) -> Sequence[uuid.UUID]:
    """Have the worker compare the last days, and mend what differs, as soon as it can.

    A run for each account, as one that was cut off before its first object: the worker takes those
    up. Where one waits already, it is that one.

    Raises:
        Unavailable: STRIPE_NOT_CONFIGURED, the worker compares nothing.
    """
    if settings.stripe_secret_key is None or not settings.stripe_reconcile_interval_seconds:
        raise Unavailable(
            "The worker compares nothing: STRIPE_SECRET_KEY is not set, or "
            "STRIPE_RECONCILE_INTERVAL_SECONDS is 0",
            "STRIPE_NOT_CONFIGURED",
        )
    asked: list[uuid.UUID] = []
    for account in settings.accounts:
        run = runs.begin(
            session,
            livemode=bool(settings.stripe_livemode),
            account=account,
            since=window_begins_at(),
            until=end_of_now(),
            repairs=True,
            resumes=True,
            first_stage=STAGES[0],
        )
        runs.release(session, run.reconciliation_id)
        asked.append(run.reconciliation_id)
    return asked
