"""Stripe's addresses: method, path, the parameters it takes, who does it."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NotRequired

from stripe import params
from stripe.params import checkout as checkout_params
from stripe.params import test_helpers as clock_params
from typing_extensions import TypedDict

from src.offline_stripe import (
    balance,
    cards,
    catalog,
    charges,
    checkout,
    clocks,
    coupons,
    credit_notes,
    declines,
    disputes,
    invoice_items,
    invoices,
    payments,
    payouts,
    refunds,
    search,
    webhooks,
)
from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import refused
from src.offline_stripe.listing import Included

Operation = Callable[..., Object]


class _Nothing(TypedDict):
    expand: NotRequired[list[str]]


class _PaymentIntentCreate(params.PaymentIntentCreateParams):
    """With what versions of the API before this one took, which the command line still sends."""

    payment_method_types: NotRequired[list[str]]


class _SessionCreate(checkout_params.SessionCreateParams):
    """The same."""

    payment_method_types: NotRequired[list[str]]


class _PromotionCodeCreate(params.PromotionCodeCreateParams):
    """The same: a coupon, instead of a promotion of one."""

    coupon: NotRequired[str]
    promotion: NotRequired["params.PromotionCodeCreateParamsPromotion"]  # type: ignore[misc]


class _ConfirmPage(TypedDict):
    payment_method: str
    expected_amount: NotRequired[int]
    expand: NotRequired[list[str]]


class _RetryEvent(TypedDict):
    webhook_endpoint: NotRequired[str]
    for_stripecli: NotRequired[bool]
    expand: NotRequired[list[str]]


def _retrieve(kind: str) -> Operation:
    def retrieve(account: Account, _parameters: Object, object_id: str) -> Object:
        return account.get(kind, object_id)

    return retrieve


def _page(account: Account, _parameters: Object, object_id: str) -> Object:
    """What Stripe's own pay page reads, as far as the command line needs it."""
    session = account.get("checkout.session", object_id)
    return {**session, "session_id": session["id"]}


def _confirm_page(account: Account, parameters: Object, object_id: str) -> Object:
    """What Stripe's own pay page does; the command line pays with it."""
    session = account.get("checkout.session", object_id)
    expected = parameters.get("expected_amount", session["amount_total"])
    if expected != session["amount_total"]:
        raise refused(
            "The amount is not what the page showed", "checkout_amount_mismatch", "expected_amount"
        )
    method = cards.resolve(account, parameters["payment_method"])
    checkout.complete(account, object_id, method)
    intent_id = session["payment_intent"]
    if intent_id and (intent := account.get("payment_intent", intent_id))["last_payment_error"]:
        raise declines.card_error(intent)
    return session


