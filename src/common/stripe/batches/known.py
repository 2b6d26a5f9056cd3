"""What the tables say of a batch of events: locked first, then read by one statement.

No lock is waited for: whose payment, user or event somebody else has goes by itself. The locks are
taken by a statement of their own, so that what is read after it is as they found it.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import ARRAY, Boolean, String, Text, Uuid, bindparam, null, select, text, union_all

from src.common.credits.domain.book import StoredBook
from src.common.credits.engine.batches import compile_for_driver
from src.common.credits.persistence.reading import Locking, books_statement
from src.common.credits.persistence.storage import read_parameters, read_rows
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.transaction import Transaction
from src.common.models.unmatched_payment import SYSTEM_ACTOR
from src.common.purchases.operations import grant_key
from src.common.stripe.batches.readings import Reading

if TYPE_CHECKING:
    import asyncpg

EventKey = tuple[bool, str]
"""An event's mode and id."""

_LOCK = """
SELECT
  ARRAY(SELECT name FROM unnest($1::text[]) AS wanted (name)
    WHERE pg_try_advisory_xact_lock(hashtextextended('payment:' || name, 0))),
  ARRAY(SELECT user_id FROM users WHERE user_id = ANY ($2::uuid[])
    ORDER BY user_id FOR NO KEY UPDATE SKIP LOCKED),
  ARRAY(SELECT (e.livemode, e.event_id) FROM stripe_events e
    JOIN unnest($3::boolean[], $4::text[]) AS wanted (livemode, event_id) USING (livemode, event_id)
    ORDER BY e.livemode, e.event_id FOR NO KEY UPDATE OF e SKIP LOCKED)
"""
_AROUND = """
SELECT json_build_array(
  (SELECT json_agg(json_build_array(e.livemode, e.event_id,
      e.status = 'processed' OR e.body IS NULL))
    FROM unnest(:event_livemodes, :event_ids) AS w (livemode, event_id)
    JOIN stripe_events e ON e.livemode = w.livemode AND e.event_id = w.event_id),
  (SELECT json_agg(json_build_array(o.order_id, o.user_id, o.package_id, o.credits,
      o.amount_cents, o.currency, o.livemode, o.allows_discount, o.allows_tax,
      o.stripe_session_id))
    FROM (SELECT * FROM checkout_orders WHERE order_id = ANY (:order_ids)
      UNION SELECT * FROM checkout_orders WHERE stripe_session_id = ANY (:session_ids)) AS o),
  (SELECT json_agg(json_build_array(t.transaction_id, t.user_id, t.stripe_session_id,
      t.payment_intent_id, t.stripe_account, t.amount_paid_cents, t.currency, t.livemode,
      t.credits_added,
      t.predates_ledger OR EXISTS (SELECT FROM credit_lots l
        WHERE l.user_id = t.user_id AND l.transaction_id = t.transaction_id)))
    FROM (SELECT * FROM transactions WHERE stripe_session_id = ANY (:names)
      UNION SELECT * FROM transactions WHERE payment_intent_id = ANY (:payment_intent_ids)
      UNION SELECT * FROM transactions WHERE payment_intent_id = ANY (:known_ids)) AS t),
  (SELECT json_agg(n.name) FROM (
      SELECT u.stripe_object_id AS name FROM unnest(ARRAY[false, true]) AS m (livemode)
        JOIN unmatched_payments u ON u.livemode = m.livemode AND u.stripe_object_id = ANY (:names)
        WHERE u.status = 'open' OR u.actor <> :closed_by_itself
      UNION ALL SELECT u.details ->> 'payment_intent_id' FROM unmatched_payments u
        WHERE u.details ->> 'payment_intent_id' = ANY (:payment_intent_ids)
        AND (u.status = 'open' OR u.actor <> :closed_by_itself)
      UNION ALL SELECT r.payment_intent_id FROM stripe_reversals r
        WHERE r.payment_intent_id = ANY (:payment_intent_ids) AND r.transaction_id IS NULL
      {elsewhere}) AS n),
  (SELECT json_agg(DISTINCT t.user_id) FROM transactions t
    JOIN stripe_reversals r ON r.transaction_id = t.transaction_id
    WHERE t.user_id = ANY (:user_ids))
)::text AS around
"""


_ELSEWHERE = """
      UNION ALL SELECT r.payment_intent_id FROM public.stripe_reversals r
        WHERE r.payment_intent_id = ANY (:payment_intent_ids)
      UNION ALL SELECT p.object_id FROM public.payments_directory p
        WHERE p.object_id = ANY (:names)
        AND NOT EXISTS (SELECT FROM users WHERE users.user_id = p.user_id)
"""
"""Of one group of users: money back that waits for a payment of nobody's, and payments of users of
other groups."""


class _Event(NamedTuple):
    livemode: bool
    event_id: str
    is_settled: bool


class _Order(NamedTuple):
    order_id: uuid.UUID
    user_id: uuid.UUID
    package_id: str
    credits: int
    amount_cents: int
    currency: str
    livemode: bool
    allows_discount: bool
    allows_tax: bool
    stripe_session_id: str | None


class _Purchase(NamedTuple):
    transaction_id: uuid.UUID
    user_id: uuid.UUID
    stripe_session_id: str
    payment_intent_id: str | None
    stripe_account: str | None
    amount_paid_cents: int
    currency: str
    livemode: bool | None
    credits_added: int
    is_credited: bool


