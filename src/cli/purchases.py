"""`flashslides purchases …`: what was bought, what is left of it, and all about one purchase."""

import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.choices import PurchaseStateName
from src.cli.credits import entry_row, print_section
from src.cli.group_lists import read_everybodys
from src.cli.output import AsJson, print_json, print_record
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, run_reading
from src.cli.replicas import FromReplica, answered_by, reader_in_reach, say_who_answered
from src.cli.users import id_of
from src.cli.whose import in_first_group

if TYPE_CHECKING:
    from src.common.models.refund_request import RefundRequest
    from src.common.models.stripe_reversal import StripeReversal
    from src.common.purchases.queries import Purchase, PurchaseDetails

app = typer.Typer(help="Purchases: list, show.", no_args_is_help=True)


@app.command("list")
def list_purchases(
    *,
    user: Annotated[
        str | None, typer.Option(help="Only purchases of this user: e-mail or id.")
    ] = None,
    month: Annotated[
        dt.datetime | None,
        typer.Option(
            formats=["%Y-%m"], metavar="YYYY-MM", help="Only purchases of this month, in UTC."
        ),
    ] = None,
    state: Annotated[
        PurchaseStateName | None, typer.Option(help="Only purchases in this state.")
    ] = None,
    stripe_id: Annotated[
        str | None,
        typer.Option(
            help="Only purchases with this id of Stripe's: a session, PaymentIntent, invoice, "
            "customer, refund, dispute or credit note."
        ),
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """List purchases, newest first, with the credits left of each.

    With `--state paid` or `--state uncredited` and nothing else, all purchases are read. With a
    user, a month or an id they are not.
    """
    from src.common.purchases import queries
    from src.common.purchases.queries import PurchaseFilter, PurchaseState

    since = month and month.replace(tzinfo=dt.UTC)

    with reader_in_reach(from_replica=from_replica) as reader:
        wanted = PurchaseFilter(
            user_id=None if user is None else id_of(user),
            since=since,
            until=since and _next_month(since),
            state=None if state is None else PurchaseState(state),
            stripe_id=stripe_id,
        )
        found = read_everybodys(
            reader,
            queries.list_purchases,
            wanted,
            merge=lambda pages: queries.merge_purchases(pages, limit),
            cursor=cursor,
            limit=limit,
        )
    say_who_answered(found.read_from)
    page = found.value
    rows = list(map(_row, page.items))
    print_page(
        rows,
        page.next_cursor,
        as_json=as_json,
        empty="No purchase is as asked for.",
        **answered_by(found.read_from),
    )


@app.command("show")
def show(
    purchase: Annotated[
        str, typer.Argument(help="Its id, or an id of Stripe's: session, PaymentIntent, refund …")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one purchase: what was paid, credited, spent and paid back, and its entries."""
    from src.common.purchases import queries

    found = in_first_group(
        lambda: run_reading(
            get_settings(), lambda session: queries.find_purchase(session, purchase)
        )
    )
    record = _row(found.purchase) | _more(found)
    reversals = list(map(_reversal_row, found.reversals))
    requests = list(map(_request_row, found.refund_requests))
    if as_json:
        sections = {
            "reversals": reversals,
            "refund_requests": requests,
            "entries": list(map(asdict, found.entries)),
        }
        print_json(record | sections)
        return
    print_record(record, as_json=False)
    print_section("Refunds, disputes and credit notes", reversals)
    print_section("Refunds asked for", requests)
    print_section("Entries", map(entry_row, found.entries))


def _next_month(first: dt.datetime) -> dt.datetime | None:
    """None after the last that a calendar has."""
    try:
        return (first + dt.timedelta(days=31)).replace(day=1)
    except OverflowError:
        return None


def _row(found: "Purchase") -> dict[str, Any]:
    bought = found.transaction
    return {
        "transaction_id": bought.transaction_id,
        "created_at": bought.created_at,
        "user_id": bought.user_id,
        "state": str(found.state),
        "package_id": found.package_id,
        "amount_paid_cents": bought.amount_paid_cents,
        "currency": bought.currency,
        "credits_added": bought.credits_added,
        "credits_left": found.credits_left,
        "stripe_session_id": bought.stripe_session_id,
    }


def _more(found: "PurchaseDetails") -> dict[str, Any]:
    bought, order = found.purchase.transaction, found.order
    return {
        "payment_intent_id": bought.payment_intent_id,
        "invoice_id": bought.invoice_id,
        "stripe_account": bought.stripe_account,
        "livemode": bought.livemode,
        "refunded_cents": bought.refunded_cents,
        "disputed_cents": bought.disputed_cents,
        "lot_seq": found.purchase.lot_seq,
        "predates_ledger": bought.predates_ledger,
        "order_id": order.order_id if order else None,
        "order_amount_cents": order.amount_cents if order else None,
        "order_created_at": order.created_at if order else None,
    }


def _reversal_row(reversal: "StripeReversal") -> dict[str, Any]:
    return {
        "reversal_id": reversal.reversal_id,
        "kind": reversal.kind,
        "status": reversal.status,
        "amount_cents": reversal.amount_cents,
        "currency": reversal.currency,
        "created_at": reversal.created_at,
    }


def _request_row(request: "RefundRequest") -> dict[str, Any]:
    return {
        "idempotency_key": request.idempotency_key,
        "amount_cents": request.amount_cents,
        "status": request.status,
        "refund_id": request.refund_id,
        "reason": request.reason,
        "actor": request.actor,
        "error": request.error,
        "created_at": request.created_at,
    }
