"""Payments: purchases, orders, money that goes back; each as a timeline of all that happened."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from src.common.async_database import run_in_async_database_transaction
from src.common.async_replicas import AsyncReader
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_reversal import StripeReversal
from src.common.postgres.lagging_reads import ReadFrom
from src.common.postgres.pagination import Page
from src.common.purchases.queries import Purchase, PurchaseFilter, PurchaseState, list_purchases
from src.common.purchases.timeline import PaymentTimeline, payment_timeline
from src.common.purchases.unfinished import unfinished_orders, unfinished_reversals
from src.console.addresses import here_with
from src.console.audit import record
from src.console.pages.audit_trail import names_of
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import path_of, render
from src.console.service import settings_of, source_of_lists

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

    def work(session: Session) -> _Lists:
        record(session, person, "payments.list", user_id=user, target=tab)
        if tab == "orders":
            return _Lists(orders=unfinished_orders(session, UNFINISHED_SHOWN))
        if tab == "reversals":
            return _Lists(reversals=unfinished_reversals(session, UNFINISHED_SHOWN))
        return _Lists()

    found = await run_in_async_database_transaction(work)
    if tab not in {"orders", "reversals"}:
        state = None if tab == "purchases" else PurchaseState(tab)
        wanted = PurchaseFilter(user_id=user, state=state)
        reader = AsyncReader(source_of_lists(settings_of(request)))
        page = await reader.read(list_purchases, wanted, cursor=cursor, limit=SHOWN)
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

    payment, names = await run_in_async_database_transaction(work)
    return render(request, person, "payment.html", payment=payment, names=names)


def _our_id(payment: PaymentTimeline) -> str | None:
    """What the audit trail calls it; a name of Stripe's could be anything."""
    if payment.purchase is not None:
        return str(payment.purchase.transaction.transaction_id)
    return None if payment.order is None else str(payment.order.order_id)
