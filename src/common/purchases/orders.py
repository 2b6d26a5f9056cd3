"""Writes orders, and finds them again by what Stripe knows of them; never commits."""

import uuid
from dataclasses import dataclass, replace

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.credits.domain.digest import digest_of
from src.common.credits.domain.errors import key_reused
from src.common.models.checkout_order import CheckoutOrder, OrderStatus
from src.common.postgres.routes import is_sharded
from src.common.purchases.packages import Package
from src.common.purchases.rules import Payment
from src.common.purchases.whose import sees_users
from src.common.sharding.directory import note_payment

_PROGRESS = list(OrderStatus)


@dataclass(frozen=True)
class Checkout:
    """What a user asks for: a package, and where to go afterwards."""

    user_id: uuid.UUID
    package: Package
    key: str
    """The caller's idempotency key, unique per user."""
    livemode: bool
    success_url: str
    cancel_url: str
    has_success_page_of_ours: bool = False
    """A local one, whose address is that at which the API was asked."""
    has_cancel_page_of_ours: bool = False
    allows_discount: bool = False
    allows_tax: bool = False

    @property
    def digest(self) -> bytes:
        """What decides whether the same key came with the same request.

        By which name this machine was asked is no part of it.
        """
        return digest_of(
            f"user:{self.user_id}",
            "checkout",
            self.package.package_id,
            "" if self.has_success_page_of_ours else self.success_url,
            "" if self.has_cancel_page_of_ours else self.cancel_url,
        )


def place_order(session: Session, checkout: Checkout) -> CheckoutOrder:
    """The order of this key, written now or before, with the price and terms of that moment.

    Raises:
        Conflict: IDEMPOTENCY_KEY_REUSED, the key belongs to another request.
    """
    package = checkout.package
    session.execute(
        insert(CheckoutOrder)
        .values(
            user_id=checkout.user_id,
            idempotency_key=checkout.key,
            request_digest=checkout.digest,
            package_id=package.package_id,
            credits=package.credits,
            amount_cents=package.price_cents,
            currency=package.currency,
            livemode=checkout.livemode,
            allows_discount=checkout.allows_discount,
            allows_tax=checkout.allows_tax,
            success_url=checkout.success_url,
            cancel_url=checkout.cancel_url,
        )
        .on_conflict_do_nothing(
            index_elements=[CheckoutOrder.user_id, CheckoutOrder.idempotency_key]
        )
    )
    order = session.scalars(
        select(CheckoutOrder).where(
            CheckoutOrder.user_id == checkout.user_id,
            CheckoutOrder.idempotency_key == checkout.key,
        )
    ).one()
    if order.request_digest != checkout.digest:
        raise key_reused()
    return order


def open_order(
    session: Session, order_id: uuid.UUID, *, stripe_session_id: str, url: str, expires_at: object
) -> str:
    """Note the pay page Stripe made for an order; the order's one page, which may be an earlier."""
    session.execute(
        update(CheckoutOrder)
        .where(CheckoutOrder.order_id == order_id, CheckoutOrder.url.is_(None))
        .values(stripe_session_id=stripe_session_id, url=url, expires_at=expires_at)
    )
    _note_whose_session(session, order_id)
    session.execute(
        update(CheckoutOrder)
        .where(CheckoutOrder.order_id == order_id, CheckoutOrder.status == OrderStatus.CREATED)
        .values(status=str(OrderStatus.OPEN))
    )
    kept = select(CheckoutOrder.url).where(CheckoutOrder.order_id == order_id)
    return session.scalars(kept).one() or url


def find_order(session: Session, payment: Payment) -> CheckoutOrder | None:
    """The order a payment is for: by the number in its metadata first, then by its session.

    Not by `client_reference_id`, which on a Payment Link is the customer's to choose.
    """
    named = payment.order_id if sees_users(session) else None
    found = session.get(CheckoutOrder, named) if named else None
    if found is not None:
        return found
    return find_order_of_session(session, payment.stripe_session_id)


def named_by_order(payment: Payment, order: CheckoutOrder | None) -> Payment:
    """The payment by its order's session, where only its PaymentIntent was told of.

    That is where Stripe does not say which session it paid: of another account, or deleted.
    """
    is_told_alone = payment.stripe_session_id == payment.payment_intent_id
    if order is None or order.stripe_session_id is None or not is_told_alone:
        return payment
    return replace(payment, stripe_session_id=order.stripe_session_id)


def find_order_of_session(session: Session, stripe_session_id: str) -> CheckoutOrder | None:
    """The order that knows this Checkout Session as its own."""
    if not sees_users(session):
        return None
    return session.scalars(
        select(CheckoutOrder).where(CheckoutOrder.stripe_session_id == stripe_session_id)
    ).one_or_none()


def note_status(
    session: Session,
    order: CheckoutOrder,
    status: OrderStatus,
    stripe_session_id: str | None = None,
) -> bool:
    """Move an order on, never back; learn its session where Stripe's answer was lost.

    Returns:
        Whether it moved.
    """
    earlier = _statuses_before(status)
    moved = session.execute(
        update(CheckoutOrder)
        .where(CheckoutOrder.order_id == order.order_id, CheckoutOrder.status.in_(earlier))
        .values(
            status=str(status),
            stripe_session_id=func.coalesce(CheckoutOrder.stripe_session_id, stripe_session_id),
        )
        .returning(CheckoutOrder.order_id)
    )
    has_moved = moved.one_or_none() is not None
    if has_moved and stripe_session_id is not None:
        _note_whose_session(session, order.order_id)
    return has_moved


def _note_whose_session(session: Session, order_id: uuid.UUID) -> None:
    """Tell the directory, where groups of users have schemas: an UPDATE tells no listener."""
    if not is_sharded(session.connection()):
        return
    of_order = select(CheckoutOrder.user_id, CheckoutOrder.stripe_session_id).where(
        CheckoutOrder.order_id == order_id
    )
    for user_id, stripe_session_id in session.execute(of_order):
        note_payment(session.connection(), user_id, stripe_session_id)


def is_as_far(order: CheckoutOrder, status: OrderStatus) -> bool:
    """Whether an order has come as far as this: then `note_status` moves it no more."""
    return order.status not in _statuses_before(status)


def _statuses_before(status: OrderStatus) -> list[str]:
    return [str(each) for each in _PROGRESS[: _PROGRESS.index(status)]]
