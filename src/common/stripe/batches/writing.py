"""The one statement that writes a batch: inbox rows, purchases, orders, and the users' books."""

import json
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Table,
    Update,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.selectable import CTE, TableValuedAlias

from src.common.credits.engine.batches import compile_for_driver
from src.common.credits.persistence.changed_rows import rows_of
from src.common.credits.persistence.writing import (
    SHAPES_MAX,
    Shape,
    shape_and_arrays,
    transported,
    write_statement,
)
from src.common.models.base import Base
from src.common.models.checkout_order import CheckoutOrder, OrderStatus
from src.common.models.directory import DirectoryPayment
from src.common.models.stripe_event import StripeEvent
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import UnmatchedPayment
from src.common.purchases.rules import Mismatch
from src.common.purchases.unmatched import details_of
from src.common.stripe.batches.decisions import Decided, Purchase
from src.common.stripe.batches.readings import Reading
from src.common.stripe.inbox import STATUS_BY_ANSWER, remark_on

_NEW_EVENTS = (
    *("livemode", "event_id", "type", "api_version", "object_id", "body", "status"),
    *("remark", "stripe_created_at"),
)
_STORED_EVENTS = ("livemode", "event_id", "status")
_PURCHASES = (
    *("transaction_id", "user_id", "stripe_session_id", "payment_intent_id", "stripe_account"),
    *("amount_paid_cents", "currency", "livemode", "credits_added"),
)
_UNMATCHED = ("livemode", "stripe_object_id", "event_id", "reason", "explanation", "details")
_ORDERS = ("order_id", "stripe_session_id")
_DIRECTORY = ("object_id", "user_id")
_ONE: ColumnElement[int] = literal_column("1")


class _Parts(NamedTuple):
    """What there is to write."""

    books: Shape | None
    new_events: bool
    stored_events: bool
    purchases: bool
    unmatched: bool
    orders: bool
    is_of_group: bool


def worded(
    readings: Sequence[Reading], decided: Decided, *, are_stored: bool, is_of_group: bool
) -> tuple[str, list[Any]] | None:
    """The statement and its arguments; None where there is nothing to write.

    With `is_of_group` the directory of all groups of users is told whose the payments are.
    """
    written = [
        (reading, STATUS_BY_ANSWER[answer])
        for place, reading in enumerate(readings)
        if place not in decided.copies and (answer := decided.answers.get(place)) is not None
    ]
    if not written:
        return None
    shape, arrays = shape_and_arrays(rows_of(decided.books)) if decided.books else (None, {})
    if are_stored:
        rows = [(each.event.livemode, each.event.id, status) for each, status in written]
        arrays |= _arrays("stored_events", _STORED_EVENTS, rows)
    else:
        arrays |= _arrays("new_events", _NEW_EVENTS, [_new_event(*each) for each in written])
    if decided.purchases:
        bought = [_purchase(each) for each in decided.purchases.values()]
        arrays |= _arrays("purchases", _PURCHASES, bought)
        if is_of_group:
            arrays |= _arrays("directory", _DIRECTORY, _named(decided.purchases.values()))
    if decided.unmatched:
        rows = [_unmatched(readings[place], why) for place, why in decided.unmatched.items()]
        arrays |= _arrays("unmatched", _UNMATCHED, rows)
    if decided.paid:
        paid = [(order, _session_of(readings[by])) for order, by in decided.paid.items()]
        arrays |= _arrays("orders", _ORDERS, paid)
    parts = _Parts(
        shape,
        not are_stored,
        are_stored,
        bool(decided.purchases),
        bool(decided.unmatched),
        bool(decided.paid),
        is_of_group,
    )
    sql, names = _sql(parts)
    return sql, [arrays[name] for name in names]


def _new_event(reading: Reading, status: str) -> tuple[Any, ...]:
    event = reading.event
    return (
        *(event.livemode, event.id, event.type, event.api_version, event.object_id),
        *(reading.body, status, remark_on(event), event.created),
    )


def _purchase(purchase: Purchase) -> tuple[Any, ...]:
    payment, offer = purchase.payment, purchase.offer
    return (
        *(purchase.transaction_id, offer.user_id, payment.stripe_session_id),
        *(payment.payment_intent_id, payment.stripe_account, payment.amount_total_cents),
        *(offer.currency, payment.livemode, offer.credits),
    )


def _named(purchases: Iterable[Purchase]) -> list[tuple[str, uuid.UUID]]:
    """Each payment by its names, in their order: two who note the same never deadlock."""
    return sorted(
        (name, each.offer.user_id)
        for each in purchases
        for name in (each.payment.stripe_session_id, each.payment.payment_intent_id)
        if name is not None
    )


