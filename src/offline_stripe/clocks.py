"""Test clocks: moves the time of a customer on, with what falls due by then.

The account has one clock: advancing a test clock lets as much time pass for everything. Stripe's
other customers would not notice.
"""

from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import invalid
from src.offline_stripe.listing import page

KEPT_SECONDS = 30 * 86_400
KIND = "test_helpers.test_clock"


def create(account: Account, parameters: Object) -> Object:
    """`POST /v1/test_helpers/test_clocks`."""
    clock = account.add(
        {
            "id": account.new_id("clock"),
            "object": KIND,
            "created": account.now(),
            "deletes_after": account.now() + KEPT_SECONDS,
            "frozen_time": parameters["frozen_time"],
            "livemode": False,
            "name": parameters.get("name"),
            "status": "ready",
            "status_details": {},
        }
    )
    if customer := parameters.get("customer"):
        account.get("customer", customer, "customer")["test_clock"] = clock["id"]
    account.emit("test_helpers.test_clock.created", clock)
    return clock


def begin_to_advance(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/test_helpers/test_clocks/{id}/advance`: `ready` again with the next request.

    Raises:
        StripeError: it is to go back.
    """
    clock = account.get(KIND, object_id)
    until: int = parameters["frozen_time"]
    if until <= clock["frozen_time"]:
        raise invalid("The new frozen time must be after the current frozen time", "frozen_time")
    account.state.clock_offset_seconds += until - clock["frozen_time"]
    return account.change(
        clock,
        "test_helpers.test_clock.advancing",
        frozen_time=until,
        status="advancing",
        status_details={"advancing": {"target_frozen_time": until}},
    )


def finish_advancing(account: Account) -> None:
    """What a clock made due has happened: it is ready."""
    for clock in account.all(KIND):
        if clock.get("status") == "advancing":
            account.change(
                clock, "test_helpers.test_clock.ready", status="ready", status_details={}
            )


def delete(account: Account, _parameters: Object, object_id: str) -> Object:
    """`DELETE /v1/test_helpers/test_clocks/{id}`: with its customers."""
    clock = account.get(KIND, object_id)
    for customer in account.all("customer"):
        if customer.get("test_clock") == object_id:
            customer_id = customer["id"]
            customer.clear()
            customer |= {"id": customer_id, "object": "customer", "deleted": True}
    account.emit("test_helpers.test_clock.deleted", clock)
    clock.clear()
    clock |= {"id": object_id, "object": KIND, "deleted": True}
    return clock


def list_clocks(account: Account, parameters: Object) -> Object:
    """`GET /v1/test_helpers/test_clocks`."""
    return page(account.all(KIND), parameters, "/v1/test_helpers/test_clocks")
