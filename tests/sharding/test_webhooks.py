"""What Stripe tells of users of different groups: credited once, where the user is."""

import asyncio
import json
import uuid
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.cli import work
from src.cli.reach import in_database
from src.cli.work import settle_events
from src.common.async_database import get_async_db
from src.common.database import SessionLocal, get_engine
from src.common.models import StripeReversal, Transaction, UnmatchedPayment, User
from src.common.postgres.routes import routed_to_schema
from src.common.postgres.runtime_role import grant_runtime
from src.common.routing import async_routed_to, routed_to
from src.common.settings import get_settings
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import Facts, Lookup
from src.common.stripe.processing import Processor
from src.common.stripe.wire import AnyEvent, CheckoutSession, parse_event
from src.local_postgres import ConnectionParameters
from tests.fixtures.api import StartApi
from tests.fixtures.databases import forget_engines, point_to
from tests.models.examples import a_transaction
from tests.sharding.citus_server import on_one_server
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import (
    TWO,
    check_all_books,
    count_in_groups,
    deliver_all,
    people,
    purchases_of,
    reasons_of_unmatched,
    statuses_of_events,
)
from tests.stripe.payments import COMPLETED, SUCCEEDED, make_event, make_session

REFUNDED = "refund.created"
POOLERS = pytest.mark.parametrize("pooler", ["none", "transaction"])


def refund_of(session: dict[str, Any], amount: int, **changes: Any) -> dict[str, Any]:
    """An event: so many cents of what this session took went back."""
    refund: dict[str, Any] = {
        "id": f"re_{uuid.uuid4().hex}",
        "object": "refund",
        "amount": amount,
        "currency": session["currency"],
        "charge": None,
        "payment_intent": session["payment_intent"],
        "status": "succeeded",
        "metadata": {},
    }
    return make_event({**refund, **changes}, REFUNDED)


def payments_noted() -> dict[str, str]:
    """The directory: of each object of Stripe's the group of its user."""
    statement = text(
        "SELECT object_id, schema FROM payments_directory JOIN users_directory USING (user_id)"
    )
    with get_engine().connect() as connection:
        return dict(connection.execute(statement).all())


def waiting_in_public() -> list[str]:
    """Money back that waits for a payment of nobody's."""
    with SessionLocal() as session:
        return list(session.scalars(select(StripeReversal.reversal_id)))