_TABLE: tuple[tuple[str, str, Operation, Any], ...] = (
    ("POST", "customers", catalog.create_customer, params.CustomerCreateParams),
    ("GET", "customers", catalog.list_customers, params.CustomerListParams),
    ("GET", "customers/{}", catalog.retrieve_customer, _Nothing),
    ("POST", "customers/{}", catalog.update_customer, params.CustomerUpdateParams),
    ("DELETE", "customers/{}", catalog.delete_customer, _Nothing),
    ("POST", "products", catalog.create_product, params.ProductCreateParams),
    ("GET", "products", catalog.list_products, params.ProductListParams),
    ("GET", "products/{}", _retrieve("product"), _Nothing),
    ("POST", "products/{}", catalog.update_product, params.ProductUpdateParams),
    ("DELETE", "products/{}", catalog.delete_product, _Nothing),
    ("POST", "prices", catalog.create_price, params.PriceCreateParams),
    ("GET", "prices", catalog.list_prices, params.PriceListParams),
    ("GET", "prices/{}", _retrieve("price"), _Nothing),
    ("POST", "prices/{}", catalog.update_price, params.PriceUpdateParams),
    ("POST", "coupons", coupons.create, params.CouponCreateParams),
    ("GET", "coupons", coupons.list_coupons, params.CouponListParams),
    ("GET", "coupons/{}", _retrieve("coupon"), _Nothing),
    ("POST", "coupons/{}", coupons.update, params.CouponUpdateParams),
    ("DELETE", "coupons/{}", coupons.delete, _Nothing),
    ("POST", "promotion_codes", coupons.create_code, _PromotionCodeCreate),
    ("GET", "promotion_codes", coupons.list_codes, params.PromotionCodeListParams),
    ("GET", "promotion_codes/{}", _retrieve("promotion_code"), _Nothing),
    ("POST", "promotion_codes/{}", coupons.update_code, params.PromotionCodeUpdateParams),
    ("POST", "payment_methods", cards.create, params.PaymentMethodCreateParams),
    ("GET", "payment_methods", cards.list_methods, params.PaymentMethodListParams),
    ("GET", "payment_methods/{}", _retrieve("payment_method"), _Nothing),
    ("POST", "payment_methods/{}", cards.update, params.PaymentMethodUpdateParams),
    ("POST", "payment_methods/{}/attach", cards.attach, params.PaymentMethodAttachParams),
    ("POST", "payment_methods/{}/detach", cards.detach, _Nothing),
    (
        "GET",
        "customers/{}/payment_methods",
        cards.list_of_customer,
        params.CustomerPaymentMethodListParams,
    ),
    ("GET", "customers/{}/payment_methods/{}", cards.of_customer, _Nothing),
    ("POST", "checkout/sessions", checkout.create, _SessionCreate),
    ("GET", "checkout/sessions", checkout.list_sessions, checkout_params.SessionListParams),
    ("GET", "checkout/sessions/{}", _retrieve("checkout.session"), _Nothing),
    ("POST", "checkout/sessions/{}", checkout.update, checkout_params.SessionUpdateParams),
    ("POST", "checkout/sessions/{}/expire", checkout.expire, _Nothing),
    (
        "GET",
        "checkout/sessions/{}/line_items",
        checkout.list_line_items,
        checkout_params.SessionLineItemListParams,
    ),
    ("GET", "payment_pages/{}", _page, _Nothing),
    ("POST", "payment_pages/{}/confirm", _confirm_page, _ConfirmPage),
    ("POST", "payment_intents", payments.create, _PaymentIntentCreate),
    ("GET", "payment_intents", payments.list_intents, params.PaymentIntentListParams),
    ("GET", "payment_intents/{}", _retrieve("payment_intent"), _Nothing),
    ("POST", "payment_intents/{}", payments.update, params.PaymentIntentUpdateParams),
    (
        "POST",
        "payment_intents/{}/confirm",
        invoices.confirm_payment,
        params.PaymentIntentConfirmParams,
    ),
    ("POST", "payment_intents/{}/capture", payments.capture, params.PaymentIntentCaptureParams),
    ("POST", "payment_intents/{}/cancel", payments.cancel, params.PaymentIntentCancelParams),
    ("GET", "charges", charges.list_charges, params.ChargeListParams),
    ("GET", "charges/{}", _retrieve("charge"), _Nothing),
    ("POST", "charges/{}", charges.update, params.ChargeUpdateParams),
    ("POST", "charges/{}/capture", payments.capture_charge, params.ChargeCaptureParams),
    ("GET", "charges/{}/refunds", refunds.list_of_charge, params.ChargeListRefundsParams),
    ("GET", "balance", balance.balance, _Nothing),
    ("POST", "payouts", payouts.create, params.PayoutCreateParams),
    ("GET", "payouts", payouts.list_payouts, params.PayoutListParams),
    ("GET", "payouts/{}", _retrieve("payout"), _Nothing),
    ("POST", "payouts/{}", payouts.update, params.PayoutUpdateParams),
    ("POST", "payouts/{}/cancel", payouts.cancel, _Nothing),
    (
        "GET",
        "balance_transactions",
        balance.list_balance_transactions,
        params.BalanceTransactionListParams,
    ),
    ("GET", "balance_transactions/{}", _retrieve("balance_transaction"), _Nothing),
    ("POST", "refunds", refunds.create, params.RefundCreateParams),
    ("GET", "refunds", refunds.list_refunds, params.RefundListParams),
    ("GET", "refunds/{}", _retrieve("refund"), _Nothing),
    ("POST", "refunds/{}", refunds.update, params.RefundUpdateParams),
    ("POST", "refunds/{}/cancel", refunds.cancel, _Nothing),
    ("GET", "disputes", disputes.list_disputes, params.DisputeListParams),
    ("GET", "disputes/{}", _retrieve("dispute"), _Nothing),
    ("POST", "disputes/{}", disputes.update, params.DisputeUpdateParams),
    ("POST", "disputes/{}/close", disputes.close, _Nothing),
    ("POST", "invoiceitems", invoice_items.create, params.InvoiceItemCreateParams),
    ("GET", "invoiceitems", invoice_items.list_items, params.InvoiceItemListParams),
    ("GET", "invoiceitems/{}", _retrieve("invoiceitem"), _Nothing),
    ("POST", "invoiceitems/{}", invoice_items.update, params.InvoiceItemUpdateParams),
    ("DELETE", "invoiceitems/{}", invoice_items.delete, _Nothing),
    ("POST", "invoices", invoices.create, params.InvoiceCreateParams),
    ("GET", "invoices", invoices.list_invoices, params.InvoiceListParams),
    ("GET", "invoices/{}", _retrieve("invoice"), _Nothing),
    ("POST", "invoices/create_preview", invoices.preview, params.InvoiceCreatePreviewParams),
    ("POST", "invoices/{}", invoices.update, params.InvoiceUpdateParams),
    ("DELETE", "invoices/{}", invoices.delete, _Nothing),
    ("GET", "invoices/{}/lines", invoices.list_lines, params.InvoiceLineItemListParams),
    ("POST", "invoices/{}/send", invoices.send, _Nothing),
    ("POST", "invoices/{}/mark_uncollectible", invoices.mark_uncollectible, _Nothing),
    ("POST", "invoices/{}/finalize", invoices.finalize, params.InvoiceFinalizeInvoiceParams),
    ("POST", "invoices/{}/pay", invoices.pay, params.InvoicePayParams),
    ("POST", "invoices/{}/void", invoices.void, _Nothing),
    ("GET", "invoice_payments", invoices.list_payments, params.InvoicePaymentListParams),
    ("GET", "invoice_payments/{}", _retrieve("invoice_payment"), _Nothing),
    ("POST", "credit_notes", credit_notes.create, params.CreditNoteCreateParams),
    ("GET", "credit_notes", credit_notes.list_notes, params.CreditNoteListParams),
    ("GET", "credit_notes/{}", _retrieve("credit_note"), _Nothing),
    ("POST", "credit_notes/{}", credit_notes.update, params.CreditNoteUpdateParams),
    ("GET", "credit_notes/{}/lines", credit_notes.list_lines, params.CreditNoteLineItemListParams),
    ("POST", "credit_notes/{}/void", credit_notes.void, _Nothing),
    *(
        ("GET", f"{path}/search", search.search(kind, path), params.CustomerSearchParams)
        for path, kind in search.KINDS.items()
    ),
    ("POST", "test_helpers/test_clocks", clocks.create, clock_params.TestClockCreateParams),
    ("GET", "test_helpers/test_clocks", clocks.list_clocks, clock_params.TestClockListParams),
    ("GET", "test_helpers/test_clocks/{}", _retrieve(clocks.KIND), _Nothing),
    ("DELETE", "test_helpers/test_clocks/{}", clocks.delete, _Nothing),
    (
        "POST",
        "test_helpers/test_clocks/{}/advance",
        clocks.begin_to_advance,
        clock_params.TestClockAdvanceParams,
    ),
    ("GET", "events", webhooks.list_events, params.EventListParams),
    ("GET", "events/{}", _retrieve("event"), _Nothing),
    ("POST", "events/{}/retry", webhooks.retry_event, _RetryEvent),
    ("POST", "webhook_endpoints", webhooks.create, params.WebhookEndpointCreateParams),
    ("GET", "webhook_endpoints", webhooks.list_endpoints, params.WebhookEndpointListParams),
    ("GET", "webhook_endpoints/{}", _retrieve("webhook_endpoint"), _Nothing),
    ("POST", "webhook_endpoints/{}", webhooks.update, params.WebhookEndpointUpdateParams),
    ("DELETE", "webhook_endpoints/{}", webhooks.delete, _Nothing),
)
ROUTES: dict[tuple[str, tuple[str, ...]], tuple[Operation, Any]] = {
    (method, tuple(path.split("/"))): (what, shape) for method, path, what, shape in _TABLE
}
"""By method and the segments of the path, `{}` for an id."""

INCLUDED: dict[tuple[str, str], Included] = {
    ("checkout.session", "line_items"): checkout.line_items_of,
    ("coupon", "applies_to"): coupons.products_of,
    ("charge", "refunds"): charges.refunds_of,
    ("invoice", "payments"): invoices.payments_of,
}
"""Properties that are there only when asked for."""


def find_route(method: str, path: str) -> tuple[Operation, type, list[str]] | None:
    """Who does it, what it takes, the ids in the path; None where Stripe has no such address."""
    segments = tuple(path.strip("/").split("/"))[1:]
    places = [number for number, _ in enumerate(segments)]
    for ids in ((), *((each,) for each in places), *combinations(places, 2)):
        pattern = tuple("{}" if place in ids else each for place, each in enumerate(segments))
        found = ROUTES.get((method, pattern))
        if found is not None:
            return found[0], found[1], [segments[place] for place in ids]
    return None
