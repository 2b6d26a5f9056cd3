"""The offline Stripe: requests in, answers out, in memory, without a network.

In a test, in process:

    from src.offline_stripe import OfflineStripe, InProcessClient

    offline = OfflineStripe(seed="7", clock=lambda: 1_800_000_000)
    offline.add_endpoint("http://test/webhook", secret="whsec_test")
    client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(offline))
    session = client.v1.checkout.sessions.create({...})   # or `await …create_async(…)`
    offline.pay(session.id)                               # the customer pays, or `method="sepa"` …
    for delivery in offline.webhooks.due():               # signed requests, in order
        offline.webhooks.answered(delivery.delivery_id, 200)
"""

import json
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from src.offline_stripe import (
    cards,
    checkout,
    disputes,
    due,
    idempotency,
    keys,
    payouts,
    refunds,
)
from src.offline_stripe.account import API_VERSION, Account, Object, State
from src.offline_stripe.errors import StripeError, invalid, missing_object
from src.offline_stripe.forms import parse_form
from src.offline_stripe.listing import check_references, rendered
from src.offline_stripe.parameters import parse_parameters
from src.offline_stripe.routes import INCLUDED, find_route
from src.offline_stripe.trouble import Trouble, Troubles
from src.offline_stripe.webhooks import Webhooks, add_endpoint
from src.offline_stripe.wire import Request, Response, json_response

DEFAULT_PORT = 12_111


