"""`flashslides credits refund`: pay a purchase back, by hand."""

import uuid
from typing import Annotated

import typer

from src.cli.output import AsJson, operator, print_record
from src.cli.reach import run_with_stripe
from src.common.purchases.refunds import RefundWish
from src.common.settings import get_settings
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import StripeGatewayError
from src.common.stripe.processing import InDatabase
from src.common.stripe.refunds import Refunded, refund_payment


def refund(
    transaction_id: Annotated[
        uuid.UUID, typer.Argument(help="The purchase, as the API's transactions show it.")
    ],
    *,
    amount_cents: Annotated[
        int | None, typer.Option(min=1, help="How much; left out, all that is left.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Kept with the request.")] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: the same again with it is done once."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pay a purchase back through Stripe; the credits it bought go back with it."""
    settings = get_settings()
    wish = RefundWish(
        transaction_id=transaction_id,
        key=f"cli:{uuid.uuid4()}" if key is None else key,
        actor=operator(),
        amount_cents=amount_cents,
        reason=reason,
    )

    async def work(in_database: InDatabase, gateway: Gateway | None) -> Refunded:
        return await refund_payment(in_database, gateway, settings, wish)

    try:
        refunded = run_with_stripe(settings, work)
    except StripeGatewayError:
        typer.echo(f"It may be paid back all the same: ask again with --key {wish.key}", err=True)
        raise
    print_record(
        {
            "refund_id": refunded.refund_id,
            "amount_cents": refunded.amount_cents,
            "replayed": refunded.replayed,
            "key": wish.key,
        },
        as_json=as_json,
    )
