"""Calls Stripe: plain values in, our own readings of its objects out.

Every call has a time-out and, where it makes something, a deterministic idempotency key, so that
asking again after a crash makes nothing twice. Never called while a database transaction is open:
nobody waits for a lock because Stripe is slow.
"""

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar, cast

import httpx
import stripe
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from src.common.exceptions import Unavailable
from src.common.models.checkout_order import CheckoutOrder
from src.common.settings import Settings
from src.common.stripe.checkout_request import idempotency_key, session_parameters
from src.common.stripe.gateway_errors import (
    CustomerMissing,
    StripeGatewayError,
    gateway_error,
)
from src.common.stripe.http_client import HttpClient, text_kept
from src.common.stripe.listed import Listed, M, Window, objects_of, read_object
from src.common.stripe.metrics import measured_call
from src.common.stripe.wire import (
    Charge,
    CheckoutSession,
    Event,
    Invoice,
    PaymentIntent,
    WebhookEndpoint,
)
from src.common.stripe.wire_money_back import CreditNote, Dispute, Refund

PAGE_SIZE = 100
NETWORK_RETRIES = 2
WITH_PAYMENT = {"expand": ["payment_intent"]}
"""A session with what arrived of its payment, which it does not tell itself."""

T = TypeVar("T")


class Gateway:
    """A client of Stripe's API. Made by `open_gateway`; belongs to one event loop."""

    def __init__(self, client: stripe.StripeClient, timeout_seconds: float) -> None:
        self._client = client
        self._stripe = client.v1
        self._timeout_seconds = timeout_seconds
        self._account: str | None = None

    def for_account(self, account: str | None) -> Self:
        """The same gateway, which asks in the name of a connected account, or, None, in our own."""
        if account == self._account:
            return self
        same = copy(self)
        same._account = account  # noqa: SLF001  of its own class
        return same

    async def create_customer(
        self, user_id: uuid.UUID, email: str, env: str, *, replaces: str | None = None
    ) -> str:
        """The user's customer at Stripe; two requests at once make one.

        `replaces` is one that Stripe no longer has: the key that made it would only name it again.
        """
        digest = hashlib.sha256(f"{email}{replaces or ''}".encode()).hexdigest()[:16]
        customer = await self._call(
            self._stripe.customers.create_async,
            {"email": email, "metadata": {"user_id": str(user_id), "env": env}},
            idempotency_key=f"flashslides-customer-{env}-{user_id}-{digest}",
        )
        return str(customer["id"])

    async def touch_customer(self, customer_id: str) -> None:
        """Change nothing of a customer."""
        await self._call(self._stripe.customers.update_async, customer_id, {})

    async def create_checkout_session(
        self, order: CheckoutOrder, *, customer_id: str, name: str, settings: Settings
    ) -> CheckoutSession:
        """The pay page of an order; asked for twice in the same way it is the same page.

        Raises:
            CustomerMissing: Stripe has no such customer: deleted, or of another account.
            StripeGatewayError: anything else.
        """
        parameters = session_parameters(
            order, customer_id=customer_id, name=name, settings=settings
        )
        key = idempotency_key(order, parameters)
        create = self._stripe.checkout.sessions.create_async
        try:
            return read_object(
                CheckoutSession, await self._call(create, parameters, idempotency_key=key)
            )
        except StripeGatewayError as error:
            if (error.code, error.parameter) == ("resource_missing", "customer"):
                raise CustomerMissing(error.message, error.code, error.parameter) from None
            raise

    async def create_refund(
        self, payment_intent_id: str, amount_cents: int, *, key: str, reason: str | None
    ) -> Refund:
        """Pay money back; asked for twice with one key it is one refund.

        Stripe forgets the key after a day; the refund's metadata keeps it (`Refund.request`).

        Raises:
            StripeGatewayError: with `code` where Stripe refuses.
        """
        parameters: dict[str, Any] = {
            "payment_intent": payment_intent_id,
            "amount": amount_cents,
            "metadata": {"request": key, **({"reason": reason} if reason else {})},
        }
        key = f"flashslides-refund-{key}"
        return read_object(
            Refund,
            await self._call(self._stripe.refunds.create_async, parameters, idempotency_key=key),
        )

    async def session_of_payment(self, payment_intent_id: str) -> CheckoutSession | None:
        """The Checkout Session that a PaymentIntent paid for, if there is one."""
        found = await self._page_of(
            self._stripe.checkout.sessions.list_async, {"payment_intent": payment_intent_id}
        )
        return read_object(CheckoutSession, found[0]) if found else None

    async def invoice_of_payment(self, payment_intent_id: str) -> str | None:
        """The invoice that a PaymentIntent paid for, if there is one."""
        payment = {"type": "payment_intent", "payment_intent": payment_intent_id}
        found = await self._page_of(self._stripe.invoice_payments.list_async, {"payment": payment})
        return str(found[0]["invoice"]) if found else None

    async def payments_of_invoice(self, invoice_id: str) -> list[str] | None:
        """The PaymentIntents that paid an invoice; None where Stripe has no such invoice."""
        found = await self._page_of(
            self._stripe.invoice_payments.list_async, {"invoice": invoice_id, "status": "paid"}
        )
        if found is None:
            return None
        payments = [cast("dict[str, Any]", each["payment"]) for each in found]
        return [str(each["payment_intent"]) for each in payments if each.get("payment_intent")]

    async def refunds_of(self, **named: str) -> list[Refund] | None:
        """All refunds, at most a hundred, of what is named: `charge=…` or `payment_intent=…`.

        None where Stripe has nothing of this id.
        """
        found = await self._page_of(self._stripe.refunds.list_async, named)
        return None if found is None else [read_object(Refund, each) for each in found]

    async def retrieve_session(self, session_id: str) -> CheckoutSession | None:
        """A Checkout Session, or None where Stripe has none of this id."""
        retrieve = self._stripe.checkout.sessions.retrieve_async
        return await self._retrieve(CheckoutSession, retrieve, session_id, WITH_PAYMENT)

    async def retrieve_payment(self, payment_intent_id: str) -> PaymentIntent | None:
        """A PaymentIntent, or None where Stripe has none of this id."""
        return await self._retrieve(
            PaymentIntent, self._stripe.payment_intents.retrieve_async, payment_intent_id
        )

    async def retrieve_charge(self, charge_id: str) -> Charge | None:
        """A charge, or None where Stripe has none of this id."""
        return await self._retrieve(Charge, self._stripe.charges.retrieve_async, charge_id)

    async def retrieve_refund(self, refund_id: str) -> Refund | None:
        """A refund, or None where Stripe has none of this id."""
        return await self._retrieve(Refund, self._stripe.refunds.retrieve_async, refund_id)

    async def retrieve_dispute(self, dispute_id: str) -> Dispute | None:
        """A dispute, or None where Stripe has none of this id."""
        return await self._retrieve(Dispute, self._stripe.disputes.retrieve_async, dispute_id)

    async def retrieve_invoice(self, invoice_id: str) -> Invoice | None:
        """An invoice, or None where Stripe has none of this id."""
        return await self._retrieve(Invoice, self._stripe.invoices.retrieve_async, invoice_id)

    async def retrieve_credit_note(self, note_id: str) -> CreditNote | None:
        """A credit note, or None where Stripe has none of this id."""
        return await self._retrieve(CreditNote, self._stripe.credit_notes.retrieve_async, note_id)

    async def find(self, kind: str, object_id: str) -> dict[str, Any] | None:
        """An object as Stripe has it; None where it has none of this id, or we read no such kind.

        `kind` is what the object calls itself (`checkout.session`).
        """
        retrieve: dict[str, Callable[..., Awaitable[Any]]] = {
            "charge": self._stripe.charges.retrieve_async,
            "checkout.session": self._stripe.checkout.sessions.retrieve_async,
            "credit_note": self._stripe.credit_notes.retrieve_async,
            "dispute": self._stripe.disputes.retrieve_async,
            "invoice": self._stripe.invoices.retrieve_async,
            "payment_intent": self._stripe.payment_intents.retrieve_async,
            "refund": self._stripe.refunds.retrieve_async,
        }
        if kind not in retrieve:
            return None
        more = [WITH_PAYMENT] if kind == "checkout.session" else []
        return await _or_none(self._call(retrieve[kind], object_id, *more))

    async def sessions(self, window: Window, after: str | None) -> list[Listed[CheckoutSession]]:
        """A page of the Checkout Sessions of a window, newest first."""
        return await self._walk(
            CheckoutSession,
            "/v1/checkout/sessions",
            window,
            after,
            expand=[f"data.{each}" for each in WITH_PAYMENT["expand"]],
        )

    async def payments(self, window: Window, after: str | None) -> list[Listed[PaymentIntent]]:
        """A page of the PaymentIntents of a window, newest first."""
        return await self._walk(PaymentIntent, "/v1/payment_intents", window, after)

    async def refunds(self, window: Window, after: str | None) -> list[Listed[Refund]]:
        """A page of the refunds of a window, newest first."""
        return await self._walk(Refund, "/v1/refunds", window, after)

    async def disputes(self, window: Window, after: str | None) -> list[Listed[Dispute]]:
        """A page of the disputes of a window, newest first."""
        return await self._walk(Dispute, "/v1/disputes", window, after)

    async def credit_notes(self, window: Window, after: str | None) -> list[Listed[CreditNote]]:
        """A page of the credit notes of a window, newest first."""
        return await self._walk(CreditNote, "/v1/credit_notes", window, after)

    async def events(self, window: Window, after: str | None) -> list[Listed[Event]]:
        """A page of the events of a window, newest first, as Stripe would send them.

        Stripe keeps events for 30 days.
        """
        return await self._walk(Event, "/v1/events", window, after)

    async def webhook_endpoints(self) -> tuple[list[WebhookEndpoint], dt.datetime | None]:
        """Our account's webhook endpoints, at most a hundred, and Stripe's clock as it answered.

        The clock is to the second; None where the answer has no `Date`.
        """

        async def ask(options: Mapping[str, str]) -> Any:
            path = "/v1/webhook_endpoints"
            return await self._client.raw_request_async("get", path, limit=PAGE_SIZE, **options)

        answer = await self._ask(ask)
        date: str | None = answer.headers.get("date")
        found = [each.read() for each in objects_of(answer.body, WebhookEndpoint)]
        return found, parsedate_to_datetime(date) if date else None

    async def _walk(
        self,
        model: type[M],
        path: str,
        window: Window,
        after: str | None,
        **more: Any,
    ) -> list[Listed[M]]:
        parameters = {"created": window.created, "limit": PAGE_SIZE, **more}
        if after is not None:
            parameters["starting_after"] = after

        async def ask(options: Mapping[str, str]) -> Any:
            return await self._client.raw_request_async("get", path, **parameters, **options)

        ask.__qualname__ = f"list {path}"
        with text_kept() as kept:
            answer = await self._ask(ask)
        return objects_of(kept[-1] if kept else answer.body, model)

    async def _page(
        self, method: Callable[..., Awaitable[Any]], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        listed = await self._call(method, {**parameters, "limit": PAGE_SIZE})
        return cast("list[dict[str, Any]]", listed["data"])

    async def _page_of(
        self, method: Callable[..., Awaitable[Any]], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]] | None:
        """What belongs to an object; None where Stripe has no such object."""
        return await _or_none(self._page(method, parameters))

    async def _retrieve(
        self, model: type[M], method: Callable[..., Awaitable[Any]], *arguments: Any
    ) -> M | None:
        found = await _or_none(self._call(method, *arguments))
        return None if found is None else read_object(model, found)

    async def _call(
        self, method: Callable[..., Awaitable[Any]], *arguments: Any, **options: str
    ) -> dict[str, Any]:
        """What one call of the library's answered."""
        answer = await self._ask(method, *arguments, **options)
        return cast("dict[str, Any]", answer.to_dict())

    async def _ask(
        self, method: Callable[..., Awaitable[Any]], *arguments: Any, **options: str
    ) -> Any:
        """One call, measured and traced."""
        with measured_call(getattr(method, "__qualname__", "call")):
            return await self._ask_patiently(method, *arguments, **options)

    async def _ask_patiently(
        self, method: Callable[..., Awaitable[Any]], *arguments: Any, **options: str
    ) -> Any:
        """One call within the time-out; Stripe's rate limit is waited for while that allows."""
        patient = AsyncRetrying(
            retry=retry_if_exception_type(stripe.RateLimitError),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            stop=stop_after_delay(self._timeout_seconds),
            reraise=True,
        )
        if self._account is not None:
            options["stripe_account"] = self._account
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await patient(method, *arguments, options=options)
        except TimeoutError:
            raise StripeGatewayError(
                f"Stripe did not answer within {self._timeout_seconds:g} seconds"
            ) from None
        except (stripe.StripeError, httpx.HTTPError) as error:
            raise gateway_error(error) from None


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncGenerator[Gateway | None]:
    """A gateway with connections of its own; None where no key is configured."""
    if settings.stripe_secret_key is None:
        yield None
        return
    http = HttpClient(timeout=settings.stripe_timeout_seconds)
    client = stripe.StripeClient(
        settings.stripe_secret_key.get_secret_value(),
        base_addresses={"api": settings.stripe_api_base_url},
        http_client=http,
        max_network_retries=NETWORK_RETRIES,
    )
    try:
        yield Gateway(client, settings.stripe_timeout_seconds)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]  # the library is untyped here


def configured(gateway: Gateway | None) -> Gateway:
    """The gateway.

    Raises:
        Unavailable: STRIPE_NOT_CONFIGURED, there is no key.
    """
    if gateway is None:
        raise Unavailable(
            "STRIPE_SECRET_KEY is not set, nor, for an offline Stripe, STRIPE_API_BASE_URL with it",
            "STRIPE_NOT_CONFIGURED",
        )
    return gateway


async def _or_none(answer: Awaitable[T]) -> T | None:
    """Stripe's answer; None where our key knows no such object: deleted, or another account's."""
    try:
        return await answer
    except StripeGatewayError as error:
        if error.code == "resource_missing":
            return None
        raise