class OfflineStripe:
    """One Stripe account in test mode. Safe to use from several threads."""

    def __init__(
        self,
        *,
        seed: str = "offline",
        clock: Callable[[], float] = time.time,
        public_url: str = f"http://127.0.0.1:{DEFAULT_PORT}",
        state: State | None = None,
    ) -> None:
        """`seed` decides every id and every chance; `clock` tells Unix time in seconds."""
        self.account = Account(state or State(seed=seed), clock=clock, public_url=public_url)
        self.webhooks = Webhooks(self.account)
        self.troubles = Troubles()
        self.lock = threading.RLock()

    def handle(self, request: Request) -> Response:
        """Answer a request to Stripe's API."""
        with self.lock:
            request_id = self.account.new_id("req", 14)
            self.account.request_id = request_id
            trouble = self.troubles.next(request.method, request.path)
            try:
                due.do_what_is_due(self.account)
                response = self._answer(request, request_id, trouble)
            except StripeError as error:
                response = json_response(error.status, error.body)
            finally:
                self.account.request_id = self.account.idempotency_key = self.account.key = None
        version = request.headers.get("stripe-version", API_VERSION)
        headers = {"Request-Id": request_id, "Stripe-Version": version, **response.headers}
        delay = trouble.delay_seconds if trouble else 0
        return replace(response, headers=headers, delay_seconds=delay)

    def _answer(self, request: Request, request_id: str, trouble: Trouble | None) -> Response:
        self.account.key = keys.key_of(request.headers.get("authorization", ""))
        keys.check_request(self.account, request.method, request.path)
        if trouble is not None and (error := trouble.error()) is not None:
            raise error
        form = parse_form(request.query)
        if request.method != "GET":
            form |= _body(request)
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        if key is None:
            return json_response(200, self._operate(request, form))
        idempotency.forget_old_replies(self.account)
        found = idempotency.fingerprint(request, form)
        earlier = idempotency.earlier_reply(self.account, key, found)
        if earlier is not None:
            return json_response(
                earlier["status"],
                earlier["body"],
                Idempotency_Key=key,
                Idempotent_Replayed="true",
                Original_Request=earlier["request_id"],
            )
        self.account.idempotency_key = key
        status, body = 200, None
        try:
            body = self._operate(request, form)
        except StripeError as error:
            status, body = error.status, error.body
            if not error.executed:
                raise
        idempotency.keep_reply(
            self.account, key, found, status=status, body=body, request_id=request_id
        )
        return json_response(status, body, Idempotency_Key=key)

    def _operate(self, request: Request, form: dict[str, Any]) -> Object:
        route = find_route(request.method, request.path)
        if route is None:
            raise StripeError(
                f"Unrecognized request URL ({request.method}: {request.path}). The offline Stripe "
                "does not imitate it, or Stripe has no such address.",
                status=404,
            )
        operation, shape, ids = route
        parameters = parse_parameters(form, shape)
        expand = parameters.pop("expand", [])
        if request.method == "GET" and not ids:
            check_references(self.account, parameters)
        return rendered(self.account, operation(self.account, parameters, *ids), expand, INCLUDED)

    # What the world does: customers, banks, time. All raise StripeError where it cannot be.

    def pay(
        self,
        session_id: str,
        method: str = "visa",
        *,
        email: str | None = None,
        promotion_code: str | None = None,
    ) -> Object:
        """The customer pays with a test method (`cards.METHODS`); see the session's status.

        `promotion_code` is what they enter first.
        """
        with self.lock:
            if method not in cards.METHODS:
                raise invalid(f"method is one of {', '.join(cards.METHODS)}", "method")
            self.account.get("checkout.session", session_id)
            made = cards.make_method(self.account, method)
            return checkout.complete(self.account, session_id, made, email, promotion_code)

    def enter_code(self, session_id: str, promotion_code: str) -> Object:
        """The customer enters a promotion code on the pay page; the session as it is then."""
        with self.lock:
            return checkout.enter_code(self.account, session_id, promotion_code)

    def authenticate(self, object_id: str, *, passed: bool = True) -> Object:
        """The customer answers 3-D Secure for a session or a PaymentIntent."""
        with self.lock:
            return due.authenticate(self.account, object_id, passed=passed)

    def settle_payment(self, object_id: str, *, succeeded: bool = True) -> Object:
        """A delayed payment of a session or a PaymentIntent comes in, or does not."""
        with self.lock:
            return due.settle_payment(self.account, object_id, succeeded=succeeded)

    def settle_refund(self, refund_id: str, status: str) -> Object:
        """A refund ends as `succeeded`, `failed` or `canceled`; one that succeeded may yet fail."""
        with self.lock:
            if status not in ("succeeded", "failed", "canceled"):
                raise invalid("status is one of succeeded, failed, canceled", "status")
            return refunds.settle(self.account, refund_id, status=status)

    def settle_payout(self, payout_id: str, status: str) -> Object:
        """A payout ends as `paid` or `failed`; by itself it is paid after two days."""
        with self.lock:
            if status not in ("paid", "failed"):
                raise invalid("status is one of paid, failed", "status")
            return payouts.settle(self.account, payout_id, status=status)

    def open_dispute(
        self,
        charge_id: str,
        *,
        inquiry: bool = False,
        amount: int | None = None,
        reason: str = "fraudulent",
    ) -> Object:
        """The cardholder complains; with `inquiry` the money stays for now."""
        with self.lock:
            return disputes.open_dispute(
                self.account, charge_id, inquiry=inquiry, amount=amount, reason=reason
            )

    def decide_dispute(self, dispute_id: str, decision: str, amount: int | None = None) -> Object:
        """The bank decides: `escalate`, `win` (for us), `lose`, `appeal` or `reinstate`.

        `amount` is what it reinstates, where that is not all.
        """
        decisions: dict[str, Callable[[Account, str], Object]] = {
            "escalate": disputes.escalate,
            "win": disputes.win,
            "lose": disputes.lose,
            "appeal": disputes.appeal,
            "reinstate": partial(disputes.reinstate, amount=amount),
        }
        with self.lock:
            if decision not in decisions:
                raise invalid(f"decision is one of {', '.join(decisions)}", "decision")
            return decisions[decision](self.account, dispute_id)

    def add_endpoint(
        self, url: str, *, secret: str, enabled_events: list[str] | None = None
    ) -> str:
        """Have events sent to `url`, signed with `secret`; the endpoint's id."""
        with self.lock:
            fields = {} if enabled_events is None else {"enabled_events": enabled_events}
            return str(add_endpoint(self.account, url, secret=secret, **fields)["id"])

    def set_endpoint(self, url: str, *, secret: str) -> str:
        """The one endpoint that a command line names, wherever it was before; its id."""
        with self.lock:
            for endpoint in self.account.all("webhook_endpoint"):
                private = self.account.private(endpoint["id"])
                if private.get("of_the_command") and not endpoint.get("deleted"):
                    private["secret"] = secret
                    return str(self.account.change(endpoint, url=url)["id"])
            endpoint_id = self.add_endpoint(url, secret=secret)
            self.account.private(endpoint_id)["of_the_command"] = True
            return endpoint_id

    def set_defaults(self, **changes: Any) -> None:
        """Change what the account decides where a request leaves it open (`account.DEFAULTS`)."""
        with self.lock:
            self.account.state.defaults |= changes

    def restrict_key(self, key: str, permissions: Collection[str]) -> None:
        """Let a key (`rk_test_…`) do only what these permissions allow (`rak_charge_read` …)."""
        unknown = sorted(set(permissions) - keys.PERMISSIONS)
        if unknown or not key.startswith("rk_"):
            known = ", ".join(sorted(keys.PERMISSIONS))
            raise invalid(f"Restrict an rk_test_… to some of {known}", "permissions")
        with self.lock:
            self.account.state.restricted_keys[key] = sorted(permissions)

    def advance(self, seconds: int) -> None:
        """Let time pass here; what is due by then happens, 0 seconds: what is due by now."""
        with self.lock:
            self.account.state.clock_offset_seconds += seconds
            due.do_what_is_due(self.account)

    def get(self, object_id: str) -> Object:
        """Any object by its id, itself.

        Raises:
            StripeError: resource_missing.
        """
        found = self.account.anything(object_id)
        if found is None:
            raise missing_object("object", object_id)
        return found

    def dump(self) -> str:
        """Everything there is, as JSON; `load_state` reads it."""
        with self.lock:
            return json.dumps(asdict(self.account.state))


def load_state(text: str) -> State:
    """What `dump` wrote.

    Raises:
        ValueError: it is nothing of the kind.
    """
    try:
        return State(**json.loads(text))
    except TypeError:
        raise ValueError("no state of an offline Stripe") from None


def _body(request: Request) -> dict[str, Any]:
    try:
        return parse_form(request.body.decode())
    except UnicodeDecodeError:
        raise invalid("The body is no form in UTF-8") from None