class _Around(NamedTuple):
    events: list[_Event] | None
    orders: list[_Order] | None
    purchases: list[_Purchase] | None
    troubled: list[str] | None
    reversed_users: list[uuid.UUID] | None


_read_around = msgspec.json.Decoder(_Around).decode


class Locked(NamedTuple):
    """What could be locked at once, and will be until the database transaction ends."""

    names: Collection[str]
    user_ids: Collection[uuid.UUID]
    events: Collection[EventKey]


class Known(NamedTuple):
    """What the tables say of a batch's events."""

    books: Mapping[uuid.UUID, StoredBook]
    """Of the users whose rows are locked."""
    events: Mapping[EventKey, bool]
    """Those that are stored: whether they are settled for good."""
    orders: Mapping[uuid.UUID | str, CheckoutOrder]
    """By their number, and by their session."""
    purchases: Mapping[str, list[tuple[Transaction, bool]]]
    """By each name that Stripe has for their payment: the rows, and whether they are credited."""
    troubled: Collection[str]
    """Payments that wait for somebody, or that somebody resolved, or of which money went back."""
    reversed_users: Collection[uuid.UUID]
    """Of whose payments money went back."""


async def lock(
    connection: "asyncpg.Connection", readings: Sequence[Reading], events: Sequence[EventKey]
) -> Locked:
    """Lock the payments and users of these events, and the rows of `events`, where nobody has."""
    names = sorted({each.name for each in readings if each.payment is not None})
    rows = await connection.fetch(_LOCK, names, _users_of(readings), *_columns(events))
    [(taken, user_ids, stored)] = rows
    return Locked(frozenset(taken), frozenset(user_ids), {tuple(each) for each in stored})


async def look_up(
    connection: "asyncpg.Connection", readings: Sequence[Reading], *, is_of_group: bool
) -> Known:
    """Read all that settling these events needs.

    With `is_of_group` there are other groups of users, of whom nobody is seen: what is about them
    is troubled.
    """
    payments = [each.payment for each in readings if each.payment is not None]
    sessions = [each.stripe_session_id for each in payments]
    intents = [each.payment_intent_id for each in payments if each.payment_intent_id is not None]
    livemodes, event_ids = _columns([(each.event.livemode, each.event.id) for each in readings])
    keys = [
        (each.user_id, grant_key(each.stripe_session_id))
        for each in payments
        if each.user_id is not None
    ]
    parameters = read_parameters(_users_of(readings), keys=keys) | {
        "event_livemodes": livemodes,
        "event_ids": event_ids,
        "order_ids": [each.order_id for each in payments if each.order_id is not None],
        "session_ids": sessions,
        "names": [*sessions, *intents],
        "payment_intent_ids": intents,
        "known_ids": [
            each.known_payment_intent_id
            for each in readings
            if each.known_payment_intent_id is not None
        ],
        "closed_by_itself": SYSTEM_ACTOR,
    }
    sql, order = _read_sql(is_of_group=is_of_group)
    rows = await connection.fetch(sql, *(parameters[name] for name in order))
    [around] = [text for user_id, *_, text in rows if user_id is None]
    books, _ = read_rows(row[:-1] for row in rows if row[0] is not None)
    return _known(books, _read_around(around))


def _known(books: Mapping[uuid.UUID, StoredBook], around: _Around) -> Known:
    orders: dict[uuid.UUID | str, CheckoutOrder] = {}
    for found in around.orders or ():
        order = CheckoutOrder(**found._asdict())
        orders[found.order_id] = order
        if found.stripe_session_id is not None:
            orders[found.stripe_session_id] = order
    purchases: dict[str, list[tuple[Transaction, bool]]] = {}
    for *columns, is_credited in around.purchases or ():
        row = Transaction(**dict(zip(_Purchase._fields, columns, strict=False)))
        for name in {row.stripe_session_id, row.payment_intent_id}:
            if name is not None:
                purchases.setdefault(name, []).append((row, is_credited))
    return Known(
        books,
        {(each.livemode, each.event_id): each.is_settled for each in around.events or ()},
        orders,
        purchases,
        frozenset(around.troubled or ()),
        frozenset(around.reversed_users or ()),
    )


def _users_of(readings: Iterable[Reading]) -> list[uuid.UUID]:
    return sorted({each.user_id for each in readings if each.user_id is not None})


def _columns(events: Sequence[EventKey]) -> tuple[list[bool], list[str]]:
    return [livemode for livemode, _ in events], [event_id for _, event_id in events]


@cache
def _read_sql(*, is_of_group: bool) -> tuple[str, tuple[str, ...]]:
    """The users' books, a row each, and all else in a row of its own."""
    around = (
        text(_AROUND.format(elsewhere=_ELSEWHERE if is_of_group else ""))
        .bindparams(
            bindparam("event_livemodes", type_=ARRAY(Boolean)),
            *(bindparam(name, type_=ARRAY(String)) for name in _TEXTS),
            bindparam("closed_by_itself", type_=String),
            *(
                bindparam(name, type_=ARRAY(Uuid(as_uuid=True)))
                for name in ("order_ids", "user_ids")
            ),
        )
        .columns(around=Text)
        .subquery("around")
    )
    books = books_statement(Locking.NONE).subquery("books")
    nothing = [null() for _ in books.c]
    return compile_for_driver(
        union_all(select(*books.c, null().cast(Text)), select(*nothing, around.c.around))
    )


_TEXTS = ("event_ids", "session_ids", "names", "payment_intent_ids", "known_ids")
