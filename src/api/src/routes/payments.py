"""Payments: offering a package, learning what became of it, paying one back."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from src.api.src.dependencies import Caller, CallingUser, GatewayOf, SettingsOf
from src.api.src.errors import ALWAYS, AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.persons import begin_refund
from src.api.src.principals import Principal
from src.api.src.routes.checkout_pages import pages_of
from src.api.src.schemas.payments import (
    CheckoutIn,
    CheckoutOut,
    ConfirmOut,
    PackagesOut,
    RefundIn,
    RefundOut,
)
from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import BadRequest
from src.common.purchases.refunds import RefundWish
from src.common.routing import async_routed_to
from src.common.routing_to_purchases import async_routed_to_purchase
from src.common.stripe.checkout import plan_checkout, start_checkout
from src.common.stripe.confirmation import confirm_checkout
from src.common.stripe.processing import Processor
from src.common.stripe.refunds import refund_payment

router = APIRouter(tags=["payments"])

PACKAGES_CACHED = {"Cache-Control": "public, max-age=60", "Vary": "Origin"}
"""The same for everybody, but for whose pages may read it (`cors.py`)."""

STRIPE = ("STRIPE_GATEWAY_ERROR", "STRIPE_NOT_CONFIGURED")
KEYED = ("IDEMPOTENCY_KEY_REQUIRED", "IDEMPOTENCY_KEY_REUSED")

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Your name for this request, 1 to 255 characters. The same request sent again "
        "with it is done once."
    ),
]


CheckoutSessionId = Annotated[
    str,
    Path(
        pattern="^cs_[A-Za-z0-9_]{1,200}$",
        description="`cs_…`: Stripe writes it into the success page's URL in place of "
        "`{CHECKOUT_SESSION_ID}`.",
    ),
]


@router.get("/packages", summary="What is on sale", responses=error_responses(*ALWAYS))
async def list_packages(settings: SettingsOf, response: Response) -> PackagesOut:
    """List the packages of `CREDIT_PACKAGES`. Caches may keep the answer for a minute."""
    response.headers.update(PACKAGES_CACHED)
    return PackagesOut.model_validate(settings)


@router.post(
    "/create-checkout-session",
    summary="Start buying a package",
    responses=error_responses(
        *EVERYWHERE, *AUTHENTICATED, *KEYED, *STRIPE, "BAD_REQUEST", "USER_NOT_FOUND"
    ),
)
async def create_checkout_session(
    caller: CallingUser,
    wish: CheckoutIn,
    settings: SettingsOf,
    gateway: GatewayOf,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CheckoutOut:
    """Write an order and make its pay page at Stripe. The same key gives the same page again."""
    assert caller.user_id is not None  # noqa: S101  CallingUser says so
    checkout = plan_checkout(
        settings,
        caller.user_id,
        wish.credit_option,
        key=_required(idempotency_key),
        success_url=wish.success_url,
        cancel_url=wish.cancel_url,
        local_pages=pages_of(request, settings),
    )
    async with async_routed_to(caller.user_id):
        page = await start_checkout(run_in_async_database_transaction, gateway, settings, checkout)
    if page.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return CheckoutOut(url=page.url, order_id=page.order_id)


@router.post(
    "/checkout-session/{session_id}/confirm",
    summary="Learn what became of a Checkout Session",
    responses=error_responses(
        *EVERYWHERE, *AUTHENTICATED, *STRIPE, "CHECKOUT_SESSION_NOT_FOUND", "USER_NOT_FOUND"
    ),
)
async def confirm_checkout_session(
    session_id: CheckoutSessionId, caller: CallingUser, settings: SettingsOf, gateway: GatewayOf
) -> ConfirmOut:
    """For the success page: what was paid is credited now, also before Stripe's webhook arrives."""
    assert caller.user_id is not None  # noqa: S101  CallingUser says so
    processor = Processor(run_in_async_database_transaction, gateway, settings)
    async with async_routed_to(caller.user_id):
        return ConfirmOut(status=await confirm_checkout(processor, caller.user_id, session_id))


async def _refund_caller(caller: Caller) -> Principal:
    """Refuse who may not refund, before the body is looked at."""
    caller.require(Scope.PAYMENTS_REFUND)
    return caller


RefundCaller = Annotated[Principal, Depends(_refund_caller)]


@router.post(
    "/transactions/{transaction_id}/refund",
    summary="Pay a purchase back",
    responses=error_responses(
        *EVERYWHERE,
        *AUTHENTICATED,
        *KEYED,
        *STRIPE,
        "BAD_REQUEST",
        "TRANSACTION_NOT_FOUND",
        "REFUND_EXCEEDS_PAYMENT",
        "REFUND_REFUSED",
        "CONSENT_NEEDED",
    ),
)
async def refund_transaction(
    transaction_id: Annotated[uuid.UUID, Path(description="The purchase.")],
    caller: RefundCaller,
    wish: RefundIn,
    settings: SettingsOf,
    gateway: GatewayOf,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RefundOut:
    """Refund all of a purchase or a part. The credits it bought are taken back with it."""
    asked = RefundWish(
        transaction_id=transaction_id,
        key=_required(idempotency_key),
        actor=caller.actor,
        amount_cents=wish.amount_cents,
        reason=wish.reason,
    )
    async with async_routed_to_purchase(transaction_id):
        await begin_refund(caller, settings, asked)
        refunded = await refund_payment(run_in_async_database_transaction, gateway, settings, asked)
    if refunded.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return RefundOut.model_validate(refunded)


def _required(key: str | None) -> str:
    if not key:
        raise BadRequest("Send the header Idempotency-Key", "IDEMPOTENCY_KEY_REQUIRED")
    return key
