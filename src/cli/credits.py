"""`flashslides credits …`: what a user has and why, and moving credits by hand."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, operator, print_json, print_record, print_rows, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, migrated_database, run_operation
from src.cli.refunds import refund
from src.cli.users import EmailOrId, find_user
from src.common.exceptions import Conflict, Invalid
from src.common.time_zones import UTC

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from src.common.credits.domain.commands import Command, Result
    from src.common.credits.domain.views import (
        Balance,
        Explanation,
        GrantedPurchase,
        HistoryEntry,
        HoldState,
    )

T = TypeVar("T")

app = typer.Typer(
    help="Credits: show, history, explain, grant, spend, adjust, reverse, holds, refund.",
    no_args_is_help=True,
)
app.command("refund")(refund)

GrantSource = Literal["promo", "subscription", "adjustment"]
"""What somebody may give: `Grant.sources`, as a choice that the command line can offer."""
Amount = Annotated[int, typer.Argument(help="Whole credits, 1 or more.")]
Reference = Annotated[str | None, typer.Option(help="What it is for. Kept in the journal.")]
Key = Annotated[
    str | None,
    typer.Option(help="Idempotency key: a request is done once for each key. Default: a new key."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Allow more than CREDITS_MANUAL_LIMIT.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command("show")
def show(
    user: EmailOrId,
    *,
    as_of: Annotated[str | None, typer.Option(help=f"A past instant, as {EXAMPLES}.")] = None,
    time_zone: TimeZone = UTC,
    as_json: AsJson = False,
) -> None:
    """Show a user's balance, held credits, debt and lots."""
    from msgspec import structs

    from src.common.credits import queries

    then = instant("--as-of", as_of, time_zone)
    found = read(user, lambda session, user_id: queries.balance(session, user_id, as_of=then))
    if as_json:
        print_json(asdict(found))
        return
    print_record(_balance_record(found), as_json=False)
    print_section("Lots, in the order they are spent", [structs.asdict(lot) for lot in found.lots])