@POOLERS
async def test_payments_of_users_of_different_groups_are_credited_where_they_are(
    start_service: StartApi, pooler: str
) -> None:
    """A storm of events and copies: each payment once, in its user's group, and noted as theirs."""
    users = people(4)
    api = await start_service(DATABASE_POOLER=pooler)
    sessions = [make_session(each) for each in users for _ in range(3)]
    events = [make_event(each, kind) for each in sessions for kind in (COMPLETED, SUCCEEDED)]
    answers = await deliver_all(api, events * 3)
    assert answers.total() == len(events) * 3
    assert answers["processed"] == len(sessions)
    assert answers["already_processed"] == len(events) * 3 - len(sessions)
    assert [balance_of(each) for each in users] == [1_500] * len(users)
    assert [purchases_of(each) for each in users] == [3] * len(users)
    assert count_in_groups(Transaction) == dict.fromkeys(TWO, len(sessions) // 2)
    assert statuses_of_events() == {"processed": len(events)}
    noted = payments_noted()
    for user_id, session in zip([each for each in users for _ in range(3)], sessions, strict=True):
        home = TWO[users.index(user_id) % 2]
        assert noted[session["id"]] == noted[session["payment_intent"]] == home
    assert check_all_books() == len(users)


@on_one_server
@POOLERS
async def test_events_of_one_group_travel_together(
    start_service: StartApi, monkeypatch: pytest.MonkeyPatch, pooler: str
) -> None:
    """Those of users that are known, and about payments that are: nobody goes by itself."""
    users = people(4)
    api = await start_service(DATABASE_POOLER=pooler)
    alone: list[str] = []

    async def note(_processor: Processor, event: AnyEvent, _body: bytes) -> EventAnswer:
        alone.append(event.id)
        return EventAnswer.ACCEPTED

    monkeypatch.setattr(Processor, "receive", note)
    sessions = [make_session(each) for each in users]
    assert await deliver_all(api, map(make_event, sessions)) == {"processed": len(users)}
    intents = [
        make_event(
            {
                "id": each["payment_intent"],
                "object": "payment_intent",
                "status": "succeeded",
                "livemode": False,
            },
            "payment_intent.succeeded",
        )
        for each in sessions
    ]
    assert await deliver_all(api, intents) == {"already_processed": len(users)}
    assert alone == []


async def test_a_payment_of_nobody_is_noted_and_nobody_is_credited(start_service: StartApi) -> None:
    """Once its user is there, the event is judged anew and credits them."""
    api = await start_service()
    stranger = uuid.uuid4()
    session = make_session(stranger)
    event = make_event(session)
    assert await deliver_all(api, [event]) == {"unmatched": 1}
    assert reasons_of_unmatched() == {session["id"]: ("USER_UNKNOWN", "open")}
    assert count_in_groups(Transaction) == {}
    user_of(GROUPS[4], user_id=stranger)
    assert await deliver_all(api, [event]) == {"processed": 1}
    assert balance_of(stranger) == 500
    assert reasons_of_unmatched() == {session["id"]: ("USER_UNKNOWN", "resolved")}


async def test_money_back_waits_for_a_payment_that_nobody_knows(start_service: StartApi) -> None:
    """It waits where everybody's is, and the purchase takes it along into its user's group."""
    [ada, bob] = people(1)
    api = await start_service()
    paid, others = make_session(ada), make_session(bob)
    refund = refund_of(paid, paid["amount_total"])
    assert await deliver_all(api, [refund]) == {"processed": 1}
    assert await deliver_all(api, [refund]) == {"already_processed": 1}
    assert waiting_in_public() == [refund["data"]["object"]["id"]]
    assert count_in_groups(StripeReversal) == {}
    assert await deliver_all(api, [make_event(paid), make_event(others)]) == {"processed": 2}
    assert waiting_in_public() == []
    assert count_in_groups(StripeReversal) == {TWO[0]: 1}
    assert (balance_of(ada), balance_of(bob)) == (0, 500)
    assert check_all_books() == 2


async def test_money_back_of_a_known_payment_is_its_group_s(start_service: StartApi) -> None:
    """Also a later snapshot that tells of no payment: the directory knows the refund itself."""
    [ada, bob] = people(1)
    api = await start_service()
    paid = make_session(bob)
    refund = refund_of(paid, paid["amount_total"] // 2, status="pending")
    assert await deliver_all(api, [make_event(paid)]) == {"processed": 1}
    assert await deliver_all(api, [refund]) == {"processed": 1}
    assert count_in_groups(StripeReversal) == {TWO[1]: 1}
    assert (balance_of(ada), balance_of(bob)) == (0, 250)
    vague = {**refund["data"]["object"], "payment_intent": None, "status": "succeeded"}
    assert await deliver_all(api, [make_event(vague, "refund.updated")]) == {"processed": 1}
    assert waiting_in_public() == []
    with routed_to(bob), SessionLocal() as session:
        assert session.scalars(select(StripeReversal.status)).all() == ["succeeded"]
    assert check_all_books() == 2


async def test_payments_and_their_refunds_at_once_end_alike(start_service: StartApi) -> None:
    """Whichever comes first: all is given back, nothing waits, nothing is counted twice."""
    users = people(5)
    api = await start_service()
    sessions = [make_session(each) for each in users]
    refunds = [refund_of(each, each["amount_total"]) for each in sessions]
    events = [
        event
        for session, refund in zip(sessions, refunds, strict=True)
        for event in (refund, make_event(session), refund, make_event(session, SUCCEEDED))
    ]
    await deliver_all(api, events)
    assert [balance_of(each) for each in users] == [0] * len(users)
    assert [purchases_of(each) for each in users] == [1] * len(users)
    assert waiting_in_public() == []
    assert count_in_groups(StripeReversal) == dict.fromkeys(TWO, len(users) // 2)
    assert statuses_of_events() == {"processed": len(refunds) + 2 * len(sessions)}
    assert check_all_books() == len(users)


async def test_a_payment_that_names_two_users_credits_neither(start_service: StartApi) -> None:
    """The same session once more, with a user of another group in its metadata: a conflict."""
    [ada, bob] = people(1)
    api = await start_service()
    paid = make_session(ada)
    forged = {**paid, "metadata": paid["metadata"] | {"user_id": str(bob)}}
    assert await deliver_all(api, [make_event(paid)]) == {"processed": 1}
    assert await deliver_all(api, [make_event(forged)]) == {"unmatched": 1}
    assert reasons_of_unmatched() == {paid["id"]: ("PAYMENT_CONFLICT", "open")}
    assert (balance_of(ada), balance_of(bob)) == (500, 0)
    assert (purchases_of(ada), purchases_of(bob)) == (1, 0)


async def test_two_sessions_with_one_payment_intent_of_two_users_credit_one(
    start_service: StartApi,
) -> None:
    """What must be unique over all groups is: the directory refuses the second."""
    [ada, bob] = people(1)
    api = await start_service()
    first = make_session(ada)
    second = make_session(bob, payment_intent=first["payment_intent"])
    answers = await deliver_all(api, [make_event(first), make_event(second)])
    assert answers == {"processed": 1, "unmatched": 1}
    assert sorted((balance_of(ada), balance_of(bob))) == [0, 500]
    assert check_all_books() == 2


async def buy_by_session_alone(user_id: uuid.UUID) -> dict[str, Any]:
    """A purchase as application code writes it, which does not say its PaymentIntent."""
    paid = make_session(user_id)
    async with async_routed_to(user_id), get_async_db() as session:
        user = await session.get_one(User, user_id)
        user.credits_balance += 500
        session.add(
            a_transaction(user_id=user_id, stripe_session_id=paid["id"], currency=paid["currency"])
        )
        await session.commit()
    return paid


@pytest.mark.parametrize("bob_s", TWO)
async def test_a_purchase_does_not_learn_another_user_s_payment(
    start_service: StartApi, bob_s: str
) -> None:
    """Of the same group or of another: both keep what they have, and somebody looks at it."""
    ada, bob = user_of(TWO[0]), user_of(bob_s)
    api = await start_service()
    other = make_session(bob)
    assert await deliver_all(api, [make_event(other)]) == {"processed": 1}
    paid = await buy_by_session_alone(ada)
    named = {**paid, "payment_intent": other["payment_intent"]}
    for _ in range(2):
        assert await deliver_all(api, [make_event(named)]) == {"unmatched": 1}
    unpaid = {**named, "payment_status": "unpaid"}
    assert await deliver_all(api, [make_event(unpaid)]) == {"unmatched": 1}
    assert reasons_of_unmatched() == {paid["id"]: ("PAYMENT_CONFLICT", "open")}
    assert statuses_of_events() == {"processed": 1, "unmatched": 3}
    assert (balance_of(ada), balance_of(bob)) == (500, 500)
    assert await deliver_all(api, [make_event(paid)]) == {"already_processed": 1}


async def test_an_event_about_users_of_several_groups_is_settled_in_each(
    groups: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each payment where its user is; what cannot be credited is noted, and the event says so."""
    assert groups
    ada, bob = people(1)
    told = [make_session(each) for each in (ada, bob, uuid.uuid4())]
    payments = tuple(CheckoutSession.model_validate(each).as_payment() for each in told)

    async def all_of_them(_lookup: Lookup, _event: AnyEvent) -> Facts:
        return Facts(payments=payments)

    monkeypatch.setattr(Lookup, "facts_of", all_of_them)
    body = json.dumps(make_event(told[0])).encode()
    processor = Processor(in_database, None, get_settings())
    for _ in range(2):
        answer = await processor.receive(parse_event(body), body)
        assert answer is EventAnswer.UNMATCHED
    assert (balance_of(ada), balance_of(bob)) == (500, 500)
    assert reasons_of_unmatched() == {told[2]["id"]: ("USER_UNKNOWN", "open")}
    assert statuses_of_events() == {"unmatched": 1}


async def test_stored_events_are_settled_by_the_worker_in_every_group(
    start_service: StartApi,
) -> None:
    """What is in the inbox and not settled is credited by the backlog: each in its group."""
    users = [user_of(group) for group in GROUPS for _ in range(2)]
    api = await start_service()
    sessions = [make_session(each) for each in [*users, uuid.uuid4()]]
    await deliver_all(api, [make_event(each) for each in sessions])
    unsettle = (
        "UPDATE stripe_events SET status = 'received', attempts = 0, processed_at = NULL,"
        " next_attempt_at = NULL, lease_expires_at = NULL"
    )
    later = [make_event(make_session(each)) for each in users]
    await deliver_all(api, later)
    with get_engine().begin() as connection:
        connection.execute(text(unsettle))
    assert not await asyncio.to_thread(asyncio.run, settle_events())
    assert statuses_of_events() == {"processed": len(users) * 2, "unmatched": 1}
    assert [balance_of(each) for each in users] == [1_000] * len(users)
    assert count_in_groups(Transaction) == dict.fromkeys(GROUPS, 4)


def add_events(session: Session, events: list[dict[str, Any]]) -> None:
    """As if they had been stored and nobody had tried them."""
    for event in events:
        session.execute(
            text(
                "INSERT INTO stripe_events (livemode, event_id, type, api_version, object_id, body,"
                " stripe_created_at) VALUES (false, :id, :type, :version, :object_id, :body, now())"
            ),
            {
                "id": event["id"],
                "type": event["type"],
                "version": event["api_version"],
                "object_id": event["data"]["object"]["id"],
                "body": json.dumps(event).encode(),
            },
        )


async def test_a_backlog_of_many_groups_is_credited_once(groups: object) -> None:
    """More than are settled one by one; payments, refunds before them, and an unknown user's."""
    assert groups
    users = [user_of(group) for group in GROUPS for _ in range(2)]
    sessions = [make_session(each) for each in users]
    unknown = make_session(uuid.uuid4())
    events = [make_event(each, kind) for each in sessions for kind in (COMPLETED, SUCCEEDED)]
    events += [refund_of(sessions[0], sessions[0]["amount_total"]), make_event(unknown)]
    with SessionLocal.begin() as session:
        add_events(session, events)
    await asyncio.to_thread(asyncio.run, settle_events())
    found = statuses_of_events()
    assert found == Counter(processed=len(events) - 1, unmatched=1)
    assert [balance_of(each) for each in users] == [0, *[500] * (len(users) - 1)]
    assert [purchases_of(each) for each in users] == [1] * len(users)


async def test_the_service_s_role_may_do_all_of_it(
    start_service: StartApi, groups: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payments, money back that waited, and the worker, as the role of a running service."""
    ada, bob = people(1)
    role = f"runtime_of_{groups.database}"[:60]
    with get_engine().begin() as connection:
        grant_runtime(connection, role)
        connection.execute(text(f"ALTER ROLE \"{role}\" PASSWORD 'of-the-service'"))
    try:
        monkeypatch.setenv("DATABASE_USER", role)
        monkeypatch.setenv("DATABASE_PASSWORD", "of-the-service")
        api = await start_service()
        paid = make_session(ada)
        refund = refund_of(paid, paid["amount_total"])
        events = [refund, make_event(make_session(bob))]
        assert await deliver_all(api, events) == {"processed": 2}
        assert await deliver_all(api, [make_event(paid)]) == {"processed": 1}
        assert (balance_of(ada), balance_of(bob)) == (0, 500)
        assert waiting_in_public() == []
        assert (await api.sign_in(email="new@example.com")).json()["status"] == "created"
        for name in ("bookings", "bodies", "expiring"):
            while work.WORK[name]():
                pass
    finally:
        point_to(monkeypatch, groups)
        get_settings.cache_clear()
        await forget_engines()
        with get_engine().begin() as connection:
            connection.execute(text(f'DROP OWNED BY "{role}"'))
            connection.execute(text(f'DROP ROLE "{role}"'))


def test_settling_on_a_wrong_route_is_refused(groups: object) -> None:
    """A purchase of a user of another group is refused by the database, whatever wrote it."""
    assert groups
    [ada, _] = people(1)
    with routed_to_schema(TWO[1]), SessionLocal() as session:
        session.add(
            Transaction(
                user_id=ada,
                stripe_session_id="cs_wrong",
                amount_paid_cents=500,
                credits_added=500,
                livemode=False,
            )
        )
        with pytest.raises(Exception, match=r"WRONG_SHARD|foreign key|another group|DIRECTORY"):
            session.commit()
    assert count_in_groups(Transaction) == {}
    with SessionLocal() as session:
        assert session.scalars(select(UnmatchedPayment)).all() == []
