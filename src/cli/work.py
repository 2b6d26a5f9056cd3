"""What the worker does: a function for each kind of work, one short step at a time.

A step says whether there may be more to do at once. What is wrong with one user, event or payment
is noted with it, and the step goes on with the others. A step that may wait for Stripe is a
coroutine; cancelled, it leaves what it was at to the next.
"""

import datetime as dt
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from src.cli.anchor_work import anchor_where_due
from src.cli.reach import in_database
from src.cli.turns import InTurn, Step
from src.common.approvals.refunds import cut_off_refunds
from src.common.credits import charged_requests, ledger, unbookable
from src.common.credits.due import BATCH_USERS, due_users, expire_user
from src.common.credits.verification.drift import verify_next_slice
from src.common.credits.verification.report import Report
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.notices.delivery.deliver import deliver_due
from src.common.notices.expiring import Rounds
from src.common.notices.retention import drop_old
from src.common.postgres.errors import QUERY_CANCELED, RetryableDatabaseError, is_refused
from src.common.postgres.kept_errors import keep
from src.common.postgres.routes import current_route, routed_to_schema
from src.common.purchases import reconciliations
from src.common.purchases.refunds import open_requests
from src.common.routing import all_groups, is_sharding
from src.common.settings import Settings, get_settings
from src.common.stripe import inbox
from src.common.stripe.asked_runs import window_begins_at
from src.common.stripe.batches.backlog import settle_backlog
from src.common.stripe.findings import concerns_others
from src.common.stripe.gateway import open_gateway
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.processing import Processor
from src.common.stripe.reconcile import reconcile
from src.common.stripe.refunds import (
    KEY_LIFETIME,
    Refunded,
    close_if_unknown,
    resume_refund,
)

logger = structlog.get_logger(__name__)

REFUND_REQUESTS = 100
"""How many refunds that were cut off are asked about in one step."""
SERVED_SECONDS = 5.0
"""How long notices of a group of users are begun to be sent, before it is another group's turn."""
EXPIRING: defaultdict[str | None, Rounds] = defaultdict(Rounds)
"""Where this process is in looking for credits that expire, by the group of users."""


def book_batch() -> bool:
    """Book one batch of users; where that fails, each for themselves, and note who is at fault."""
    _book_each(run_in_database_transaction(partial(unbookable.due_for_retry, limit=BATCH_USERS)))
    try:
        booked = run_in_database_transaction(ledger.expire_due)
    except Exception as error:
        if _is_nobodys_fault(error):
            raise
        logger.warning("A batch cannot be booked", error_type=keep(error).error_type)
        return _book_each(run_in_database_transaction(_first_due)) > 0
    if booked:
        logger.info("Booked what was due", users=booked)
    return booked == BATCH_USERS


def _first_due(session: Session) -> list[uuid.UUID]:
    due = due_users(session)
    return [user_id for user_id, _ in zip(due, range(BATCH_USERS), strict=False)]


def _book_each(user_ids: Iterable[uuid.UUID]) -> int:
    """Book users one by one and note who cannot be; how many were booked or noted."""
    return sum(_book_alone(user_id) for user_id in user_ids)


def _book_alone(user_id: uuid.UUID) -> bool:
    def work(session: Session) -> bool:
        if not expire_user(session, user_id):
            return False
        unbookable.forget(session, [user_id])
        return True

    try:
        return run_in_database_transaction(work)
    except Exception as error:
        if _is_nobodys_fault(error):
            raise
        kept = keep(error)
    logger.error(
        "A user cannot be booked: run `flashslides verify`",
        user_id=str(user_id),
        error_type=kept.error_type,
        reason=kept.message,
    )
    run_in_database_transaction(lambda session: unbookable.note(session, user_id, kept))
    return True


def _is_nobodys_fault(error: Exception) -> bool:
    """A condition of the database; but what takes too long may do so for one user's books alone."""
    if isinstance(error, RetryableDatabaseError):
        return error.sqlstate != QUERY_CANCELED
    return isinstance(error, DatabaseBusy) or is_refused(error)


def verify_slice() -> bool:
    """Verify the next users' books, where it is time."""
    settings = get_settings()
    if not settings.credits_verify_interval_seconds:
        return False
    verify = partial(
        verify_next_slice,
        slice_users=settings.credits_verify_slice_users,
        interval_seconds=settings.credits_verify_interval_seconds,
        in_each_group=_in_each_group if is_sharding() else None,
    )
    try:
        report = run_in_database_transaction(verify)
    except DatabaseBusy:
        raise
    except Exception as error:  # an edge: whoever is at fault is found
        if is_refused(error):
            raise
        logger.warning(
            "A slice cannot be verified: user by user", error_type=keep(error).error_type
        )
        report = run_in_database_transaction(partial(verify, one_by_one=True))
    if report is not None and report.differences:
        _tell_of(report)
    return False


def _in_each_group(work: Callable[[Session], None]) -> None:
    """Run work for each group of users, in a database transaction that sees it."""
    for group in all_groups():
        with routed_to_schema(group), SessionLocal.begin() as session:
            work(session)


def _tell_of(report: Report) -> None:
    logger.error(
        "Books differ: run `flashslides verify`",
        users=report.differing_users,
        first_user_id=str(report.first[0].user_id),
        first_kind=report.first[0].kind,
    )


