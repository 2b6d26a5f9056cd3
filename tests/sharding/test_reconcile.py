"""Comparing with Stripe where users are in groups: the same is found as where they are in none."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select, update

from src.cli import work
from src.common.database import SessionLocal, get_engine
from src.common.exceptions import DatabaseBusy
from src.common.models import StripeReversal, Transaction, UnmatchedPayment
from src.common.models.reconciliation import Reconciliation
from src.common.postgres.routes import routed_to_schema
from src.common.routing import all_routes, routed_to
from src.common.settings import Settings, get_settings
from src.common.stripe import ours
from src.common.stripe.gateway import Gateway
from src.local_postgres import ConnectionParameters
from tests.credits.crashes import counting
from tests.fixtures.databases import forget_engines, point_to
from tests.models.examples import a_transaction, a_user
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import count_in_groups
from tests.stripe.loop import Loop, start_loop
from tests.stripe.simulation import BEGINNING, LATER, LONG_AGO

PEOPLE = [uuid.UUID(int=number) for number in range(1, 7)]
Findings = set[tuple[str, str, bool]]


def findings_of(loop: Loop, *, repairs: bool, resumes: bool = False) -> Findings:
    """All that differs, and whether it was mended."""
    run = loop.reconcile(LONG_AGO, until=LATER, repairs=repairs, resumes=resumes)
    assert len(run.findings) == len({each["object"] for each in run.findings})
    return {(each["object"], each["what"], each["mended"]) for each in run.findings}


def shop(group_of: Callable[[int], str | None]) -> Loop:
    """Users who bought, of whom much was told and some was not; the same every time."""
    loop = start_loop("shop", clock=lambda: BEGINNING)
    for place, user_id in enumerate(PEOPLE):
        with routed_to_schema(group_of(place)), SessionLocal.begin() as session:
            session.add(a_user(user_id=user_id))
    bought: list[str] = []
    for user_id in PEOPLE:
        with routed_to(user_id):
            bought += [loop.session_of(loop.buy(user_id, key=key)) for key in "ab"]
            loop.client.v1.checkout.sessions.expire(loop.session_of(loop.buy(user_id, key="left")))
    for session_id in bought:
        loop.offline.pay(session_id)
    loop.refund_at_stripe(bought[0], 200)
    loop.offline.open_dispute(loop.charge_of(bought[4]))
    told = loop.webhooks()
    loop.deliver(each for place, each in enumerate(told) if place % 3)
    forgotten = loop.refund_at_stripe(bought[2], 100)
    loop.deliver(loop.webhooks())
    loop.refund_at_stripe(bought[6], 300)  # of which nobody hears
    del loop.offline.account.state.objects["refund"][forgotten]
    loop.offline.pay(strangers_session(loop))
    for number, user_id in enumerate(PEOPLE[:2]):
        with routed_to(user_id), SessionLocal.begin() as session:
            session.add(a_transaction(user_id=user_id, stripe_session_id=f"cs_alone_{number}"))
    return loop


def strangers_session(loop: Loop) -> str:
    """A page that is not of ours."""
    price: Any = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "A cap"}}
    made = loop.client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.test/paid",
            "line_items": [{"quantity": 1, "price_data": price}],
        }
    )
    return str(made.id)


@dataclass
class Outcome:
    """What comparing found, and how it left the books."""

    listed: Findings
    mended: Findings
    afterwards: Findings
    balances: list[int]
    unmatched: set[str]


def outcome_of(loop: Loop) -> Outcome:
    """Compare, mend, compare again."""
    listed = findings_of(loop, repairs=False)
    mended = findings_of(loop, repairs=True)
    afterwards = findings_of(loop, repairs=False)
    with SessionLocal() as session:
        unmatched = set(session.scalars(select(UnmatchedPayment.stripe_object_id)))
    return Outcome(listed, mended, afterwards, [balance_of(each) for each in PEOPLE], unmatched)


def reversals() -> set[str]:
    """All that went back, of everybody."""
    found: set[str] = set()
    for route in all_routes():
        with routed_to_schema(route), SessionLocal() as session:
            found |= set(session.scalars(select(StripeReversal.reversal_id)))
    return found


def group_of(place: int) -> str:
    """Three groups have two users each."""
    return GROUPS[place % 3]


def test_the_same_is_found_and_mended_as_without_groups(
    fresh_database: ConnectionParameters,
    groups: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the same Stripe and the same books, object by object."""
    divided = outcome_of(shop(group_of)), reversals()
    asyncio.run(forget_engines())
    monkeypatch.setenv("SHARDING", "none")
    point_to(monkeypatch, fresh_database)
    undivided = outcome_of(shop(lambda _: None)), reversals()
    asyncio.run(forget_engines())
    monkeypatch.setenv("SHARDING", "schemas")
    point_to(monkeypatch, groups)
    assert divided == undivided
    found = divided[0]
    whats = {what for _, what, _ in found.listed}
    assert {"missing", "extra", "missing: it belongs among the unmatched payments"} <= whats
    assert len(found.listed) > 20
    assert {mended for _, what, mended in found.mended if what == "missing"} == {True}
    assert {what.partition(":")[0] for _, what, _ in found.afterwards} == {
        "TRANSACTION_WITHOUT_CREDIT",
        "extra",
    }


