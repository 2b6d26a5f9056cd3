"""API keys: any test key is accepted; a restricted one may do what it was given.

Source: docs.stripe.com/keys/restricted-api-keys; the answer is the one that people quote in public,
of 2026 with its `code`. Write permissions imply the reading ones.
"""

from base64 import b64decode
from http import HTTPStatus

from src.offline_stripe.account import Account
from src.offline_stripe.errors import StripeError, unauthorized

_PREFIXES = ("sk_test_", "rk_test_")
_ACCOUNT = "acct_offline"
_RESOURCES = {
    "balance": "balance",
    "balance_transactions": "balance_transaction_source",
    "charges": "charge",
    "checkout": "checkout_session",
    "coupons": "coupon",
    "credit_notes": "credit_note",
    "customers": "customer",
    "disputes": "dispute",
    "events": "event",
    "invoice_payments": "invoice",
    "invoiceitems": "invoice",
    "invoices": "invoice",
    "payment_intents": "payment_intent",
    "payment_methods": "payment_method",
    "payment_pages": "checkout_session",
    "payouts": "payout",
    "prices": "plan",
    "products": "product",
    "promotion_codes": "promotion_code",
    "refunds": "charge",
    "test_helpers": "billing_clock",
    "webhook_endpoints": "webhook",
}
"""What permissions call the resources of an address."""
_KINDS = {"checkout.session": "checkout_session", "price": "plan", "refund": "charge"}
"""What they call a kind of object, where that is not its own name."""
PERMISSIONS = frozenset(
    f"rak_{name}_{right}" for name in _RESOURCES.values() for right in ("read", "write")
)


def key_of(authorization: str) -> str:
    """The key of a request's header.

    Raises:
        StripeError: 401, there is none that could be one.
    """
    scheme, _, credentials = authorization.partition(" ")
    key = credentials.strip()
    if scheme.lower() == "basic":
        try:
            key = b64decode(key, validate=True).decode("ascii").partition(":")[0]
        except ValueError:
            key = ""
    if not key:
        raise unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
    if not key.startswith(_PREFIXES):
        raise unauthorized(f"Invalid API Key provided: {key[:8]}***; any sk_test_… will do here")
    return key


def check_request(account: Account, method: str, path: str) -> None:
    """Refuse what the key of this request may not do.

    Raises:
        StripeError: 403.
    """
    resource = _RESOURCES.get(path.split("/")[2] if path.count("/") > 1 else "")
    if resource is not None:
        _check(account, resource, "read" if method == "GET" else "write")


def check_reading(account: Account, kind: str) -> None:
    """Refuse to expand an object of a kind that the key of this request may not read.

    Raises:
        StripeError: 403.
    """
    _check(account, _KINDS.get(kind, kind), "read")


def _check(account: Account, resource: str, right: str) -> None:
    key = account.key
    given = account.state.restricted_keys.get(key) if key else None
    if key is None or given is None:
        return
    enough = {f"rak_{resource}_write", f"rak_{resource}_{right}"}
    if enough.isdisjoint(given):
        raise StripeError(
            f"The provided key '{key[:8]}*****{key[-4:]}' does not have the required permissions "
            f"for this endpoint on account '{_ACCOUNT}'. Having the 'rak_{resource}_{right}' "
            "permission would allow this request to continue.",
            status=HTTPStatus.FORBIDDEN,
            code="more_permissions_required",
        )
