"""`flashslides approvals …`: what others ask for, and consenting to it or not."""

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli import exit_codes
from src.cli.choices import ApprovalStatusName
from src.cli.credits import entry_row, print_section
from src.cli.output import AsJson, operator, print_json, print_record, say
from src.cli.pages import Cursor, Limit, print_page
from src.cli.reach import get_settings, run_operation, run_reading, run_with_stripe
from src.cli.users import find_user
from src.cli.whose import id_in_reach, in_each_group, is_sharding, routed_to_approval
from src.common.exceptions import ExceptionWithErrorType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from src.common.approvals.asking import Asked
    from src.common.approvals.queries import ApprovalState, Foreseen
    from src.common.models.approval import Approval
    from src.common.postgres.pagination import Page
    from src.common.stripe.gateway import Gateway
    from src.common.stripe.processing import InDatabase

app = typer.Typer(
    help="Requests that take another person's consent: list, show, consent, refuse, withdraw.",
    no_args_is_help=True,
)
ApprovalId = Annotated[uuid.UUID, typer.Argument(help="The request's id, as `list` shows it.")]
Note = Annotated[str | None, typer.Option(help="What there is to say about it. Kept with it.")]


@app.command("list")
def list_approvals(
    *,
    status: Annotated[
        ApprovalStatusName, typer.Option(help="Only requests that stand so.")
    ] = "open",
    user: Annotated[
        str | None, typer.Option(help="Only requests about this user: e-mail or id.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List the requests that wait for another person, newest first, or those decided."""
    from src.common.approvals import queries
    from src.common.approvals.rules import ApprovalStatus

    user_id = None if user is None or not is_sharding() else id_in_reach(user)

    def work(session: "Session") -> "Page[ApprovalState]":
        whose = (
            find_user(session, user).user_id if user is not None and user_id is None else user_id
        )
        return queries.list_approvals(
            session,
            status=ApprovalStatus(status),
            user_id=whose,
            cursor=cursor,
            limit=limit,
        )

    pages = in_each_group(lambda: run_reading(get_settings(), work))
    page = pages[0] if len(pages) == 1 else queries.merge_states(pages)
    rows = list(map(_record if as_json else _row, page.items))
    print_page(rows, page.next_cursor, as_json=as_json, empty=f"No request is {status}.")


@app.command("show")
def show(approval_id: ApprovalId, *, as_json: AsJson = False) -> None:
    """Show a request, who asked and decided, and what consent to it would do now."""
    from src.common.approvals import queries
    from src.common.approvals.rules import ApprovalStatus

    def work(
        session: "Session",
    ) -> "tuple[ApprovalState, Foreseen | ExceptionWithErrorType | None]":
        found = queries.find_approval(session, approval_id)
        if found.status is not ApprovalStatus.OPEN:
            return found, None
        try:
            return found, queries.preview(session, found)
        except ExceptionWithErrorType as refused:
            return found, refused

    found, foreseen = run_reading(get_settings(), work, route=routed_to_approval(approval_id))
    if as_json:
        print_json(_record(found) | {"preview": _preview(foreseen)})
        return
    print_record(_record(found), as_json=False)
    _print_foreseen(foreseen)


@app.command("consent")
def consent(approval_id: ApprovalId, *, note: Note = None, as_json: AsJson = False) -> None:
    """Consent to what another person asked for. It is done at once, and once only."""
    from src.cli.running_stripe import with_running_stripe
    from src.common.approvals import refunds

    settings, decider = with_running_stripe(get_settings()), operator()

    async def work(in_database: "InDatabase", gateway: "Gateway | None") -> "ApprovalState":
        return await refunds.consent(
            in_database, gateway, settings, approval_id, decider=decider, note=note
        )

    route = routed_to_approval(approval_id)
    print_record(_record(run_with_stripe(settings, work, route=route)), as_json=as_json)


@app.command("refuse")
def refuse(approval_id: ApprovalId, *, note: Note = None, as_json: AsJson = False) -> None:
    """Refuse what another person asked for. It is never done."""
    from src.common.approvals import operations

    _decide(operations.refuse, approval_id, note, as_json=as_json)


@app.command("withdraw")
def withdraw(approval_id: ApprovalId, *, note: Note = None, as_json: AsJson = False) -> None:
    """Take back what you asked for yourself. It is never done."""
    from src.common.approvals import operations

    _decide(operations.withdraw, approval_id, note, as_json=as_json)


def print_asked(asked: "Asked", *, as_json: bool, **others: str) -> None:
    """Say that nothing is done yet, and what is next; ends the command with its own exit code.

    `others` is what only whoever asks gets to know.
    """
    approval = asked.approval
    record = {
        "status": "asked",
        "approval_id": approval.approval_id,
        "expires_at": approval.expires_at,
        "idempotency_key": approval.idempotency_key,
        "replayed": asked.replayed,
        **others,
    }
    print_record(record, as_json=as_json)
    say(
        "Nothing was done yet. Another person consents with\n"
        f"  flashslides approvals consent {approval.approval_id}",
        err=True,
    )
    raise typer.Exit(exit_codes.ASKED)


def _decide(
    decision: "Callable[..., Approval]", approval_id: uuid.UUID, note: str | None, *, as_json: bool
) -> None:
    from src.common.approvals import queries

    def work(session: "Session") -> "ApprovalState":
        decision(session, approval_id, decider=operator(), note=note)
        return queries.find_approval(session, approval_id)

    route = routed_to_approval(approval_id)
    print_record(_record(run_operation(get_settings(), work, route=route)), as_json=as_json)


def _row(state: "ApprovalState") -> dict[str, Any]:
    """What a list shows people."""
    approval = state.approval
    command = approval.command
    return {
        "approval_id": approval.approval_id,
        "status": str(state.status),
        "operation": command.get("operation"),
        "user_id": approval.user_id,
        "amount": command.get("amount"),
        "amount_cents": command.get("amount_cents"),
        "reason": approval.reason,
        "requester": approval.requester,
        "expires_at": approval.expires_at,
        "decider": approval.decider,
    }


def _record(state: "ApprovalState") -> dict[str, Any]:
    from src.common.approvals.forms import shown

    approval, refund = state.approval, state.refund
    return {
        "approval_id": approval.approval_id,
        "status": str(state.status),
        "user_id": approval.user_id,
        "transaction_id": approval.transaction_id,
        "command": shown(approval.command),
        "reason": approval.reason,
        "requester": approval.requester,
        "idempotency_key": approval.idempotency_key,
        "created_at": approval.created_at,
        "expires_at": approval.expires_at,
        "decider": approval.decider,
        "decided_at": approval.decided_at,
        "note": approval.note,
        "entry_seq": state.entry_seq,
        "refund_status": refund and refund.status,
        "refund_id": refund and refund.refund_id,
        "refund_error": refund and refund.error,
    }


def _preview(
    foreseen: "Foreseen | ExceptionWithErrorType | None",
) -> dict[str, Any] | None:
    """As programs get it."""
    if foreseen is None:
        return None
    if isinstance(foreseen, ExceptionWithErrorType):
        return {"error_type": foreseen.error_type, "message": foreseen.message}
    from src.common.approvals.forms import KeyForm

    return None if isinstance(foreseen, KeyForm) else asdict(foreseen)


def _print_foreseen(
    foreseen: "Foreseen | ExceptionWithErrorType | None",
) -> None:
    from src.common.approvals.payments import PaymentPreview
    from src.common.approvals.queries import RefundPreview
    from src.common.credits.domain.views import Preview

    if isinstance(foreseen, ExceptionWithErrorType):
        say(f"\nConsent would be refused now: {foreseen.message} ({foreseen.error_type})")
    elif isinstance(foreseen, Preview):
        print_section("Consent would write", map(entry_row, foreseen.entries))
    elif isinstance(foreseen, RefundPreview):
        print_section("Consent would pay back", [asdict(foreseen)])
    elif isinstance(foreseen, PaymentPreview):
        print_section("Consent would credit", [asdict(foreseen)])
    elif foreseen is not None:
        say("\nConsent would have the key work.")