@app.command("history")
def history(
    user: EmailOrId,
    *,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List the movements of a user's credits, newest first."""
    from src.common.credits import queries

    page = read(
        user,
        lambda session, user_id: queries.history(session, user_id, cursor=cursor, limit=limit),
    )
    rows = list(map(asdict if as_json else entry_row, page.items))
    print_page(rows, page.next_cursor, as_json=as_json, empty="There are no entries yet.")


@app.command("explain")
def explain(user: EmailOrId, *, as_json: AsJson = False) -> None:
    """Show why a balance is what it is: sums by kind, and the lots, holds and debts behind it."""
    from src.common.credits import queries

    found = read(user, queries.explain)
    if as_json:
        print_json(_explanation_as_answered(found))
    else:
        _print_explanation(found)


@app.command("grant")
def grant(  # noqa: PLR0913  a command has the options it has
    user: EmailOrId,
    amount: Amount,
    *,
    source: Annotated[
        GrantSource, typer.Option(help="Why they are given. The source decides the priority.")
    ] = "promo",
    priority: Annotated[
        int | None,
        typer.Option(help="Lower numbers are spent first. Default: the source's priority."),
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(help=f"When they expire, as {EXAMPLES}. Default: never.")
    ] = None,
    time_zone: TimeZone = UTC,
    reference: Reference = None,
    key: Key = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give credits that nobody paid for.

    Credits that were paid for come from their payment. See `stripe unmatched resolve --credit`.
    """
    from src.common.credits.domain.commands import Grant
    from src.common.models.credit_lot import LotSource

    _check_limit(amount, is_sure=yes or dry_run)
    facts = {
        "amount": amount,
        "source": LotSource(source),
        "priority": priority,
        "expires_at": instant("--expires-at", expires_at, time_zone),
        "reference": reference,
    }
    move(Grant, user, facts, key=key, dry_run=dry_run, as_json=as_json)


@app.command("spend")
def spend(
    user: EmailOrId,
    amount: Amount,
    *,
    reference: Reference = None,
    key: Key = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Spend a user's credits."""
    from src.common.credits.domain.commands import Spend

    facts = {"amount": amount, "reference": reference}
    move(Spend, user, facts, key=key, dry_run=dry_run, as_json=as_json)


# Without this -5 would be taken for an option.
@app.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust(
    user: EmailOrId,
    amount: Annotated[int, typer.Argument(help="Credits to add. With a minus: credits to take.")],
    *,
    reason: Annotated[str, typer.Option(help="Why. Kept in the journal for ever.")],
    key: Key = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Correct a balance, up or down. It cannot go below 0."""
    from src.common.credits.domain.commands import Adjust

    _check_limit(amount, is_sure=yes or dry_run)
    facts = {"amount": amount, "reason": reason}
    move(Adjust, user, facts, key=key, dry_run=dry_run, as_json=as_json)


@app.command("reverse")
def reverse(
    user: EmailOrId,
    seq: Annotated[int, typer.Argument(help="The entry's number. Of captures: the hold's.")],
    *,
    amount: Annotated[
        int | None, typer.Option(help="Whole credits. Default: all that is left of the entry.")
    ] = None,
    as_far_as_possible: Annotated[
        bool,
        typer.Option(
            "--as-far-as-possible", help="Of a grant: take what is left, even if it is less."
        ),
    ] = False,
    reason: Annotated[str, typer.Option(help="Why. Kept in the journal for ever.")],
    key: Key = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Undo a spend, a hold's captures, a grant or an adjustment, in the lots that it moved."""
    from src.common.credits.domain.commands import Reverse

    facts = {
        "seq": seq,
        "amount": amount,
        "as_far_as_possible": as_far_as_possible,
        "reason": reason,
    }
    if not (yes or dry_run):
        _check_limit(_given_by(user, facts), is_sure=False)
    move(Reverse, user, facts, key=key, dry_run=dry_run, as_json=as_json)


def _given_by(user: str, facts: "Mapping[str, Any]") -> int:
    """How much a reversal would give; 0 where it is refused, or was done before with its key."""
    from src.common.credits import queries
    from src.common.credits.domain.commands import Reverse
    from src.common.credits.domain.errors import InsufficientCredits

    def foresee(session: "Session", user_id: uuid.UUID) -> int:
        asked = Reverse(user_id=user_id, key="foreseen", actor=operator(), **facts)
        return queries.preview(session, asked).result.amount

    try:
        return read(user, foresee)
    except (Conflict, Invalid, InsufficientCredits):
        return 0


def read(user: str, reading: "Callable[[Session, uuid.UUID], T]") -> T:
    """What `reading` finds of the user of this e-mail or id."""
    return run_operation(
        get_settings(), lambda session: reading(session, find_user(session, user).user_id)
    )


def _check_limit(amount: int, *, is_sure: bool) -> None:
    limit = get_settings().credits_manual_limit
    if amount > limit and not is_sure:
        raise Invalid(
            f"amount: more than {limit} (CREDITS_MANUAL_LIMIT) takes --yes", "VALIDATION_ERROR"
        )


def move(
    kind: "Callable[..., Command]",
    user: str,
    facts: Mapping[str, Any],
    *,
    key: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do it as whoever runs the command, or say what it would do."""
    from src.common.credits import queries
    from src.common.credits.operations import execute

    chosen = str(uuid.uuid4()) if key is None else key

    def command(user_id: uuid.UUID) -> "Command":
        return kind(user_id=user_id, key=chosen, actor=operator(), **facts)

    if dry_run:
        preview = read(user, lambda session, user_id: queries.preview(session, command(user_id)))
        if as_json:
            print_json(asdict(preview.result) | {"entries": list(map(asdict, preview.entries))})
            return
        print_record(_result_record(preview.result), as_json=False)
        print_section("It would write", map(entry_row, preview.entries))
    else:
        with migrated_database(get_settings()):
            if key is None:
                say(f"If this is cut off, run it again with --key {chosen}", err=True)
            [result] = read(user, lambda session, user_id: execute(session, [command(user_id)]))
        shown = asdict(result) if as_json else _result_record(result)
        print_record({"idempotency_key": chosen, **shown}, as_json=as_json)


def _result_record(result: "Result") -> dict[str, Any]:
    """What people are shown: without what only holds have, such as an expiry."""
    return {name: value for name, value in asdict(result).items() if value is not None}


def _explanation_as_answered(found: "Explanation") -> dict[str, Any]:
    """As the API answers it: an entry beside the fields of the lot or hold that it made."""
    from msgspec import structs

    return asdict(found) | {
        "lots": [structs.asdict(it.lot) | {"entry": asdict(it.entry)} for it in found.lots],
        "holds": list(map(hold_as_answered, found.holds)),
    }


def hold_as_answered(state: "HoldState") -> dict[str, Any]:
    """As the API answers it."""
    return hold_record(state) | {"entry": asdict(state.entry)}


def hold_record(state: "HoldState") -> dict[str, Any]:
    """A hold by itself: how it stands, and not which lots it came from."""
    hold = state.hold
    return {
        "seq": hold.seq,
        "amount": hold.amount,
        "captured": hold.captured,
        "status": hold.status,
        "expires_at": hold.expires_at,
    }


def _print_explanation(found: "Explanation") -> None:
    from msgspec import structs

    record = {
        **_balance_record(found.now),
        "booked_balance": found.booked_balance,
        "sums_agree": "yes" if found.agrees else "NO: run `flashslides verify`",
    }
    print_record(record, as_json=False)
    totals = found.total_by_kind.items()
    print_section("All entries", [{"kind": kind, "credits": total} for kind, total in totals])
    print_section("Due, not booked yet", map(entry_row, found.due))
    print_section(
        "Lots, in the order they are spent",
        [structs.asdict(each.lot) | _origin(each.entry) for each in found.lots],
    )
    print_section(
        "Open holds",
        [
            {
                "seq": each.hold.seq,
                "amount": each.hold.amount,
                "captured": each.hold.captured,
                "expires_at": each.hold.expires_at,
                **_origin(each.entry),
            }
            for each in found.holds
        ],
    )
    print_section(
        "Debts",
        [
            {
                "payment": each.entry.seq,
                "outstanding": each.outstanding,
                "paid_at": each.entry.effective_at,  # the debt itself is younger
                "reference": each.entry.reference,
                "actor": each.entry.actor,
            }
            for each in found.debts
        ],
    )


def print_section(title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """A table under its title, where there is anything to show."""
    shown = list(rows)
    if shown:
        say(f"\n{title}")
        print_rows(shown, as_json=False, empty="")


def _balance_record(found: "Balance") -> dict[str, Any]:
    return {
        "balance": found.balance,
        "held": found.held,
        "debt": found.debt,
        "next_expiry": found.next_expiry,
        "version": found.version,
    }


def _origin(entry: "HistoryEntry") -> dict[str, Any]:
    return {"since": entry.effective_at, "reference": entry.reference, "actor": entry.actor}


def entry_row(entry: "HistoryEntry") -> dict[str, Any]:
    """What people are shown of an entry."""
    return {
        "seq": entry.seq,
        "effective_at": entry.effective_at,
        "kind": entry.kind,
        "amount": entry.amount,
        "balance_after": entry.balance_after,
        "captured": entry.captured,
        "related_seq": entry.related_seq,
        "reference": entry.reference,
        "purchase": _purchase_text(entry.purchase),
        "actor": entry.actor,
    }


def _purchase_text(purchase: "GrantedPurchase | None") -> str | None:
    """What a grant was bought with: package, price in the currency's smallest unit, session."""
    if purchase is None:
        return None
    paid = f"{purchase.amount_paid_cents} {purchase.currency} cents"
    package = [] if purchase.package_id is None else [f"package {purchase.package_id}"]
    return ", ".join([*package, paid, purchase.stripe_session_id])
