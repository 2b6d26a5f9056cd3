"""The whole loop in one process: our side on the test's database, an offline Stripe for Stripe."""

import asyncio
import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import stripe
from pydantic import SecretStr
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.models.reconciliation import Reconciliation
from src.common.models.transaction import Transaction
from src.common.purchases.refunds import RefundWish
from src.common.settings import get_settings
from src.common.stripe.checkout import PayPage, plan_checkout, start_checkout
from src.common.stripe.gateway import Gateway
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.processing import Processor
from src.common.stripe.reconcile import reconcile
from src.common.stripe.refunds import Refunded, refund_payment
from src.common.stripe.wire import parse_event
from src.offline_stripe import Delivery, InProcessClient, OfflineStripe


@dataclass
class Loop:
    """Customers, Stripe, and us."""

    offline: OfflineStripe
    processor: Processor

    def buy(self, user_id: uuid.UUID, option: str = "500", key: str = "k") -> PayPage:
        """Ask for a pay page, as the endpoint does."""
        processor = self.processor
        checkout = plan_checkout(processor.settings, user_id, option, key=key)
        return asyncio.run(
            start_checkout(in_database, processor.gateway, processor.settings, checkout)
        )

    def session_of(self, page: PayPage) -> str:
        """The Checkout Session behind a pay page."""
        found = self.offline.account.all("checkout.session")
        [name] = [each["id"] for each in found if each["url"] == page.url]
        return str(name)

    def charge_of(self, session_id: str) -> str:
        """The charge that paid a session."""
        payment = self.offline.get(str(self.offline.get(session_id)["payment_intent"]))
        return str(payment["latest_charge"])

    def refund(self, purchase: Transaction, cents: int | None = None, key: str = "r") -> Refunded:
        """Pay back through us."""
        wish = RefundWish(purchase.transaction_id, key, "system:tests", cents)
        processor = self.processor
        return asyncio.run(refund_payment(in_database, processor.gateway, processor.settings, wish))

    @property
    def client(self) -> stripe.StripeClient:
        """Stripe's own library, for what others do at Stripe."""
        return stripe.StripeClient("sk_test_1", http_client=InProcessClient(self.offline))

    def refund_at_stripe(self, session_id: str, cents: int) -> str:
        """Pay back behind our back, in Stripe's dashboard."""
        made = self.client.v1.refunds.create(
            {"charge": self.charge_of(session_id), "amount": cents}
        )
        return str(made.id)

    def webhooks(self) -> list[Delivery]:
        """What Stripe has to send now."""
        return self.offline.webhooks.due()

    def deliver(self, deliveries: Iterable[Delivery]) -> list[EventAnswer]:
        """Receive webhooks, in this order."""

        async def all_of_them() -> list[EventAnswer]:
            return [
                await self.processor.receive(parse_event(each.body), each.body)
                for each in deliveries
            ]

        return asyncio.run(all_of_them())

    def settle_due(self) -> int:
        """Try what waits in the inbox, as the worker does; how many events."""
        return asyncio.run(self._settle_due())

    async def _settle_due(self) -> int:
        at_once = await self.processor.settle_due(needs_lookup=False)
        return at_once + await self.processor.settle_due(needs_lookup=True)

    def reconcile(
        self,
        since: dt.datetime,
        *,
        repairs: bool,
        until: dt.datetime | None = None,
        resumes: bool = False,
    ) -> Reconciliation:
        """Compare with Stripe."""
        return asyncio.run(
            reconcile(self.processor, since=since, until=until, repairs=repairs, resumes=resumes)
        )


def start_loop(
    seed: str = "loop", clock: Callable[[], float] = time.time, key: str = "sk_test_1"
) -> Loop:
    """A loop with nothing in it; `key` is ours at Stripe."""
    offline = OfflineStripe(seed=seed, clock=clock)
    offline.add_endpoint("http://test/webhook", secret="whsec_test")
    client = stripe.StripeClient(key, http_client=InProcessClient(offline))
    changes = {
        "stripe_secret_key": SecretStr(key),
        "stripe_payment_method_types": "card,sepa_debit",
        "checkout_success_url": "https://shop.test/paid?session_id={CHECKOUT_SESSION_ID}",
        "checkout_cancel_url": "https://shop.test/basket",
    }
    settings = get_settings().model_copy(update=changes)
    return Loop(offline, Processor(in_database, Gateway(client, 5), settings))


def only_purchase(session: Session) -> Transaction:
    """The one purchase there is, as it is now."""
    session.expire_all()
    return session.query(Transaction).one()