def _unmatched(reading: Reading, why: Mismatch) -> tuple[Any, ...]:
    payment = reading.payment
    assert payment is not None  # noqa: S101  what is unmatched is a payment
    return (
        *(payment.livemode, payment.stripe_session_id, reading.event.id),
        *(str(why.reason), why.explanation, json.dumps(details_of(payment))),
    )


def _session_of(reading: Reading) -> str | None:
    return None if reading.payment is None else reading.payment.stripe_session_id


def _arrays(part: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    columns = zip(*rows, strict=True)
    return {f"{part}_{name}": list(values) for name, values in zip(names, columns, strict=True)}


@lru_cache(SHAPES_MAX)
def _sql(parts: _Parts) -> tuple[str, tuple[str, ...]]:
    steps: list[CTE] = []
    if parts.new_events:
        steps.append(_new_events())
    if parts.stored_events:
        steps.append(_settled_events().cte("settled_events"))
    if parts.purchases:
        rows = _given("purchases", Transaction, _PURCHASES)
        written = insert(Transaction).from_select(
            _PURCHASES, select(*rows.c), include_defaults=False
        )
        steps.append(written.cte("written_purchases"))
        if parts.is_of_group:
            steps.append(_noted_payments())
    if parts.unmatched:
        steps.append(_unmatched_payments())
    if parts.orders:
        steps.append(_paid_orders().cte("paid_orders"))
    if parts.books is None:
        return compile_for_driver(select(_ONE).add_cte(*steps))
    return compile_for_driver(write_statement(parts.books).add_cte(*steps))


def _new_events() -> CTE:
    """Stored and settled at once; a copy that somebody stores this moment is left to them."""
    rows = _given("new_events", StripeEvent, _NEW_EVENTS)
    values: dict[str, ColumnElement[Any]] = {
        **rows.c,
        "attempts": _ONE,
        "processed_at": func.clock_timestamp(),
    }
    made = upsert(StripeEvent).from_select(
        list(values), select(*values.values()), include_defaults=False
    )
    return made.on_conflict_do_nothing().cte("stored_events")


def _noted_payments() -> CTE:
    """Those that are noted stay: where they are another's, the purchase is refused at COMMIT."""
    rows = _given("directory", DirectoryPayment, _DIRECTORY)
    told = select(*rows.c).where(true())
    made = upsert(DirectoryPayment).from_select(_DIRECTORY, told, include_defaults=False)
    return made.on_conflict_do_nothing().cte("noted_payments")


def _unmatched_payments() -> CTE:
    """Written or renewed; one that was closed by itself stays as it is."""
    rows = _given("unmatched", UnmatchedPayment, _UNMATCHED)
    values: dict[str, ColumnElement[Any]] = {
        **rows.c,
        "details": sql_cast(rows.c.details, JSONB),
    }
    # A condition also parts SELECT's FROM from ON CONFLICT, as PostgreSQL's grammar wants.
    told = select(*values.values()).where(true())
    made = upsert(UnmatchedPayment).from_select(list(values), told, include_defaults=False)
    return made.on_conflict_do_update(
        index_elements=[UnmatchedPayment.livemode, UnmatchedPayment.stripe_object_id],
        set_={name: made.excluded[name] for name in _UNMATCHED[2:]},
        where=UnmatchedPayment.status == literal_column("'open'"),
    ).cte("noted_unmatched")


def _settled_events() -> Update:
    rows = _given("stored_events", StripeEvent, _STORED_EVENTS)
    return (
        update(StripeEvent)
        .where(
            StripeEvent.livemode == rows.c.livemode,
            StripeEvent.event_id == rows.c.event_id,
        )
        .values(
            status=rows.c.status,
            error=null(),
            processed_at=func.clock_timestamp(),
            next_attempt_at=null(),
            lease_expires_at=null(),
        )
    )


def _paid_orders() -> Update:
    rows = _given("orders", CheckoutOrder, _ORDERS)
    paid: ColumnElement[str] = literal_column(f"'{OrderStatus.PAID}'")
    return (
        update(CheckoutOrder)
        .where(
            CheckoutOrder.order_id == rows.c.order_id,
            CheckoutOrder.status != paid,  # which is final
        )
        .values(
            status=paid,
            stripe_session_id=func.coalesce(
                CheckoutOrder.stripe_session_id, rows.c.stripe_session_id
            ),
        )
    )


def _given(part: str, model: type[Base], names: Sequence[str]) -> TableValuedAlias:
    """The rows of a part, from the arrays of these columns."""
    table = cast("Table", model.__table__)
    types = {name: transported(table.c[name].type) for name in names}
    columns = [column(name, type_) for name, type_ in types.items()]
    arrays: list[ColumnElement[Any]] = [
        bindparam(f"{part}_{name}", type_=ARRAY(type_)) for name, type_ in types.items()
    ]
    return func.unnest(*arrays).table_valued(*columns, name=f"given_{part}").render_derived()
