"""`flashslides stripe unmatched`: payments that credited nobody, and what is done about them."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.approvals import print_asked
from src.cli.choices import AMOUNT_MAX
from src.cli.output import AsJson, operator, print_record, print_rows
from src.cli.reach import get_settings, run_operation, run_reading
from src.cli.users import find_user
from src.cli.whose import in_each_group, is_sharding, routed_to_payment
from src.common.exceptions import Invalid

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from src.common.approvals.asking import Asked
    from src.common.approvals.payments import Settled, Settlement

app = typer.Typer(help="Unmatched payments: those that credited nobody.", no_args_is_help=True)


@app.command("list")
def list_unmatched(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the unmatched payments that are open, oldest first, each with its reason."""
    from src.common.purchases import unmatched

    settings = get_settings()
    if not is_sharding():
        found = run_reading(
            settings, lambda session: unmatched.open_unmatched_payments(session, limit)
        )
    else:
        noted = run_reading(settings, lambda session: unmatched.noted(session, limit))
        derived = in_each_group(
            lambda: run_reading(settings, lambda session: unmatched.derived(session, limit))
        )
        found = unmatched.oldest([*noted, *(each for some in derived for each in some)], limit)
    rows = [
        {
            "stripe_object_id": payment.stripe_object_id,
            "reason": payment.reason,
            "explanation": payment.explanation,
            "event_id": payment.event_id,
            "created_at": payment.created_at,
        }
        for payment in found
    ]
    print_rows(rows, as_json=as_json, empty="Every payment has been credited or resolved.")


@app.command("resolve")
def resolve_unmatched(
    stripe_object_id: Annotated[str, typer.Argument(help="The payment's id, as `list` shows it.")],
    *,
    note: Annotated[str, typer.Option(help="What was done about it.")],
    credit: Annotated[
        bool, typer.Option("--credit", help="Write the purchase and give its credits.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option(help="Who gets the credits: e-mail or id. Default: whom the payment names."),
    ] = None,
    credits_bought: Annotated[
        int | None,
        typer.Option(
            "--credits", min=1, max=AMOUNT_MAX, help="How many. Default: what the payment promises."
        ),
    ] = None,
    amount_cents: Annotated[
        int | None,
        typer.Option(min=0, max=AMOUNT_MAX, help="What was paid, if Stripe did not say it."),
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="In which currency, such as `usd`, if Stripe did not say it.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Allow more than CREDITS_MANUAL_LIMIT.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(help="The idempotency key, where it is asked for. Default: a new one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Close an unmatched payment. Nothing automatic credits it afterwards.

    With `--credit` it becomes a purchase, whatever the reason was. Refunds and disputes then take
    its credits back. Where APPROVALS_REQUIRED says so, crediting more than APPROVALS_CREDITS_ABOVE
    beyond what the money buys is asked for: another person has to consent.
    """
    from src.common.approvals.asking import Asked
    from src.common.approvals.payments import Settlement
    from src.common.purchases.resolutions import Ruling

    named = (user, credits_bought, amount_cents, currency)
    if not credit and any(each is not None for each in named):
        raise Invalid("credit: what is named is given with --credit only", "VALIDATION_ERROR")

    chosen = f"cli:{uuid.uuid4()}" if key is None else key

    def work(session: "Session") -> "Settled | Asked":
        user_id = find_user(session, user).user_id if user is not None else None
        ruling = Ruling(user_id, credits_bought, amount_cents, currency) if credit else None
        settlement = Settlement(stripe_object_id, note, operator(), chosen, ruling)
        return _resolve(session, settlement, is_sure=yes)

    route = routed_to_payment(stripe_object_id, user)
    settled = run_operation(get_settings(), work, route=route)
    if isinstance(settled, Asked):
        print_asked(settled, as_json=as_json)
        return
    print_record(_record(settled), as_json=as_json)


def _record(settled: "Settled") -> dict[str, Any]:
    row, purchase = settled.row, settled.purchase
    record: dict[str, Any] = {
        "stripe_object_id": row.stripe_object_id,
        "reason": row.reason,
        "status": row.status,
        "resolution": row.resolution,
        "resolved_at": row.resolved_at,
    }
    if purchase is not None:
        record |= {
            "transaction_id": purchase.transaction_id,
            "user_id": purchase.user_id,
            "credits": purchase.credits_added,
        }
    return record


def _resolve(session: "Session", settlement: "Settlement", *, is_sure: bool) -> "Settled | Asked":
    """Resolve it as whoever runs the command, or ask, where one person may not give so much."""
    from src.common.approvals.payments import Settled, resolve_or_ask
    from src.common.approvals.rules import Limits

    settings = get_settings()
    limits = Limits.of(settings) if settings.approvals_required else None
    settled = resolve_or_ask(session, settlement, limits)
    purchase = settled.purchase if isinstance(settled, Settled) else None
    limit = settings.credits_manual_limit
    if purchase is not None and purchase.credits_added > limit and not is_sure:
        raise Invalid(
            f"credits: more than {limit} (CREDITS_MANUAL_LIMIT) takes --yes",
            "VALIDATION_ERROR",
            field="credits",
        )
    return settled
