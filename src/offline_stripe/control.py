"""`/_offline/…`: what customers, banks, time and the network do, asked for over HTTP.

The same as the methods of `OfflineStripe`, for whoever is in another process; no key is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from src.offline_stripe.account import Object
from src.offline_stripe.errors import StripeError, invalid
from src.offline_stripe.forms import parse_form
from src.offline_stripe.parameters import parse_parameters
from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.trouble import Trouble, TroubleKind
from src.offline_stripe.webhooks import Secret, retry_event
from src.offline_stripe.wire import Request, Response, json_response

Control = Callable[..., Object]


class _Pay(TypedDict):
    method: NotRequired[str]
    email: NotRequired[str]
    promotion_code: NotRequired[str]


class _Code(TypedDict):
    promotion_code: str


class _Passed(TypedDict):
    passed: NotRequired[bool]


class _Succeeded(TypedDict):
    succeeded: NotRequired[bool]


class _Status(TypedDict):
    status: str


class _Dispute(TypedDict):
    inquiry: NotRequired[bool]
    amount: NotRequired[int]
    reason: NotRequired[str]


class _Decision(TypedDict):
    decision: str
    amount: NotRequired[int]


class _Advance(TypedDict):
    seconds: int


class _Faults(TypedDict):
    drop: NotRequired[float]
    duplicate: NotRequired[float]
    delay: NotRequired[float]
    delay_seconds_max: NotRequired[int]
    reorder: NotRequired[bool]
    secret: NotRequired[Literal["right", "wrong", "rotating", "rotated"]]
    paused: NotRequired[bool]


class _Trouble(TypedDict):
    kind: Literal["rate_limit", "error", "slow"]
    times: NotRequired[int]
    method: NotRequired[str]
    path: NotRequired[str]
    delay_seconds: NotRequired[float]


class _Defaults(TypedDict):
    adaptive_pricing: NotRequired[bool]
    automatic_tax: NotRequired[bool]
    managed_payments: NotRequired[bool]
    payment_method_types: NotRequired[list[str]]
    tax_behavior: NotRequired[Literal["exclusive", "inclusive", "unspecified"]]
    tax_percent: NotRequired[Decimal]


class _Restrict(TypedDict):
    key: str
    permissions: NotRequired[list[str]]


class _Nothing(TypedDict):
    pass


_WITHOUT_ID = ("account", "clock", "keys", "webhooks", "troubles")


def _advance(offline: OfflineStripe, seconds: int) -> Object:
    offline.advance(seconds)
    return {"now": offline.account.now()}


def _faults(offline: OfflineStripe, **changes: Any) -> Object:
    webhooks = offline.webhooks
    webhooks.is_paused = changes.pop("paused", webhooks.is_paused)
    if "secret" in changes:
        changes["secret"] = Secret(changes["secret"])
    for name in ("drop", "duplicate", "delay"):
        if not 0 <= changes.get(name, 0) <= 1:
            raise invalid("A chance is between 0 and 1", name)
    webhooks.faults = replace(webhooks.faults, **changes)
    return {"paused": webhooks.is_paused, **vars(webhooks.faults)}


def _trouble(offline: OfflineStripe, kind: str, **fields: Any) -> Object:
    offline.troubles.add(Trouble(TroubleKind(kind), **fields))
    return {"kind": kind, **fields}


def _defaults(offline: OfflineStripe, **changes: Any) -> Object:
    offline.set_defaults(**changes)
    return offline.account.defaults


def _restrict(offline: OfflineStripe, key: str, permissions: Sequence[str] = ()) -> Object:
    offline.restrict_key(key, permissions)
    return {"key": key, "permissions": permissions}


def _secret(offline: OfflineStripe, object_id: str) -> Object:
    offline.account.get("webhook_endpoint", object_id)
    return offline.account.private(object_id)


def _resend(offline: OfflineStripe, object_id: str) -> Object:
    return retry_event(offline.account, {}, object_id)


_CONTROLS: dict[tuple[str, str], tuple[Control, Any]] = {
    ("sessions", "pay"): (OfflineStripe.pay, _Pay),
    ("sessions", "enter_code"): (OfflineStripe.enter_code, _Code),
    ("sessions", "authenticate"): (OfflineStripe.authenticate, _Passed),
    ("sessions", "settle"): (OfflineStripe.settle_payment, _Succeeded),
    ("payment_intents", "authenticate"): (OfflineStripe.authenticate, _Passed),
    ("payment_intents", "settle"): (OfflineStripe.settle_payment, _Succeeded),
    ("refunds", "settle"): (OfflineStripe.settle_refund, _Status),
    ("payouts", "settle"): (OfflineStripe.settle_payout, _Status),
    ("charges", "dispute"): (OfflineStripe.open_dispute, _Dispute),
    ("disputes", "decide"): (OfflineStripe.decide_dispute, _Decision),
    ("events", "resend"): (_resend, _Nothing),
    ("webhook_endpoints", "secrets"): (_secret, _Nothing),
    ("clock", "advance"): (_advance, _Advance),
    ("webhooks", "faults"): (_faults, _Faults),
    ("troubles", "add"): (_trouble, _Trouble),
    ("account", "defaults"): (_defaults, _Defaults),
    ("keys", "restrict"): (_restrict, _Restrict),
}


def answer(offline: OfflineStripe, request: Request) -> Response:
    """`POST /_offline/{kind}/{id}/{verb}` or `POST /_offline/{kind}/{verb}`."""
    try:
        control, shape, ids = _find(request)
        form = parse_form(request.body.decode("utf-8", "replace"))
        parameters = parse_parameters(form, shape)
        with offline.lock:
            return json_response(200, control(offline, *ids, **parameters))
    except StripeError as error:
        return json_response(error.status, error.body)


def _find(request: Request) -> tuple[Control, Any, list[str]]:
    kind, *rest = request.path.removeprefix("/_offline/").strip("/").split("/")
    found = _CONTROLS.get((kind, rest[-1] if rest else ""))
    ids = rest[:-1]
    if found is None or request.method != "POST" or len(ids) != (kind not in _WITHOUT_ID):
        known = ", ".join("/".join(each) for each in _CONTROLS)
        raise StripeError(f"POST one of {known}, an id between", status=404)
    return (*found, ids)
