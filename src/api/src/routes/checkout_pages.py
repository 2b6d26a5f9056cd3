"""Where a customer comes back to from the pay page on a developer's machine (ENV=local).

Nobody signs in here: whoever knows a Checkout Session's id learns what it bought and what it made
of the balance, and of the person nothing.
"""

import re
import uuid
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.routing import NoMatchFound

from src.api.src.dependencies import GatewayOf, SettingsOf
from src.api.src.pages import page
from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.credits.queries import balance
from src.common.exceptions import ExceptionWithErrorType, NotFound
from src.common.models.checkout_order import CheckoutOrder
from src.common.purchases.orders import find_order_of_session
from src.common.purchases.packages import find_package
from src.common.purchases.receipts import find_receipt
from src.common.routing import async_routed_to
from src.common.routing_to_purchases import async_routed_to_payment
from src.common.settings import Settings
from src.common.stripe.checkout import ReturnPages, plan_checkout, start_checkout
from src.common.stripe.confirmation import CheckoutStatus, confirm_checkout
from src.common.stripe.gateway import Gateway
from src.common.stripe.processing import Processor
from src.html_pages import NOTHING, facts, money
from src.http_statuses import STATUS_BY_KIND

router = APIRouter(prefix="/checkout", include_in_schema=False)

_SUCCESS, _CANCELLED = "flashslides_checkout_success", "flashslides_checkout_cancelled"
"""Names of no route of anybody's whose application has ours beside its own."""
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.ASCII)
_SESSION_ID = re.compile(r"cs_[A-Za-z0-9_]{1,200}")
_HEADINGS = {
    CheckoutStatus.CREDITED: "Thank you, your credits are here",
    CheckoutStatus.PENDING: "Your payment is on its way",
    CheckoutStatus.UNMATCHED: "Your payment needs a look",
    CheckoutStatus.EXPIRED: "This offer has expired",
    CheckoutStatus.FAILED: "Your payment has failed",
}
_SENTENCES = {
    CheckoutStatus.PENDING: "The credits come when it is there. Load this page again to look.",
    CheckoutStatus.UNMATCHED: "It is not what was ordered, so nobody was credited: "
    "`flashslides stripe unmatched list` says why.",
    CheckoutStatus.EXPIRED: "Nothing was paid.",
    CheckoutStatus.FAILED: "Nothing was paid.",
}
_SENTENCE = Markup("<p>{}</p>")
_ALERT = Markup("<p role=alert>{}</p>")
_AGAIN = Markup(
    '<form method=post action="again?{query}"><button class=main>Buy again</button></form>'
)
_BACK = Markup('<p><a href="../">Back to FlashSlides</a></p>')
_AT_STRIPE = Markup(
    '<p><a href="{base_url}/c/pay/{session_id}">'
    "Refund it, dispute it or send its webhooks again, at the offline Stripe</a></p>"
)
_STILL_OPEN = Markup(
    '<p>The offer stays open: it can be paid <a href="{base_url}/">at the offline Stripe</a>.</p>'
)

SessionId = Annotated[str, Query()]


def pages_of(request: Request, settings: Settings) -> ReturnPages | None:
    """These pages' addresses, as whoever asks reaches them; None where they are not served.

    The address is the request's own, so only this machine's is believed: with another's the pay
    page would lead there.
    """
    if not settings.is_local or not _LOOPBACK.fullmatch(request.headers.get("Host", "")):
        return None
    try:
        success, cancelled = map(request.url_for, (_SUCCESS, _CANCELLED))
    except NoMatchFound:
        return None
    return ReturnPages(f"{success}?session_id={{CHECKOUT_SESSION_ID}}", str(cancelled))


