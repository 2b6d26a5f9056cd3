"""Webhooks lost for a week, a comparison that is cut off: what Stripe says is restored exactly."""

import asyncio
import datetime as dt
import time
import uuid
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal, get_engine
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.stripe import gateway
from src.common.stripe.findings import Page
from src.common.stripe.reconcile import reconcile
from src.local_postgres import ConnectionParameters
from tests.credits.books import check_books, make_user, spend
from tests.credits.crashes import counting, dying
from tests.purchases.lives import state_of
from tests.stripe.loop import Loop, start_loop

DAY = 86_400
PEOPLE = 4


class _Killed(BaseException):
    """Nothing of ours may catch it; the database undoes what was not committed."""


def named_alike(loop: Loop, state: Any) -> list[list[str]]:
    """A state with Stripe's ids replaced by their places, to be compared with another world's."""
    places = {
        each["id"]: f"{kind}-{place}"
        for kind in ("checkout.session", "refund", "dispute")
        for place, each in enumerate(loop.offline.account.all(kind))
    }
    return [
        sorted(repr([places.get(value, value) for value in row]) for row in part) for part in state
    ]


def shop_for_a_day(loop: Loop, people: list[uuid.UUID], day: int) -> None:
    """One buys, one has money back, one disputes, one is reinstated; one leaves the page open."""
    bought: list[str] = []
    for person in people:
        session_id = loop.session_of(loop.buy(person, "1000", key=f"day-{day}"))
        loop.offline.pay(session_id)
        bought.append(session_id)
    loop.refund_at_stripe(bought[1], 300)
    dispute = loop.offline.open_dispute(loop.charge_of(bought[2]))
    if day % 2:
        loop.offline.decide_dispute(dispute["id"], "win")
    loop.buy(people[0], "500", key=f"left-open-{day}")


def live_a_week(session: Session, seed: str, *, endpoint_works: bool) -> tuple[Loop, list[Any]]:
    """A week at Stripe that ends now, after a purchase that everybody had spent most of."""
    loop = start_loop(seed, clock=lambda: time.time() - 7 * DAY)
    people = [make_user(session).user_id for _ in range(PEOPLE)]
    session.commit()
    for person in people:
        loop.offline.pay(loop.session_of(loop.buy(person, "500", key="before")))
    loop.deliver(loop.webhooks())
    execute(session, [spend(person, 400) for person in people])
    session.commit()
    for day in range(7):
        shop_for_a_day(loop, people, day)
        for delivery in loop.webhooks():
            if endpoint_works:
                loop.deliver([delivery])
            loop.offline.webhooks.answered(delivery.delivery_id, 200 if endpoint_works else None)
        loop.offline.advance(DAY)
    return loop, people


def test_an_endpoint_disabled_for_a_week_is_made_up_for(db: Session) -> None:
    """Stripe has long given up the first days: the comparison leads where the webhooks had led."""
    loop, people = live_a_week(db, "silent", endpoint_works=False)
    waiting = {each.event_id for each in loop.webhooks()}
    happened = list(loop.offline.account.all("event"))
    assert len(waiting) < len(happened), "Stripe tries for three days, and then no more"
    credited = select(func.count()).where(Transaction.user_id.in_(people))
    assert db.scalars(credited).one() == PEOPLE

    week = dt.datetime.now(dt.UTC) - dt.timedelta(days=8)
    assert loop.reconcile(week, repairs=False).drift > 0
    mended = loop.reconcile(week, repairs=True)
    assert (mended.status, mended.drift) == ("finished", 0)
    assert db.scalars(credited).one() == PEOPLE * 8
    assert loop.reconcile(week, repairs=False).findings == []
    check_books(db)

    told, told_people = live_a_week(db, "told", endpoint_works=True)
    for person, twin in zip(people, told_people, strict=True):
        assert named_alike(loop, state_of(db, person)) == named_alike(told, state_of(db, twin))


@pytest.fixture
def lost(fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A few payments, a refund and a dispute nobody told us of; Stripe lists two at a time."""
    assert fresh_database
    monkeypatch.setattr(gateway, "PAGE_SIZE", 2)
    return start_loop()


def lose(loop: Loop) -> list[uuid.UUID]:
    """New users whose payments nobody told us of; all of them, of the earlier rounds, are known."""
    with SessionLocal.begin() as session:
        people = [make_user(session).user_id for _ in range(3)]
    bought = [loop.session_of(loop.buy(person)) for person in people]
    for session_id in bought:
        loop.offline.pay(session_id)
    loop.refund_at_stripe(bought[0], 200)
    loop.offline.open_dispute(loop.charge_of(bought[1]))
    loop.webhooks()
    return people


def check_restored(people: list[uuid.UUID]) -> None:
    """One purchase each; the refund and the dispute took theirs, once."""
    with SessionLocal() as session:
        check_books(session)
        balances = [state_of(session, person)[0] for person in people]
        purchases = [len(state_of(session, person)[4]) for person in people]
    assert (balances, purchases) == ([((300,),), ((0,),), ((500,),)], [1, 1, 1])


def statuses() -> list[str]:
    """Every run's status, in the order they began."""
    with SessionLocal() as session:
        rows = select(Reconciliation.status).order_by(Reconciliation.started_at)
        return list(session.scalars(rows))


def walk(loop: Loop, since: dt.datetime, pages_max: int | None = None) -> list[str]:
    """Compare and mend, killed once so many pages are noted; the stage of each page."""
    pages: list[str] = []

    def progress(stage: str, _page: Page) -> None:
        pages.append(stage)
        if len(pages) == pages_max:
            raise _Killed

    with nullcontext() if pages_max is None else pytest.raises(_Killed):
        asyncio.run(
            reconcile(loop.processor, since=since, repairs=True, resumes=True, progress=progress)
        )
    return pages


def test_a_comparison_cut_off_after_a_page_goes_on_with_the_next(lost: Loop) -> None:
    """No page is walked twice and none is left out; all is restored."""
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    lose(lost)
    last = len(walk(lost, since))
    assert last > 12, "several stages have several pages"
    for number in range(1, last, 4):
        people = lose(lost)
        pages = walk(lost, since, number) + walk(lost, since)
        check_restored(people)
        assert pages == walk(lost, since), "as many as of a run that nobody cut off"
    assert set(statuses()) == {"finished"}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_comparison_killed_at_a_statement_is_taken_up(lost: Loop, share: float) -> None:
    """Its process is gone and tells nobody; once the lease has ended, the next one restores all."""
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    lose(lost)
    with counting(get_engine()) as statements:
        lost.reconcile(since, repairs=True)
    people = lose(lost)
    since += dt.timedelta(seconds=1)
    with dying(get_engine(), int(statements() * share), _Killed), pytest.raises(_Killed):
        lost.reconcile(since, repairs=True)
    assert statuses()[-1] == "running"
    past = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    with SessionLocal.begin() as session:
        session.execute(
            update(Reconciliation)
            .where(Reconciliation.status == "running")
            .values(lease_expires_at=past)
        )
        session.execute(update(StripeEvent).values(lease_expires_at=past))
    run = lost.reconcile(since, repairs=True, resumes=True)
    assert (run.status, run.drift) == ("finished", 0)
    assert set(statuses()) == {"finished"}
    check_restored(people)
