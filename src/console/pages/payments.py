"""Payments: purchases, orders, money that goes back; each as a timeline of all that happened."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.async_replicas import AsyncReader
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_reversal import StripeReversal
from src.common.postgres.lagging_reads import ReadFrom
from src.common.postgres.pagination import Page
from src.common.purchases.queries import (
    Purchase,
    PurchaseFilter,
    PurchaseState,
    list_purchases,
    merge_purchases,
)
from src.common.purchases.timeline import PaymentTimeline, payment_timeline
from src.common.purchases.unfinished import unfinished_orders, unfinished_reversals
from src.common.routing import is_sharding
from src.common.time_zones import in_order
from src.console.addresses import here_with
from src.console.audit import record
from src.console.pages.audit_trail import names_of
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import path_of, render
from src.console.service import settings_of, source_of_lists
from src.console.whose import in_each_group, read_everybodys, routed_to_payment

router = APIRouter()
SHOWN = 50
UNFINISHED_SHOWN = 200
TABS = {
    "purchases": "Purchases",
    "disputed": "Disputed",
    "refunded": "Refunded",
    "partly_refunded": "Partly refunded",
    "orders": "Open orders",
    "reversals": "Refunds and disputes that may change",
}
_Sees = Annotated[Person, require(Permission.PAYMENTS_SEE)]
Unfinished = TypeVar("Unfinished", CheckoutOrder, StripeReversal)
_merge = partial(merge_purchases, limit=SHOWN)
_Tab = Literal["purchases", "disputed", "refunded", "partly_refunded", "orders", "reversals"]


@dataclass(kw_only=True)
class _Lists:
    """What the page shows: one of these, and who gave the first."""

    purchases: Page[Purchase] | None = None
    orders: Sequence[CheckoutOrder] | None = None
    reversals: Sequence[StripeReversal] | None = None
    read_from: ReadFrom | None = None


@router.get("/payments", name="console_payments")
async def show_payments(
    request: Request,
    person: _Sees,
    *,
    tab: _Tab = "purchases",
    name: Annotated[str, Query(alias="id", max_length=255)] = "",
    user: uuid.UUID | None = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """One page of a kind of payments, the newest first; an id leads to its payment."""
    if name.strip():
        wanted_name = quote(name.strip(), safe="")
        return RedirectResponse(path_of(request, "console_payment", name=wanted_name), 303)

    await run_in_async_database_transaction(
        lambda session: record(session, person, "payments.list", user_id=user, target=tab)
    )
    if tab == "orders":
        found = _Lists(orders=await _newest(unfinished_orders))
    elif tab == "reversals":
        found = _Lists(reversals=await _newest(unfinished_reversals, with_nobodys=True))
    else:
        state = None if tab == "purchases" else PurchaseState(tab)
        wanted = PurchaseFilter(user_id=user, state=state)
        reader = AsyncReader(source_of_lists(settings_of(request)))
        page = await read_everybodys(
            reader, list_purchases, wanted, merge=_merge, cursor=cursor, limit=SHOWN
        )
        found = _Lists(purchases=page.value, read_from=page.read_from)
    return render(
        request,
        person,
        "payments.html",
        tab=tab,
        tabs=TABS,
        purchases=found.purchases,
        orders=found.orders,
        reversals=found.reversals,
        read_from=found.read_from,
        address=here_with(request),
    )


@router.get("/payments/{name:path}", name="console_payment")
async def show_payment(request: Request, person: _Sees, name: str) -> Response:
    """All that is known of a payment, by any name that it has."""

    def work(session: Session) -> tuple[PaymentTimeline, Mapping[str, str]]:
        found = payment_timeline(session, name)
        record(session, person, "payments.see", user_id=found.user_id, target=_our_id(found))
        return found, names_of(session, (step.actor for step in found.steps))

    async with routed_to_payment(name):
        payment, names = await run_in_async_database_transaction(work)
    return render(request, person, "payment.html", payment=payment, names=names)


async def _newest(
    unfinished: Callable[[Session, int], Sequence[Unfinished]], *, with_nobodys: bool = False
) -> Sequence[Unfinished]:
    """The newest of all users', and of what nobody knows yet whose it is."""

    def read(session: Session) -> Sequence[Unfinished]:
        return unfinished(session, UNFINISHED_SHOWN)

    pages = list((await in_each_group(read)).values())
    if with_nobodys and is_sharding():
        pages.append(await read_from_async_database(read))
    found = [each for page in pages for each in page]
    newest_first = sorted(found, key=lambda each: in_order(each.created_at), reverse=True)
    return newest_first[:UNFINISHED_SHOWN]


def _our_id(payment: PaymentTimeline) -> str | None:
    """What the audit trail calls it; a name of Stripe's could be anything."""
    if payment.purchase is not None:
        return str(payment.purchase.transaction.transaction_id)
    return None if payment.order is None else str(payment.order.order_id)
