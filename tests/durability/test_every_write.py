"""Nothing is acknowledged that a silent standby has not, whatever the write and the way in.

Each write is tried twice while the standby is silent. Between the two, what the first has committed
is made to be on this server alone, for all to see, as by a restart: only the second could take it
for safe. A third, while no standby is asked for, is answered.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.api.src import install
from src.common.accounts import api_keys, queries
from src.common.accounts import operations as accounts
from src.common.approvals import operations as approvals
from src.common.async_database import (
    AsyncSessionLocal,
    get_async_db,
    run_in_async_database_transaction,
)
from src.common.credits import async_ledger, ledger
from src.common.credits.domain.commands import Spend
from src.common.credits.engine.engine import Engine
from src.common.credits.reservation import reserve_async
from src.common.database import SessionLocal, run_in_database_transaction
from src.common.exceptions import DatabaseBusy
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.api.charging_shop import Shop
from tests.api.credits import WRITER
from tests.api.stripe_side import buy, click, offline_stripe
from tests.api.tokens import ISSUER, jwk_set, make_token
from tests.approvals.requests import GRACE, a_grant, asked
from tests.durability.conftest import Primary
from tests.fixtures.api import (
    WEBHOOK_SECRET,
    Api,
    NoCollector,
    build_app,
    client_of,
    logging_restored,
    make_api_key,
    make_user,
    until,
)
from tests.stripe.payments import make_event, make_session

pytestmark = pytest.mark.xdist_group("standbys")

KEY = {"Idempotency-Key": "k"}
Try = Callable[[], Coroutine[Any, Any, bool]]
"""Whether it was acknowledged; False is the retryable error."""


async def acknowledges(trying: Awaitable[object]) -> bool:
    """Whether it ends well; every other end than the retryable error's is an error here too."""
    try:
        answer = await trying
    except DatabaseBusy:
        return False
    if isinstance(answer, httpx.Response):
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            return False
        assert answer.is_success, answer.text
    return True


