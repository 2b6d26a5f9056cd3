"""Runs of the comparison with Stripe: begun, taken up again, finished; never commits."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    DateTime,
    Integer,
    Select,
    cast,
    exists,
    false,
    func,
    or_,
    select,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from src.common.exceptions import NotFound
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.purchases.locks import lock_payment
from src.common.purchases.whose import sees_users

LEASE_SECONDS = 300
FINDINGS_MAX = 1_000
UNFINISHED_DAYS = 180
"""How long we ask after orders, refunds and disputes that have not come to an end."""


def begin(
    session: Session,
    *,
    livemode: bool,
    account: str | None,
    since: dt.datetime,
    until: dt.datetime,
    repairs: bool,
    resumes: bool,
    first_stage: str,
) -> Reconciliation:
    """A run over this window; or, where it `resumes`, one from the same instant that was cut off.

    One that is taken up keeps its own end: what it walks is listed from there on.
    """
    lock_payment(session, "reconciliation")
    same = (_of_account(account), *_as_begun(since, repairs=repairs))
    run = find_cut_off(session, *same, livemode=livemode) if resumes else None
    if run is None:
        run = Reconciliation(
            livemode=livemode,
            stripe_account=account,
            since_at=since,
            until_at=until,
            repairs=repairs,
            stage=first_stage,
            findings=[],
        )
        session.add(run)
    run.lease_expires_at = _lease()
    session.flush()
    session.refresh(run)
    return run


def find_cut_off(
    session: Session, *conditions: ColumnElement[bool], livemode: bool
) -> Reconciliation | None:
    """The newest run that its process left unfinished, of those that meet the conditions."""
    statement = (
        select(Reconciliation)
        .where(
            Reconciliation.status == "running",
            Reconciliation.livemode == livemode,
            or_(
                Reconciliation.lease_expires_at.is_(None),
                Reconciliation.lease_expires_at <= func.clock_timestamp(),
            ),
            *conditions,
        )
        .order_by(Reconciliation.started_at.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def newest_runs(session: Session, limit: int) -> Sequence[Reconciliation]:
    """The runs that began last, newest first."""
    statement = select(Reconciliation).order_by(Reconciliation.started_at.desc()).limit(limit)
    return session.scalars(statement).all()


def get_run(session: Session, reconciliation_id: uuid.UUID) -> Reconciliation:
    """A run.

    Raises:
        NotFound: RECONCILIATION_NOT_FOUND.
    """
    run = session.get(Reconciliation, reconciliation_id)
    if run is None:
        raise NotFound("No run has this id", "RECONCILIATION_NOT_FOUND")
    return run


def find_of_window(
    session: Session,
    *,
    livemode: bool,
    account: str | None,
    since: dt.datetime,
    until: dt.datetime,
    repairs: bool,
) -> Reconciliation | None:
    """An account's run over exactly this window: one that is finished, else the newest."""
    statement = (
        select(Reconciliation)
        .where(
            Reconciliation.livemode == livemode,
            _of_account(account),
            *_as_begun(since, repairs=repairs),
            Reconciliation.until_at == until,
        )
        .order_by(Reconciliation.status == "running", Reconciliation.started_at.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def advance(
    session: Session,
    run_id: uuid.UUID,
    *,
    stage: str,
    cursor: str | None,
    compared: int,
    findings: list[dict[str, Any]],
) -> None:
    """Note how far a run has come, and what it found on the way.

    A run that was taken up may come upon an object again: then the newest finding holds.
    """
    run = session.get_one(Reconciliation, run_id, with_for_update=True)
    run.stage, run.cursor = stage, cursor
    run.compared += compared
    known = {each["object"]: each for each in run.findings}
    for each in findings:
        before = known.get(each["object"])
        run.drift += (not each["mended"]) - (before is not None and not before["mended"])
        known[each["object"]] = each
    run.findings = list(known.values())[:FINDINGS_MAX]
    run.lease_expires_at = _lease()
    session.flush()


def finish(session: Session, run_id: uuid.UUID) -> Reconciliation:
    """Note that a run is done."""
    run = session.get_one(Reconciliation, run_id, with_for_update=True)
    run.status, run.finished_at, run.lease_expires_at = "finished", func.clock_timestamp(), None
    session.flush()
    session.refresh(run)
    return run


def renew(session: Session, run_id: uuid.UUID) -> None:
    """Keep a run whose page takes long."""
    session.get_one(Reconciliation, run_id, with_for_update=True).lease_expires_at = _lease()
    session.flush()


def release(session: Session, run_id: uuid.UUID) -> None:
    """Leave a run for whoever comes next."""
    session.get_one(Reconciliation, run_id, with_for_update=True).lease_expires_at = None
    session.flush()


def is_due(
    session: Session,
    *,
    interval_seconds: int,
    livemode: bool,
    since: dt.datetime,
    account: str | None = None,
) -> bool:
    """Whether an account's newest run began longer ago than this, or a mending one was cut off."""
    same = (_of_account(account), *_as_begun(since, repairs=True))
    if find_cut_off(session, *same, livemode=livemode) is not None:
        return True
    recent = func.clock_timestamp() - dt.timedelta(seconds=interval_seconds)
    begun = exists().where(_of_account(account), Reconciliation.started_at > recent)
    return session.scalars(select(~begun)).one()


def newest_drift(session: Session, accounts: Collection[str] = ()) -> int:
    """What the newest finished runs left unmended: our own account's, and these connected ones'."""
    newest = (
        select(Reconciliation.drift)
        .where(
            Reconciliation.status == "finished",
            of_accounts(accounts),
        )
        .ext(distinct_on(Reconciliation.stripe_account))
        .order_by(Reconciliation.stripe_account, Reconciliation.started_at.desc())
        .subquery()
    )
    total = func.coalesce(func.sum(newest.c.drift), 0)
    return session.scalars(select(cast(total, Integer))).one()


def newest_age_seconds(session: Session, accounts: Collection[str] = ()) -> float | None:
    """Time since the last finished run of our own account, or of the connected one it is longest.

    None where one of them has never been compared.
    """
    newest = (
        select(func.max(Reconciliation.finished_at).label("at"))
        .where(Reconciliation.status == "finished", of_accounts(accounts))
        .group_by(Reconciliation.stripe_account)
        .subquery()
    )
    now = func.clock_timestamp(type_=DateTime(timezone=True))
    found, oldest, instant = session.execute(
        select(func.count(), func.min(newest.c.at), now).select_from(newest)
    ).one()
    return None if found <= len(accounts) else (instant - oldest).total_seconds()


def of_accounts(accounts: Collection[str | None]) -> ColumnElement[bool]:
    """Whether a run is of our own account, or of one of these connected ones."""
    named = [each for each in accounts if each is not None]
    return or_(Reconciliation.stripe_account.is_(None), Reconciliation.stripe_account.in_(named))


def _of_account(account: str | None) -> ColumnElement[bool]:
    return Reconciliation.stripe_account.is_not_distinct_from(account)


def _as_begun(since: dt.datetime, *, repairs: bool) -> tuple[ColumnElement[bool], ...]:
    return Reconciliation.since_at == since, Reconciliation.repairs == repairs


def purchases_between(
    session: Session,
    *,
    livemode: bool,
    account: str | None,
    since: dt.datetime,
    until: dt.datetime,
    after: str | None,
    limit: int,
) -> Sequence[str]:
    """A page of the purchases we noted in a window, by id; without those from before the ledger.

    With those that application code wrote, which may not say their mode.
    """
    if not sees_users(session):
        return []
    purchases = select(Transaction.stripe_session_id.label("name")).where(
        Transaction.created_at >= since,
        Transaction.created_at < until,
        or_(Transaction.livemode == livemode, Transaction.livemode.is_(None)),
        Transaction.predates_ledger.is_(False),
        Transaction.stripe_account.is_not_distinct_from(account),
    )
    return _page(session, purchases, after, limit)


def reversals_between(
    session: Session,
    *,
    livemode: bool,
    account: str | None,
    since: dt.datetime,
    until: dt.datetime,
    after: str | None,
    limit: int,
) -> Sequence[str]:
    """A page of the refunds, disputes and credit notes we noted in a window, by id."""
    reversals = select(StripeReversal.reversal_id.label("name")).where(
        StripeReversal.created_at >= since,
        StripeReversal.created_at < until,
        StripeReversal.livemode == livemode,
        StripeReversal.stripe_account.is_not_distinct_from(account),
    )
    return _page(session, reversals, after, limit)


def unfinished(
    session: Session,
    *,
    livemode: bool,
    account: str | None,
    since: dt.datetime,  # noqa: ARG001  a page of ours is asked for in one way
    until: dt.datetime,  # noqa: ARG001
    after: str | None,
    limit: int,
) -> Sequence[str]:
    """A page of sessions, refunds and disputes that may have changed since, whenever made."""
    recent = func.now() - dt.timedelta(days=UNFINISHED_DAYS)
    sessions = select(CheckoutOrder.stripe_session_id.label("name")).where(
        CheckoutOrder.status.in_(("created", "open", "processing")),
        CheckoutOrder.livemode == livemode,
        CheckoutOrder.stripe_session_id.is_not(None),
        CheckoutOrder.created_at > recent,
        true() if account is None else false(),  # orders are for our own account
    )
    reversals = select(StripeReversal.reversal_id.label("name")).where(
        StripeReversal.status.in_(("pending", "inquiry", "withdrawn", "reinstated")),
        StripeReversal.livemode == livemode,
        StripeReversal.stripe_account.is_not_distinct_from(account),
        StripeReversal.kind != "credit_note",
        StripeReversal.created_at > recent,
    )
    if not sees_users(session):
        return _page(session, reversals, after, limit)
    return _page(session, union(sessions, reversals), after, limit)


def _page(
    session: Session, names: Select[Any] | CompoundSelect[Any], after: str | None, limit: int
) -> Sequence[str]:
    found = names.subquery("ours")
    statement = select(found.c.name).order_by(found.c.name).limit(limit)
    return session.scalars(
        statement if after is None else statement.where(found.c.name > after)
    ).all()


def _lease() -> ColumnElement[Any]:
    return func.clock_timestamp() + dt.timedelta(seconds=LEASE_SECONDS)