def test_what_agrees_costs_as_much_however_many_objects_there_are(
    groups: ConnectionParameters,
) -> None:
    """A page is looked up in the directory as a whole, and in each group as a whole."""
    assert groups
    loop = start_loop("cost", clock=lambda: BEGINNING)
    counts: list[int] = []
    for _ in range(2):
        for place in range(3):
            with routed_to_schema(group_of(place)), SessionLocal.begin() as session:
                user = a_user()
                session.add(user)
            with routed_to(user.user_id):
                loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
        loop.deliver(loop.webhooks())
        findings_of(loop, repairs=False)
        with counting(get_engine()) as statements:
            assert findings_of(loop, repairs=False) == set()
        counts.append(statements())
    assert counts[0] == counts[1]


def test_a_run_that_is_cut_off_anywhere_is_taken_up_there(
    groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each page of what we have: nobody is compared twice, nobody is left out."""
    assert groups
    monkeypatch.setattr(ours, "PAGE_SIZE", 1)
    loop = shop(group_of)
    whole = loop.reconcile(LONG_AGO, until=LATER, repairs=False)
    read = ours.Ours.page
    pages: list[tuple[str, str | None]] = []

    async def read_once(self: ours.Ours, stage: str, cursor: str | None) -> ours.PageOfOurs:
        pages.append((stage, cursor))
        if pages.count((stage, cursor)) == 1:
            raise DatabaseBusy
        return await read(self, stage, cursor)

    monkeypatch.setattr(ours.Ours, "page", read_once)
    resumes = False
    while True:
        try:
            run = loop.reconcile(LONG_AGO, until=LATER, repairs=False, resumes=resumes)
            break
        except DatabaseBusy:
            resumes = True
    assert (run.compared, run.drift) == (whole.compared, whole.drift)
    assert sorted(run.findings, key=str) == sorted(whole.findings, key=str)
    assert len(pages) == 2 * len({*pages}) > 60


@pytest.mark.parametrize(
    ("database", "cursor"), [("groups", "cs_zzz"), ("fresh_database", "g0002:cs_zzz")]
)
def test_a_run_that_is_cut_off_before_a_copy_is_taken_up_after_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, database: str, cursor: str
) -> None:
    """Into groups and out of them: its place means nothing there, so the stage begins anew."""
    request.getfixturevalue(database)
    is_divided = database == "groups"
    monkeypatch.setattr(ours, "PAGE_SIZE", 1)
    loop = shop(group_of if is_divided else lambda _: None)
    whole = loop.reconcile(LONG_AGO, until=LATER, repairs=False)
    read = ours.Ours.page

    async def cut_off(self: ours.Ours, stage: str, cursor: str | None) -> ours.PageOfOurs:
        if stage == "ours" and cursor is not None:
            raise DatabaseBusy
        return await read(self, stage, cursor)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ours.Ours, "page", cut_off)
        with pytest.raises(DatabaseBusy):
            loop.reconcile(LONG_AGO, until=LATER, repairs=False)
    with SessionLocal.begin() as session:
        stopped = update(Reconciliation).where(Reconciliation.status == "running")
        session.execute(stopped.values(cursor=cursor))
    run = loop.reconcile(LONG_AGO, until=LATER, repairs=False, resumes=True)
    assert {each["object"] for each in run.findings} == {each["object"] for each in whole.findings}
    assert run.drift >= whole.drift > 0


def test_the_worker_compares(groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payments that nobody told of are credited by it, in whatever group."""
    assert groups
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_1")
    get_settings.cache_clear()
    loop = start_loop("worker")

    @asynccontextmanager
    async def opened(_settings: Settings) -> AsyncGenerator[Gateway | None]:
        yield loop.processor.gateway

    monkeypatch.setattr(work, "open_gateway", opened)
    people = [user_of(group_of(place)) for place in range(3)]
    for user_id in people:
        with routed_to(user_id):
            loop.offline.pay(loop.session_of(loop.buy(user_id)))
    assert not asyncio.run(work.reconcile_where_due())
    assert [balance_of(each) for each in people] == [500] * len(people)
    assert count_in_groups(Transaction) == dict.fromkeys(GROUPS[:3], 1)