async def settle_events() -> bool:
    """Try the events again that nobody has to ask Stripe about."""
    return await _settle_events(needs_lookup=False)


async def settle_lookups() -> bool:
    """Try the events again that Stripe has to be asked about."""
    return await _settle_events(needs_lookup=True)


async def _settle_events(*, needs_lookup: bool) -> bool:
    settings = get_settings()
    async with open_gateway(settings) as gateway:
        processor = Processor(in_database, gateway, settings)
        tried = 0 if needs_lookup else await settle_backlog(processor)
        tried += await processor.settle_due(needs_lookup=needs_lookup)
    if tried:
        logger.info("Tried events again", events=tried)
    return False  # all of them


def drop_bodies() -> bool:
    """Forget what events said that were settled long ago, answers, and notices that were sent."""
    events = run_in_database_transaction(inbox.drop_old_bodies)
    answers = run_in_database_transaction(charged_requests.drop_expired)
    drop = partial(drop_old, kept_days=get_settings().notices_kept_days)
    notices = run_in_database_transaction(drop)
    if events or answers or notices:
        logger.info("Dropped what is old", events=events, answers=answers, notices=notices)
    return events > 0 or answers > 0 or notices > 0


def tell_of_expiring() -> bool:
    """Look at the next credits that will expire, and write notices for whoever is to be told."""
    written, is_more = EXPIRING[current_route()].step(run_in_database_transaction)
    if written:
        logger.info("Told of credits that will expire", notices=written)
    return is_more


async def reconcile_where_due() -> bool:
    """Compare the last days with Stripe, where it is time or a run was cut off."""
    settings = get_settings()
    interval = settings.stripe_reconcile_interval_seconds
    if settings.stripe_secret_key is None or not interval:
        return False
    since = window_begins_at()
    failure: StripeGatewayError | None = None
    for account in settings.accounts:
        is_due = partial(
            reconciliations.is_due,
            interval_seconds=interval,
            livemode=bool(settings.stripe_livemode),
            since=since,
            account=account,
        )
        try:
            if await in_database(is_due):
                await _reconcile(settings, since, account)
        except StripeGatewayError as error:
            logger.warning("An account is not compared", account=account, reason=error.message)
            failure = error
    if failure is not None:
        raise failure
    return False


async def _reconcile(settings: Settings, since: dt.datetime, account: str | None) -> None:
    async with open_gateway(settings) as gateway:
        processor = Processor(in_database, gateway, settings)
        run = await reconcile(processor, since=since, repairs=True, resumes=True, account=account)
    logger.info(
        "Compared with Stripe", compared=run.compared, left=run.drift, account=account or "own"
    )


async def settle_refund_requests() -> bool:
    """Go on with refunds that were cut off.

    Those that a second person consented to are asked for until Stripe answers. Stripe is asked
    after the others once it has forgotten their keys, and they are closed where it knows nothing.
    """
    settings = get_settings()
    if settings.stripe_secret_key is None:
        return False
    livemode = bool(settings.stripe_livemode)
    approved, stale = await in_database(
        lambda session: (
            cut_off_refunds(session, livemode=livemode, limit=REFUND_REQUESTS),
            open_requests(
                session,
                livemode=livemode,
                older_than=KEY_LIFETIME,
                approved=False,
                limit=REFUND_REQUESTS,
            ),
        )
    )
    if not approved and not stale:
        return False
    async with open_gateway(settings) as gateway:
        for request in approved:
            await _settle_refund(partial(resume_refund, in_database, gateway, settings, request))
        for request in stale:
            await _settle_refund(partial(close_if_unknown, in_database, gateway, settings, request))
    return False


async def _settle_refund(settle: Callable[[], Coroutine[Any, Any, Refunded | bool]]) -> None:
    """Settle one refund that was cut off; what is wrong with it is none of the others'."""
    try:
        outcome = await settle()
    except Exception as error:
        if concerns_others(error):
            raise
        logger.warning("A refund stays open", error_type=keep(error).error_type)
    else:
        logger.info("A refund that was cut off is settled", is_paid=outcome is not True)


async def deliver_notices() -> bool:
    """Tell endpoints what happened: of all users, or for a while of one group's."""
    served_seconds = SERVED_SECONDS if is_sharding() else math.inf
    until = time.monotonic() + served_seconds
    sent = await deliver_due(in_database, get_settings(), begins_for_seconds=served_seconds)
    if sent:
        logger.info("Sent notices", attempts=sent)
    return time.monotonic() >= until


WORK: dict[str, Step] = {
    "bookings": InTurn("bookings", book_batch),
    "verification": verify_slice,
    "events": settle_events,
    "lookups": settle_lookups,
    "deliveries": InTurn("deliveries", deliver_notices),
    "bodies": InTurn("bodies", drop_bodies),
    "expiring": InTurn("expiring", tell_of_expiring),
    "refunds": InTurn("refunds", settle_refund_requests),
    "reconciliation": reconcile_where_due,
    "anchors": anchor_where_due,
}
"""Every kind, by the name under which its failures are counted."""
LASTING = frozenset({"deliveries"})
"""The kinds whose step lasts for as long as there is something to do."""
RETRYING = frozenset({"bookings", "deliveries", "events", "lookups"})
"""The kinds that have promised when they try again what failed."""
