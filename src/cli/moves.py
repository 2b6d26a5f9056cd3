"""`flashslides credits …`: moving credits by hand, alone or with a second person's consent."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from src.cli.approvals import print_asked
from src.cli.credits import entry_row, print_section, read
from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, operator, print_json, print_record, say
from src.cli.reach import get_settings, migrated_database, run_operation
from src.cli.refunds import refund
from src.cli.users import EmailOrId, find_user
from src.cli.whose import routed_to_user
from src.common.exceptions import Conflict, Invalid
from src.common.time_zones import UTC

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from src.common.approvals.asking import Asked
    from src.common.credits.domain.commands import Command, Result
    from src.common.credits.domain.views import Preview

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


def register(app: typer.Typer) -> None:
    """Add the commands to the `credits` group."""
    app.command("refund")(refund)
    app.command("grant")(grant)
    app.command("spend")(spend)
    # Without this -5 would be taken for an option.
    app.command("adjust", context_settings={"ignore_unknown_options": True})(adjust)
    app.command("reverse")(reverse)


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
    """Do it as whoever runs the command, or ask for it, or say what it would do."""
    from src.common.credits.domain.commands import Result

    chosen = str(uuid.uuid4()) if key is None else key

    def command(user_id: uuid.UUID) -> "Command":
        return kind(user_id=user_id, key=chosen, actor=operator(), **facts)

    if dry_run:
        foreseen = read(user, lambda session, user_id: _foresee(session, command(user_id)))
        _print_preview(foreseen, as_json=as_json)
        return
    with migrated_database(get_settings()):
        if key is None:
            say(f"If this is cut off, run it again with --key {chosen}", err=True)
        done = run_operation(
            get_settings(),
            lambda session: _execute(session, command(find_user(session, user).user_id)),
            route=routed_to_user(user),
        )
    if not isinstance(done, Result):
        print_asked(done, as_json=as_json)
        return
    shown = asdict(done) if as_json else _result_record(done)
    print_record({"idempotency_key": chosen, **shown}, as_json=as_json)


def _execute(session: "Session", command: "Command") -> "Result | Asked":
    """Do it, or ask for another person's consent where the settings want that of commands."""
    from src.common.approvals.operations import execute_or_ask
    from src.common.approvals.rules import Limits
    from src.common.credits.domain.commands import Adjust, Grant, Release, Reverse
    from src.common.credits.operations import execute

    settings = get_settings()
    if isinstance(command, Grant | Adjust | Reverse | Release):
        limits = Limits.of(settings) if settings.approvals_required else None
        return execute_or_ask(session, command, limits)
    return execute(session, [command])[0]


def _foresee(session: "Session", command: "Command") -> "tuple[Preview, bool]":
    """What a command would do, and whether that takes another person's consent."""
    from src.common.approvals.operations import takes_consent
    from src.common.approvals.rules import Limits
    from src.common.credits import queries
    from src.common.credits.domain.commands import Adjust, Grant, Release, Reverse

    settings = get_settings()
    preview = queries.preview(session, command)
    takes_two = (
        settings.approvals_required
        and isinstance(command, Grant | Adjust | Reverse | Release)
        and takes_consent(session, command, preview.result.amount, Limits.of(settings))
    )
    return preview, takes_two


def _print_preview(foreseen: "tuple[Preview, bool]", *, as_json: bool) -> None:
    preview, takes_two = foreseen
    if as_json:
        entries = list(map(asdict, preview.entries))
        print_json(asdict(preview.result) | {"entries": entries, "takes_consent": takes_two})
        return
    print_record(_result_record(preview.result), as_json=False)
    print_section("It would write", map(entry_row, preview.entries))
    if takes_two:
        say("\nIt would be asked for: another person has to consent.")


def _result_record(result: "Result") -> dict[str, Any]:
    """What people are shown: without what only holds have, such as an expiry."""
    return {name: value for name, value in asdict(result).items() if value is not None}