@router.get("/success", name=_SUCCESS)
async def show_success(
    settings: SettingsOf, gateway: GatewayOf, session_id: SessionId = ""
) -> HTMLResponse:
    """What was bought and what it made of the balance, whether or not a webhook came yet."""
    try:
        order = await _order_of(session_id)
        processor = Processor(run_in_async_database_transaction, gateway, settings)
        async with async_routed_to(order.user_id):
            status = await confirm_checkout(processor, order.user_id, session_id)
            shown = await read_from_async_database(
                lambda session: _what_was_bought(session, settings, order, session_id, status)
            )
    except ExceptionWithErrorType as error:
        return _refused(error)
    sentence = _SENTENCES.get(status)
    query = urlencode({"session_id": session_id, "key": uuid.uuid4()})
    content = (
        facts(shown),
        _SENTENCE.format(sentence) if sentence else NOTHING,
        _AGAIN.format(query=query),
        _at_stripe(settings, _AT_STRIPE, session_id),
        _BACK,
    )
    return page(_HEADINGS[status], NOTHING.join(content))


@router.get("/cancelled", name=_CANCELLED)
async def show_cancelled(settings: SettingsOf) -> HTMLResponse:
    """Nothing was paid."""
    content = (
        _SENTENCE.format("Nothing was paid, and no credits were added."),
        _at_stripe(settings, _STILL_OPEN),
        _BACK,
    )
    return page("You left the pay page", NOTHING.join(content))


@router.post("/again")
async def buy_again(
    request: Request,
    settings: SettingsOf,
    gateway: GatewayOf,
    key: uuid.UUID,
    session_id: SessionId = "",
) -> Response:
    """The same package for the same user, at today's price: on to its pay page."""
    try:
        url = await _ordered_again(request, settings, gateway, await _order_of(session_id), key)
    except ExceptionWithErrorType as error:
        return _refused(error)
    return RedirectResponse(url, HTTPStatus.SEE_OTHER)


async def _ordered_again(
    request: Request,
    settings: Settings,
    gateway: Gateway | None,
    order: CheckoutOrder,
    key: uuid.UUID,
) -> str:
    checkout = plan_checkout(
        settings,
        order.user_id,
        order.package_id,
        key=f"again:{key}",
        local_pages=pages_of(request, settings),
    )
    async with async_routed_to(order.user_id):
        made = await start_checkout(run_in_async_database_transaction, gateway, settings, checkout)
    return made.url


async def _order_of(session_id: str) -> CheckoutOrder:
    order = None
    if _SESSION_ID.fullmatch(session_id):
        async with async_routed_to_payment(session_id):
            order = await read_from_async_database(
                lambda session: find_order_of_session(session, session_id)
            )
    if order is None:
        raise NotFound("There is no such Checkout Session", "CHECKOUT_SESSION_NOT_FOUND")
    return order


def _what_was_bought(
    session: Session,
    settings: Settings,
    order: CheckoutOrder,
    session_id: str,
    status: CheckoutStatus,
) -> dict[str, str | Markup]:
    package = find_package(order.package_id, settings.packages)
    bought: dict[str, str | Markup] = {
        "Package": package.name if package else order.package_id,
        "Credits": f"{order.credits:,}",
    }
    receipt = find_receipt(session, order.user_id, session_id)
    if status is not CheckoutStatus.CREDITED or receipt is None:
        return bought | {"Price": money(order.amount_cents, order.currency)}
    bought |= {
        "Paid": money(receipt.amount_paid_cents, receipt.currency),
        "Balance before": f"{receipt.balance_before:,}",
        "Balance after": f"{receipt.balance_after:,}",
    }
    now = balance(session, order.user_id).balance
    return bought if now == receipt.balance_after else bought | {"Balance now": f"{now:,}"}


def _at_stripe(settings: Settings, link: Markup, session_id: str = "") -> Markup:
    """A link to the offline Stripe, where there is one."""
    if settings.stripe_api_base_url is None:
        return NOTHING
    return link.format(base_url=settings.stripe_api_base_url, session_id=session_id)


def _refused(error: ExceptionWithErrorType) -> HTMLResponse:
    content = NOTHING.join((_ALERT.format(error.message), _BACK))
    return page("This cannot be done", content, status=STATUS_BY_KIND[error.kind])
