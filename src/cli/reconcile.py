"""`flashslides stripe reconcile`: Stripe's objects and events beside ours."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from src.cli.instants import EXAMPLES, TimeZone, instant
from src.cli.output import AsJson, print_record, print_rows, say
from src.cli.reach import get_settings, run_with_stripe
from src.common.exceptions import Invalid, NotFound
from src.common.time_zones import UTC

if TYPE_CHECKING:
    from src.common.models.reconciliation import Reconciliation
    from src.common.stripe.findings import Page
    from src.common.stripe.gateway import Gateway
    from src.common.stripe.gateway_errors import StripeGatewayError
    from src.common.stripe.processing import InDatabase, Processor


def reconcile(
    *,
    since: Annotated[
        str | None,
        typer.Option(help=f"Compare what was made at Stripe from this instant on, as {EXAMPLES}."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Compare what was made before this instant. Default: now.")
    ] = None,
    time_zone: TimeZone = UTC,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what differs.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the newest run that was cut off."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare Stripe's objects and events with the database.

    Every difference is printed, repaired or not. Exit code 1 means that one is left. Stripe lists
    events for 30 days.

    The service's own account is compared first, then each account that STRIPE_CONNECTED_ACCOUNTS
    names. If an account cannot be compared, it is named, and the others are compared. --resume then
    goes on with it.
    """
    if resume == (since is not None) or (resume and (repair or until is not None)):
        raise Invalid(
            "Name --since; or --resume alone, which goes on with a run as it was begun",
            "VALIDATION_ERROR",
        )
    begin, end = instant("--since", since, time_zone), instant("--until", until, time_zone)
    from src.cli.running_stripe import with_running_stripe
    from src.common.purchases import reconciliations
    from src.common.stripe.processing import Processor
    from src.common.stripe.reconcile import end_of_now

    settings = with_running_stripe(get_settings())
    told = _Told()

    async def work(in_database: "InDatabase", gateway: "Gateway | None") -> _Window:
        cut_off = await in_database(
            lambda session: reconciliations.find_cut_off(
                session,
                reconciliations.of_accounts(settings.accounts),
                livemode=bool(settings.stripe_livemode),
            )
        )
        if resume:
            if cut_off is None:
                raise NotFound("No run was cut off", "RECONCILIATION_NOT_FOUND")
            window = _Window(cut_off.since_at, cut_off.until_at, cut_off.repairs)
            _say(cut_off, "Resuming")
        else:
            assert begin is not None  # noqa: S101  one of the two options names it
            window = _Window(begin, end or end_of_now(), repair)
            if cut_off is not None:
                _say(cut_off, "`--resume` would go on with")
        processor = Processor(in_database, gateway, settings)
        for account in settings.accounts:
            await _compare_account(processor, account, window, told, resumes=resume)
        return window

    _answer(run_with_stripe(settings, work), told, as_json=as_json)


def _answer(window: "_Window", told: "_Told", *, as_json: bool) -> None:
    if told.runs or told.findings:
        _print(window, told, as_json=as_json)
    if told.failures:
        raise next(reversed(told.failures.values()))
    if sum(run.drift for run in told.runs):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Window:
    """What is compared: the same for every account."""

    since: dt.datetime
    until: dt.datetime
    repairs: bool


@dataclass
class _Told:
    """What has been found so far, of all accounts."""

    compared: int = 0
    runs: "list[Reconciliation]" = field(default_factory=list["Reconciliation"])
    """Of the accounts that were compared."""
    failures: "dict[str | None, StripeGatewayError]" = field(
        default_factory=dict[str | None, "StripeGatewayError"]
    )
    """Why the others were not."""
    findings: dict[tuple[str | None, str], dict[str, Any]] = field(
        default_factory=dict[tuple[str | None, str], dict[str, Any]]
    )
    """By account and object: the newest holds."""

    def page(self, account: str | None, stage: str, page: "Page") -> None:
        """Say that a page is done."""
        self.compared += page.compared
        self.note(account, page.findings)
        of_account = f"{account}: " if account else ""
        say(f"{of_account}{stage}: {page.compared} compared, {self.compared} in all", err=True)

    def note(self, account: str | None, findings: Sequence[dict[str, Any]]) -> None:
        """Keep what was found, with whose it is."""
        of_account = {"account": account} if account else {}
        self.findings.update(((account, each["object"]), each | of_account) for each in findings)

    def fail(self, account: str | None, failure: "StripeGatewayError") -> None:
        """Say that an account was not compared to its end."""
        self.failures[account] = failure
        say(f"{account or 'Our own account'} is not compared: {failure.message}", err=True)


async def _compare_account(
    processor: "Processor", account: str | None, window: _Window, told: _Told, *, resumes: bool
) -> None:
    """Compare one account; where Stripe does not let us, the others are compared all the same.

    Where the window is taken up, one that was compared to its end tells what that found.
    """
    from src.common.purchases import reconciliations
    from src.common.stripe.gateway_errors import StripeGatewayError
    from src.common.stripe.reconcile import reconcile as compare

    if resumes:
        earlier = await processor.in_database(
            lambda session: reconciliations.find_of_window(
                session,
                livemode=bool(processor.settings.stripe_livemode),
                account=account,
                since=window.since,
                until=window.until,
                repairs=window.repairs,
            )
        )
        if earlier is not None:
            told.note(account, earlier.findings)
            if earlier.status == "finished":
                told.runs.append(earlier)
                return
    try:
        run = await compare(
            processor,
            since=window.since,
            until=window.until,
            repairs=window.repairs,
            resumes=resumes,
            account=account,
            progress=partial(told.page, account),
        )
    except StripeGatewayError as error:
        told.fail(account, error)
    else:
        told.runs.append(run)


def _print(window: _Window, told: _Told, *, as_json: bool) -> None:
    findings = list(told.findings.values())
    unfinished = [
        each["mended"] for (account, _), each in told.findings.items() if account in told.failures
    ]
    result: dict[str, Any] = {
        "since": window.since,
        "until": window.until,
        "compared": sum(run.compared for run in told.runs),
        "differences": len(findings),
        "left": sum(run.drift for run in told.runs) + unfinished.count(False),
    }
    failed = [
        {"account": account, "reason": failure.message}
        for account, failure in told.failures.items()
    ]
    if as_json:
        print_record({**result, "findings": findings, "failed": failed}, as_json=True)
        return
    print_record(result, as_json=False)
    agreed = "What was compared agrees." if failed else "Stripe and the books agree."
    print_rows(findings, as_json=False, empty=agreed)


def _say(run: "Reconciliation", what: str) -> None:
    say(
        f"{what} the run of {run.started_at:%Y-%m-%d %H:%M:%S %Z} from {run.since_at.isoformat()} "
        f"to {run.until_at.isoformat()}, cut off at {run.stage} after {run.compared} compared",
        err=True,
    )
