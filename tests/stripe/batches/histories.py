"""Events by chance under a seed, twice over, and what the tables say of each in the end.

Everything of a history has its name in it, so that two of the same seed live in one database and
their rows, without the names, can be compared.
"""

import json
import random
import re
import uuid
from collections.abc import Iterable
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.operations import execute
from src.common.models.checkout_order import CheckoutOrder
from src.common.purchases.packages import PACKAGES, Package
from tests.credits.books import grant, make_user
from tests.stripe.payments import COMPLETED, SUCCEEDED, make_session

PAYMENTS = 14
_BLANK = {"id": "", "object": "event", "api_version": "2026-10-28.endive", "livemode": False}
_TOLD_OF = ("payment_intent.succeeded", "charge.succeeded", "refund.created")


class History:
    """Users, orders and the events about them, as Stripe would send them."""

    def __init__(self, session: Session, name: str, seed: int) -> None:
        self.name = name
        self.chance = random.Random(seed)  # noqa: S311  no secret
        self.users = [make_user(session).user_id for _ in range(4)]
        execute(session, [grant(self.users[3], AMOUNT_MAX - PACKAGES[0].credits)])
        self.unknown = uuid.uuid5(uuid.NAMESPACE_OID, name)
        self.events: list[dict[str, Any]] = []
        for number in range(PAYMENTS):
            self._pay(session, number)
        for number in range(4):
            self._tell(f"product-{number}", {"id": f"prod_{name}_{number}"}, "product.created")
        self.chance.shuffle(self.events)

    @property
    def bodies(self) -> list[bytes]:
        """The events as they are sent."""
        return [json.dumps(event).encode() for event in self.events]

    def _pay(self, session: Session, number: int) -> None:
        user_id = self.chance.choice([*self.users, *self.users, self.unknown])
        package = self.chance.choice(PACKAGES[:2])
        intent = f"pi_{self.name}_{number}"
        paid = make_session(
            user_id, package, id=f"cs_{self.name}_{number}", payment_intent=intent, created=1
        )
        if user_id != self.unknown and self.chance.random() < 0.5:
            paid["metadata"]["order_id"] = str(self._order(session, user_id, package, paid["id"]))
        wrong: list[dict[str, Any]] = [{"amount_total": 1}, {"currency": "eur"}, {"mode": "setup"}]
        if self.chance.random() < 1 / 3:
            paid |= self.chance.choice(wrong)
        if self.chance.random() < 0.2:
            self._tell(f"unpaid-{number}", paid | {"payment_status": "unpaid"}, COMPLETED)
        for each in range(self.chance.choice([1, 1, 2])):
            self._tell(f"paid-{number}-{each}", paid, self.chance.choice([COMPLETED, SUCCEEDED]))
        for kind in self.chance.sample(_TOLD_OF, self.chance.choice([0, 1, 2])):
            self._tell(f"{kind}-{number}", self._object(kind, intent, paid), kind)

    def _order(
        self, session: Session, user_id: uuid.UUID, package: Package, session_id: str
    ) -> uuid.UUID:
        order = CheckoutOrder(
            user_id=user_id,
            idempotency_key=session_id,
            request_digest=bytes(32),
            package_id=package.package_id,
            credits=package.credits,
            amount_cents=package.price_cents,
            currency=package.currency,
            livemode=False,
            success_url="https://shop.test/paid",
            cancel_url="https://shop.test/basket",
            stripe_session_id=self.chance.choice([session_id, None]),
        )
        session.add(order)
        session.flush()
        return order.order_id

    def _object(self, kind: str, intent: str, paid: dict[str, Any]) -> dict[str, Any]:
        amount = {"amount": paid["amount_total"], "currency": paid["currency"]}
        if kind == "refund.created":
            half = {"amount": paid["amount_total"] // 2, "currency": paid["currency"]}
            return {"id": f"re_{intent}", "payment_intent": intent, "status": "succeeded", **half}
        if kind == "charge.succeeded":
            charge = {"id": f"ch_{intent}", "payment_intent": intent, "paid": True, **amount}
            return {**charge, "captured": True, "livemode": False, "metadata": paid["metadata"]}
        received = {"status": "succeeded", "amount_received": amount["amount"], **amount}
        return {"id": intent, "livemode": False, "metadata": paid["metadata"], **received}

    def _tell(self, what: str, stripe_object: dict[str, Any], event_type: str) -> None:
        told = {"id": f"evt_{self.name}_{what}", "type": event_type, "created": 1}
        self.events.append({**_BLANK, **told, "data": {"object": stripe_object}})

    def rows(self, session: Session) -> dict[str, list[str]]:
        """What the tables say of it, without its names and without instants."""
        return {
            table: sorted(self._without_names(str(tuple(row))) for row in self._ask(session, query))
            for table, query in _ROWS.items()
        }

    def _ask(self, session: Session, query: str) -> Iterable[Any]:
        return session.execute(text(query), {"name": f"%\\_{self.name}\\_%", "users": self.users})

    def _without_names(self, row: str) -> str:
        names = {str(each): f"user {number}" for number, each in enumerate(self.users)}
        for long, short in (names | {str(self.unknown): "nobody", f"_{self.name}_": "_"}).items():
            row = row.replace(long, short)
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "an id", row)


_ROWS = {
    "stripe_events": """
        SELECT event_id, type, status, attempts, error, remark, object_id,
          processed_at IS NULL, lease_expires_at IS NULL, api_version, body IS NULL
        FROM stripe_events WHERE event_id LIKE :name""",
    "transactions": """
        SELECT user_id::text, stripe_session_id, payment_intent_id, amount_paid_cents, currency,
          livemode, credits_added, refunded_cents, disputed_cents, predates_ledger, stripe_account
        FROM transactions WHERE stripe_session_id LIKE :name""",
    "checkout_orders": """
        SELECT idempotency_key, stripe_session_id, status FROM checkout_orders
        WHERE idempotency_key LIKE :name""",
    "unmatched_payments": """
        SELECT stripe_object_id, reason, explanation, status, resolution, actor, event_id,
          details::text FROM unmatched_payments WHERE stripe_object_id LIKE :name""",
    "stripe_reversals": """
        SELECT reversal_id, kind, payment_intent_id, transaction_id IS NULL, amount_cents, status
        FROM stripe_reversals WHERE reversal_id LIKE :name""",
    "users": "SELECT user_id::text, credits_balance FROM users WHERE user_id = ANY (:users)",
    "grants": """
        SELECT user_id::text, kind, amount, idempotency_key, actor, reference FROM credit_entries
        WHERE user_id = ANY (:users) AND idempotency_key LIKE '~purchase:%'""",
    "lots": """
        SELECT l.user_id::text, t.stripe_session_id, l.source, l.granted, l.remaining, l.is_open
        FROM credit_lots l LEFT JOIN transactions t USING (transaction_id)
        WHERE l.user_id = ANY (:users)""",
}
