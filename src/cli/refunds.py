"""`flashslides credits refund`: pay a purchase back by hand, and go on with what was cut off."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.approvals import print_asked
from src.cli.output import AsJson, operator, print_record, print_rows, say
from src.cli.reach import get_settings, migrated_database, run_reading, run_with_stripe
from src.cli.whose import in_each_group, routed_to_purchase
from src.common.exceptions import ExceptionWithErrorType, Invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from src.common.approvals.asking import Asked
    from src.common.models.refund_request import RefundRequest
    from src.common.purchases.refunds import RefundWish
    from src.common.settings import Settings
    from src.common.stripe.gateway import Gateway
    from src.common.stripe.processing import InDatabase
    from src.common.stripe.refunds import Refunded

LISTED_MAX = 1_000


def refund(
    transaction_id: Annotated[
        uuid.UUID | None,
        typer.Argument(help="The purchase's id, as `purchases list` shows it."),
    ] = None,
    *,
    amount_cents: Annotated[
        int | None, typer.Option(min=1, help="How much, in cents. Default: all that is left.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why. Kept with the request.")] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: a request is done once for each key."),
    ] = None,
    list_open: Annotated[
        bool,
        typer.Option(
            "--list", help="List the requests that were cut off. Their amounts stay reserved."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with requests that were cut off.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pay a purchase back through Stripe, and take back the credits it bought.

    A request that was cut off may have reached Stripe or not. `--resume` asks Stripe, and pays back
    if it did not. After a day the worker closes the requests that Stripe never heard of.
    """
    if list_open or resume:
        if list_open == resume or (amount_cents, reason, key) != (None, None, None):
            raise Invalid("Name --list or --resume, and at most a purchase", "VALIDATION_ERROR")
        (_list if list_open else _resume)(transaction_id, as_json=as_json)
        return
    if transaction_id is None:
        raise Invalid("transaction_id: name a purchase", "VALIDATION_ERROR", field="transaction_id")
    from src.cli.running_stripe import with_running_stripe
    from src.common.purchases.refunds import RefundWish
    from src.common.stripe.refunds import Refunded

    wish = RefundWish(
        transaction_id=transaction_id,
        key=f"cli:{uuid.uuid4()}" if key is None else key,
        actor=operator(),
        amount_cents=amount_cents,
        reason=reason,
    )
    settings = with_running_stripe(get_settings())

    with migrated_database(settings):
        if key is None:
            say(f"If this is cut off, run it again with --key {wish.key}", err=True)
        refunded = _refund(settings, wish)
    if not isinstance(refunded, Refunded):
        print_asked(refunded, as_json=as_json)
        return
    print_record(
        {
            "refund_id": refunded.refund_id,
            "amount_cents": refunded.amount_cents,
            "replayed": refunded.replayed,
            "idempotency_key": wish.key,
        },
        as_json=as_json,
    )


def _refund(settings: "Settings", wish: "RefundWish") -> "Refunded | Asked":
    """Pay back, or ask for another person's consent where the settings want that of commands."""
    from src.common.approvals.refunds import refund_or_ask
    from src.common.approvals.rules import Limits

    async def work(in_database: "InDatabase", gateway: "Gateway | None") -> "Refunded | Asked":
        limits = Limits.of(settings) if settings.approvals_required else None
        return await refund_or_ask(in_database, gateway, settings, wish, limits)

    return run_with_stripe(settings, work, route=routed_to_purchase(wish.transaction_id))


def _list(transaction_id: uuid.UUID | None, *, as_json: bool) -> None:
    from src.common.purchases.refunds import open_requests

    def read() -> "Sequence[RefundRequest]":
        return run_reading(
            get_settings(),
            lambda session: open_requests(session, transaction_id=transaction_id, limit=LISTED_MAX),
        )

    found = [each for requests in in_each_group(read) for each in requests]
    rows = [
        {
            "transaction_id": request.transaction_id,
            "idempotency_key": request.idempotency_key,
            "amount_cents": request.amount_cents,
            "reason": request.reason,
            "actor": request.actor,
            "created_at": request.created_at,
        }
        for request in found
    ]
    print_rows(rows, as_json=as_json, empty="No refund was cut off.")


def _resume(transaction_id: uuid.UUID | None, *, as_json: bool) -> None:
    """Go on with each; one that fails says so, and the others are gone on with."""
    from src.cli.running_stripe import with_running_stripe
    from src.common.purchases.refunds import open_requests
    from src.common.stripe.refunds import resume_refund

    settings = with_running_stripe(get_settings())

    async def work(in_database: "InDatabase", gateway: "Gateway | None") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        requests = await in_database(
            lambda session: open_requests(session, transaction_id=transaction_id, limit=LISTED_MAX)
        )
        for request in requests:
            row = {
                "transaction_id": request.transaction_id,
                "idempotency_key": request.idempotency_key,
            }
            try:
                refunded = await resume_refund(in_database, gateway, settings, request)
            except ExceptionWithErrorType as error:
                failure = f"{error.error_type}: {error.message}"
                rows.append({**row, "refund_id": None, "error": failure})
            else:
                rows.append({**row, "refund_id": refunded.refund_id, "error": None})
        return rows

    done = in_each_group(lambda: run_with_stripe(settings, work))
    rows = [row for of_group in done for row in of_group]
    print_rows(rows, as_json=as_json, empty="No refund was cut off.")
    if any(row["error"] for row in rows):
        raise typer.Exit(1)
