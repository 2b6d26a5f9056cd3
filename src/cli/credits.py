"""`flashslides credits …`: what a user has and why; `moves.py` moves credits by hand."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, print_json, print_record, print_rows, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, run_reading
from src.cli.replicas import FromReplica, answered_by, reader_in_reach, say_who_answered
from src.cli.users import EmailOrId, find_user, id_of
from src.cli.whose import routed_to_user
from src.common.time_zones import UTC

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

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
    from_replica: FromReplica = False,
    as_json: AsJson = False,
) -> None:
    """List the movements of a user's credits, newest first."""
    from src.common.credits import queries

    with reader_in_reach(from_replica=from_replica) as reader, routed_to_user(user):
        found = reader.read(queries.history, id_of(user), cursor=cursor, limit=limit)
    say_who_answered(found.read_from)
    page = found.value
    rows = list(map(asdict if as_json else entry_row, page.items))
    print_page(
        rows,
        page.next_cursor,
        as_json=as_json,
        empty="There are no entries yet.",
        **answered_by(found.read_from),
    )


@app.command("explain")
def explain(user: EmailOrId, *, from_replica: FromReplica = False, as_json: AsJson = False) -> None:
    """Show why a balance is what it is: sums by kind, and the lots, holds and debts behind it."""
    from src.common.credits import queries

    with reader_in_reach(from_replica=from_replica) as reader, routed_to_user(user):
        found = reader.read(queries.explain, id_of(user))
    say_who_answered(found.read_from)
    if as_json:
        print_json(_explanation_as_answered(found.value) | answered_by(found.read_from))
    else:
        _print_explanation(found.value)


def read(user: str, reading: "Callable[[Session, uuid.UUID], T]") -> T:
    """What `reading` finds of the user of this e-mail or id."""
    return run_reading(
        get_settings(),
        lambda session: reading(session, find_user(session, user).user_id),
        route=routed_to_user(user),
    )


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
