"""Sells a package: writes an order, then asks Stripe for its pay page (a Checkout Session).

The order is committed before Stripe is called. Every call to Stripe carries an idempotency key made
from the order. So whoever asks again, after a crash, a time-out or a second click, gets the same
page.
"""

import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from src.common.accounts.operations import keep_stripe_customer, lock_active_user
from src.common.exceptions import Invalid, SettingsError
from src.common.models.checkout_order import CheckoutOrder
from src.common.purchases.orders import Checkout, open_order, place_order
from src.common.purchases.packages import find_package
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway, configured
from src.common.stripe.gateway_errors import CustomerMissing, StripeGatewayError
from src.common.stripe.processing import InDatabase
from src.common.stripe.wire import CheckoutSession

URL_LENGTH_MAX = 2_000


@dataclass(frozen=True)
class ReturnPages:
    """Where a customer goes from the pay page; Stripe fills in `{CHECKOUT_SESSION_ID}`."""

    success_url: str
    cancel_url: str


@dataclass(frozen=True)
class PayPage:
    """Where a customer pays."""

    url: str
    order_id: uuid.UUID
    replayed: bool
    """Whether an earlier request with this key had it made."""


def plan_checkout(
    settings: Settings,
    user_id: uuid.UUID,
    credit_option: str,
    *,
    key: str,
    success_url: str | None = None,
    cancel_url: str | None = None,
    local_pages: ReturnPages | None = None,
) -> Checkout:
    """Check what a customer wants to buy, and put it into one value for `start_checkout`.

    Args:
        settings: They name the packages, the pages to return to, and whose pages may be asked for.
        user_id: Who buys.
        credit_option: The `package_id` of what is bought.
        key: The idempotency key, 1 to 255 characters, unique for this user's orders.
        success_url: Where Stripe sends a customer who has paid; None is the configured page.
        cancel_url: Where it sends one who turns back; None is the configured page.
        local_pages: This server's own pages, for ENV=local where the settings name none.

    Raises:
        Invalid: VALIDATION_ERROR, no such package, or a page that is not on the allow-list.
        SettingsError: no page to return to is configured.
    """
    package = find_package(credit_option, settings.packages)
    if package is None:
        known = ", ".join(each.package_id for each in settings.packages)
        raise _invalid("credit_option", f"must be one of {known}")
    if not 1 <= len(key) <= 255 or "\x00" in key:  # noqa: PLR2004  as everywhere
        raise _invalid("Idempotency-Key", "must be 1 to 255 characters long")
    return Checkout(
        user_id=user_id,
        package=package,
        key=key,
        livemode=bool(settings.stripe_livemode),
        success_url=_page(settings, "success_url", success_url, local_pages),
        cancel_url=_page(settings, "cancel_url", cancel_url, local_pages),
        has_success_page_of_ours=_is_ours(settings, "success_url", success_url),
        has_cancel_page_of_ours=_is_ours(settings, "cancel_url", cancel_url),
        allows_discount=settings.stripe_allow_promotion_codes,
        allows_tax=settings.stripe_automatic_tax,
    )


async def start_checkout(
    in_database: InDatabase, gateway: Gateway | None, settings: Settings, checkout: Checkout
) -> PayPage:
    """The page at Stripe where the customer pays for what `plan_checkout` checked.

    The credits come later: once Stripe says that the payment has arrived.

    Args:
        in_database: Runs work in a database transaction, as `run_in_async_database_transaction`.
        gateway: The way to Stripe; None where no secret key is configured.
        settings: The settings that `plan_checkout` had.
        checkout: What it returned.

    Raises:
        Conflict: IDEMPOTENCY_KEY_REUSED.
        Forbidden: USER_INACTIVE.
        NotFound: USER_NOT_FOUND.
        StripeGatewayError: STRIPE_GATEWAY_ERROR; the order stays, and the same key asks again.
        Unavailable: STRIPE_NOT_CONFIGURED.
    """
    client = configured(gateway)

    def begin(session: Session) -> tuple[CheckoutOrder, str, str | None]:
        user = lock_active_user(session, checkout.user_id)
        return place_order(session, checkout), user.email, user.stripe_customer_id

    order, email, customer_id = await in_database(begin)
    if order.url is not None:
        return PayPage(order.url, order.order_id, replayed=True)

    async def customer(replaces: str | None = None) -> str:
        made = await client.create_customer(
            checkout.user_id, email, settings.env, replaces=replaces
        )
        return await in_database(
            lambda session: keep_stripe_customer(session, checkout.user_id, made, replaces=replaces)
        )

    async def pay_page(customer_id: str) -> CheckoutSession:
        return await client.create_checkout_session(
            order, customer_id=customer_id, name=checkout.package.name, settings=settings
        )

    customer_id = customer_id or await customer()
    try:
        page = await pay_page(customer_id)
    except CustomerMissing:
        page = await pay_page(await customer(replaces=customer_id))
    url = page.url
    if url is None:
        raise StripeGatewayError("Stripe made a Checkout Session without a page")
    kept = await in_database(
        lambda session: open_order(
            session,
            order.order_id,
            stripe_session_id=page.id,
            url=url,
            expires_at=page.expires_at,
        )
    )
    return PayPage(kept, order.order_id, replayed=kept != url)


def check_pages(settings: Settings) -> None:
    """Stop a deployment that sells, and has no pages for its customers to return to.

    Raises:
        SettingsError: naming the one that is missing.
    """
    if settings.stripe_secret_key is not None:
        for field in ("success_url", "cancel_url"):
            _configured_page(settings, field)


def _configured_page(settings: Settings, field: str) -> str | None:
    configured_page: str | None = getattr(settings, f"checkout_{field}")
    if configured_page is None and not settings.is_local:
        raise SettingsError(f"CHECKOUT_{field.upper()}: required where ENV is not local")
    return configured_page


def _page(
    settings: Settings, field: str, asked: str | None, local_pages: ReturnPages | None
) -> str:
    """The page to return to: the configured one, or one asked for whose origin is allowed."""
    own: str | None = getattr(local_pages, field, None)
    usual = _configured_page(settings, field) or own
    if usual is None:
        raise SettingsError(f"CHECKOUT_{field.upper()}: required where we have no page of our own")
    if asked is None:
        return usual
    allowed = {each.strip() for each in settings.checkout_allowed_origins.split(",")}
    allowed |= {_origin(usual)}
    if len(asked) > URL_LENGTH_MAX or _origin(asked) not in allowed - {""}:
        raise _invalid(field, "must be a page of an allowed origin")
    return asked


def _is_ours(settings: Settings, field: str, asked: str | None) -> bool:
    """Whether the page is one of our own: neither asked for nor configured."""
    return asked is None and _configured_page(settings, field) is None


def _origin(url: str) -> str:
    """Scheme, host and port; empty where that cannot be told for certain."""
    if any(character.isspace() or ord(character) < 32 for character in url) or "\\" in url:  # noqa: PLR2004  control characters
        return ""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _invalid(field: str, problem: str) -> Invalid:
    return Invalid(f"{field}: {problem}", "VALIDATION_ERROR", field=field)