@pytest_asyncio.fixture
async def api(
    impatient: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Api]:
    """The API on that database."""
    assert impatient
    monkeypatch.setattr(install, "gc", NoCollector)
    environment = {
        "AUTH_JWT_SECRET": jwk_set(),
        "AUTH_JWT_ISSUER": ISSUER,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    app = build_app()
    async with AsyncExitStack() as stack:
        stack.enter_context(logging_restored())
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield await stack.enter_async_context(client_of(app))


async def customer(credits_given: int = 1_000) -> uuid.UUID:
    """A user with credits (entry 1), one spend (entry 2) and an open hold (entry 3)."""
    user = await make_user()
    user_id = user.user_id

    def work(session: Session) -> None:
        ledger.grant(session, user_id, credits_given, key="1")
        ledger.spend(session, user_id, 10, key="2")
        ledger.open_hold(session, user_id, 10, expires_in_seconds=86_400, key="3")

    await run_in_async_database_transaction(work)
    return user_id


async def over_http(api: Api) -> dict[str, Try]:
    """Every way to write over HTTP, each on what is its own."""
    service = await make_api_key(*WRITER)
    offline = offline_stripe(api)
    tries: dict[str, Callable[[], Awaitable[object]]] = {}
    for name, (path, body) in {
        "spend": ("spend", {"amount": 1}),
        "grant": ("grant", {"amount": 1, "source": "promo"}),
        "adjust": ("adjust", {"amount": 1, "reason": "x"}),
        "open a hold": ("holds", {"amount": 1, "expires_in_seconds": 3_600}),
        "capture": ("holds/3/capture", {"amount": 1}),
        "release": ("holds/3/release", {}),
        "renew": ("holds/3/renew", {"expires_in_seconds": 3_600}),
        "reverse": ("entries/2/reverse", {"reason": "x"}),
    }.items():
        address = f"/user/{await customer()}/credits/{path}"
        tries[name] = partial(api.call, "POST", address, service, json=body, headers=KEY)
    item = {"operation": "spend", "user_id": str(await customer()), "idempotency_key": "k"}
    tries["batch"] = partial(_batch, api, service, item | {"amount": 1})
    for name, event in {
        "webhook": make_event(make_session(await customer())),
        "webhook that is ignored": make_event(make_session(await customer()), type="ping"),
        "webhook that goes by itself": make_event(
            make_session(await customer()), "checkout.session.expired"
        ),
    }.items():
        tries[name] = partial(api.deliver, event)
    token = make_token(uuid.uuid4())
    tries["sign-up"] = partial(api.call, "POST", "/authenticate-jwt", token)
    token = make_token(await customer())
    tries["profile"] = partial(
        api.call, "PATCH", "/update_profile", token, json={"company": "Slides"}
    )
    tries["checkout"] = partial(click, api, await customer())
    user_id = await customer()
    path = f"/checkout-session/{await buy(api, offline, user_id)}/confirm"
    tries["confirm"] = partial(api.call, "POST", path, make_token(user_id))
    tries["refund"] = partial(
        api.call,
        "POST",
        f"/transactions/{await bought(api, offline)}/refund",
        await make_api_key("payments:refund"),
        json={},
        headers=KEY,
    )
    user = await run_in_async_database_transaction(
        partial(queries.get_user, user_id=await customer())
    )
    shop = Shop(api, user)
    shop.add(api.app)
    tries["charged request"] = partial(api.call, "POST", "/render", make_token(user.user_id))
    tries["its replay"] = partial(shop.post, json={"deck": 1})
    await until(partial(_answered, tries["its replay"]))
    return {name: partial(_answered, one) for name, one in tries.items()}


async def _batch(api: Api, service: str, item: dict[str, Any]) -> httpx.Response:
    """A batch is answered 200; what became of an item, the item says."""
    answer = await api.call("POST", "/credits/batch", service, json={"items": [item]})
    if answer.status_code == 200:
        [result] = answer.json()["results"]
        if result["status"] == 503:
            raise DatabaseBusy("the item's")
        assert result["status"] == 200, answer.text
    return answer


async def _answered(trying: Callable[[], Awaitable[object]]) -> bool:
    return await acknowledges(trying())


async def bought(api: Api, offline: Any) -> uuid.UUID:
    """A purchase that was credited."""
    user_id = await customer()
    path = f"/checkout-session/{await buy(api, offline, user_id)}/confirm"
    token = make_token(user_id)
    await until(partial(_answered, partial(api.call, "POST", path, token)))

    def find(session: Session) -> uuid.UUID:
        statement = select(Transaction.transaction_id).where(Transaction.user_id == user_id)
        return session.scalars(statement).one()

    return await run_in_async_database_transaction(find)


def as_the_document_does(user_id: uuid.UUID) -> None:
    """Credit a purchase; an IntegrityError says that it was done before."""
    try:
        with SessionLocal() as db:
            user = db.get_one(User, user_id)
            user.credits_balance += 500
            db.add(
                Transaction(
                    user_id=user_id,
                    stripe_session_id=f"cs_{user_id}",
                    amount_paid_cents=500,
                    credits_added=500,
                )
            )
            db.commit()
    except IntegrityError:
        return


async def as_the_document_does_async(user_id: uuid.UUID) -> None:
    """The same by its asynchronous pattern."""
    async with get_async_db() as db:
        try:
            async with db.begin():
                await _purchase(db, user_id)
        except IntegrityError:
            return


async def _purchase(db: AsyncSession, user_id: uuid.UUID) -> None:
    user = await db.get_one(User, user_id)
    user.credits_balance += 500
    db.add(
        Transaction(
            user_id=user_id,
            stripe_session_id=f"cs_{user_id}",
            amount_paid_cents=500,
            credits_added=500,
        )
    )


def in_a_block_of_ones_own(user_id: uuid.UUID) -> None:
    """A spend by the caller's own session."""
    with SessionLocal.begin() as db:
        ledger.spend(db, user_id, 1, key="k")


async def in_an_async_block_of_ones_own(user_id: uuid.UUID) -> None:
    """The same, async."""
    async with get_async_db() as db, db.begin():
        await async_ledger.spend(db, user_id, 1, key="k")


async def by_a_reservation(user_id: uuid.UUID) -> None:
    """Credits held while the work is done."""
    async with reserve_async(AsyncSessionLocal, user_id, 1, key="k"):
        pass


async def by_library(engine: Engine) -> dict[str, Try]:
    """Ways to write as an application's own code does, sync, async, and by the engine."""
    tries: dict[str, Callable[[], Awaitable[object]]] = {
        "engine": partial(engine.spend, await customer(), 1, key="k"),
        "sync block": _in_thread(partial(in_a_block_of_ones_own, await customer())),
        "async block": partial(in_an_async_block_of_ones_own, await customer()),
        "reservation": partial(by_a_reservation, await customer()),
        "the document's purchase": _in_thread(partial(as_the_document_does, await customer())),
        "the same, async": partial(as_the_document_does_async, await customer()),
    }
    key_id = await run_in_async_database_transaction(_issue)
    to_consent = await run_in_async_database_transaction(partial(_ask, user_id=await customer()))
    to_refuse = await run_in_async_database_transaction(partial(_ask, user_id=await customer()))
    works: dict[str, Callable[[Session], object]] = {
        "spend": partial(ledger.spend, user_id=await customer(), amount=1, key="k"),
        "several": partial(
            _execute, command=Spend(user_id=await customer(), amount=1, key="k", actor="system:t")
        ),
        "revoke a key": partial(api_keys.revoke_api_key, key_id=key_id),
        "consent": partial(approvals.consent, approval_id=to_consent, decider=GRACE),
        "refuse": partial(approvals.refuse, approval_id=to_refuse, decider=GRACE),
        "ask": partial(_ask, user_id=await customer()),
        "set type": partial(accounts.set_user_type, user_id=await customer(), user_type="admin"),
        "deactivate": partial(accounts.set_active, user_id=await customer(), is_active=False),
        "erase": partial(accounts.erase_user, user_id=await customer()),
    }
    for name, work in works.items():
        tries[name] = _in_thread(partial(run_in_database_transaction, work))
    return {name: partial(_answered, one) for name, one in tries.items()}


def _in_thread(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    return lambda: asyncio.to_thread(work)


def _execute(session: Session, command: Spend) -> None:
    ledger.execute(session, [command])


def _issue(session: Session) -> uuid.UUID:
    return api_keys.create_api_key(
        session, service_name="slides", scopes=["credits:read"]
    ).record.key_id


def _ask(session: Session, user_id: uuid.UUID) -> uuid.UUID:
    return asked(session, a_grant(user_id, key="k")).approval.approval_id


async def never_acknowledged(primary: Primary, tries: dict[str, Try]) -> None:
    """The property this file is about."""
    primary.set_synchronous_commit("on")
    for attempt in ("first", "second"):
        answers = await asyncio.gather(*(trying() for trying in tries.values()))
        acknowledged = [name for name, is_done in zip(tries, answers, strict=True) if is_done]
        assert not acknowledged, f"the {attempt} try is acknowledged: {acknowledged}"
        primary.end_who_waits()
    primary.set_synchronous_commit("local")
    for trying in tries.values():
        await until(trying)


async def test_nothing_is_acknowledged_over_http(primary: Primary, api: Api) -> None:
    """No 2xx, but 503 with Retry-After."""
    await never_acknowledged(primary, await over_http(api))


async def test_nothing_is_acknowledged_to_callers(
    primary: Primary, impatient: ConnectionParameters
) -> None:
    """They get the one retryable error."""
    assert impatient
    async with Engine.from_settings(get_settings()) as engine:
        await never_acknowledged(primary, await by_library(engine))
