"""Refunds that take a second person's consent: asked for, and gone on with once there is consent.

The consent and the refund's request are one database transaction. Stripe is asked after it, with
the request's own key: by whoever consented, and where they were cut off by the worker, for as long
as Stripe does not answer.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.orm import Session

from src.common.approvals import operations, queries
from src.common.approvals.asking import Asked
from src.common.approvals.forms import RefundForm
from src.common.approvals.queries import ApprovalState
from src.common.approvals.rules import Limits
from src.common.models.approval import Approval
from src.common.models.refund_request import RefundRequest
from src.common.purchases.refunds import RefundWish, open_requests
from src.common.settings import Settings
from src.common.stripe.gateway import Gateway, configured
from src.common.stripe.processing import InDatabase
from src.common.stripe.refunds import Refunded, refund_payment, resume_refund

CUT_OFF_AFTER = dt.timedelta(minutes=1)
"""Whoever consented asks Stripe at once; after this time the worker does."""


async def refund_or_ask(
    in_database: InDatabase,
    gateway: Gateway | None,
    settings: Settings,
    wish: RefundWish,
    limits: Limits | None,
) -> Refunded | Asked:
    """As `refund_payment`, or ask for another person's consent where that takes it.

    With `limits` None nothing takes it; a request of before is found all the same.

    Raises:
        ExceptionWithErrorType: as `refund_payment` and `request_or_ask`. Invalid:
            VALIDATION_ERROR, there is no reason.
    """
    configured(gateway)
    found = await in_database(lambda session: operations.request_or_ask(session, wish, limits))
    if isinstance(found, Asked):
        return found
    return await refund_payment(in_database, gateway, settings, found)


async def consent(
    in_database: InDatabase,
    gateway: Gateway | None,
    settings: Settings,
    approval_id: uuid.UUID,
    *,
    decider: str,
    note: str | None = None,
    and_note: Callable[[Session, Approval], object] | None = None,
) -> ApprovalState:
    """Consent to what another person asked for, whatever it is, and do all of it.

    `and_note` is called in the database transaction of the consent, after it.

    Raises:
        ExceptionWithErrorType: as `operations.consent`.
        StripeGatewayError: STRIPE_GATEWAY_ERROR. The consent stands: the worker goes on, and so
            does whoever consents again.
        Conflict: REFUND_REFUSED, Stripe says no; the consent stands, and nothing comes of it.
        Invalid: REFUND_EXCEEDS_PAYMENT, likewise.
        Unavailable: STRIPE_NOT_CONFIGURED; nothing was decided.
    """
    find = partial(queries.find_approval, approval_id=approval_id)
    if isinstance((await in_database(find)).form, RefundForm):
        configured(gateway)

    def decide(session: Session) -> None:
        approval = operations.consent(session, approval_id, decider=decider, note=note)
        if and_note is not None:
            and_note(session, approval)

    await in_database(decide)
    found = await in_database(find)
    if found.refund is None or found.refund.status != "requested":
        return found
    await resume_refund(in_database, gateway, settings, found.refund)
    return await in_database(find)


def cut_off_refunds(session: Session, *, livemode: bool, limit: int) -> Sequence[RefundRequest]:
    """Refunds that were consented to a while ago, and that Stripe has not answered."""
    return open_requests(
        session, livemode=livemode, older_than=CUT_OFF_AFTER, approved=True, limit=limit
    )
