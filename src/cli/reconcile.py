"""`flashslides stripe reconcile`: Stripe's objects and events beside ours."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer

from src.cli.output import AsJson, print_record, print_rows, say, utc
from src.cli.reach import run_with_stripe
from src.cli.running_stripe import with_running_stripe
from src.common.exceptions import Invalid, NotFound
from src.common.models.reconciliation import Reconciliation
from src.common.purchases import reconciliations
from src.common.settings import get_settings
from src.common.stripe.findings import Page
from src.common.stripe.gateway import Gateway
from src.common.stripe.processing import InDatabase, Processor
from src.common.stripe.reconcile import reconcile as compare


def reconcile(
    *,
    since: Annotated[
        dt.datetime | None,
        typer.Option(help="Compare what Stripe made from here on; UTC by default."),
    ] = None,
    until: Annotated[
        dt.datetime | None, typer.Option(help="… before here; now by default.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the newest run that was cut off, as it was."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare Stripe's objects and events with ours: exit code 1 where a difference is left.

    Our own account first, then each connected one that STRIPE_CONNECTED_ACCOUNTS names.

    Every difference is printed, mended or not. Stripe lists events for 30 days.
    """
    if resume == (since is not None) or (resume and (repair or until is not None)):
        raise Invalid(
            "Name --since; or --resume alone, which goes on with a run as it was begun",
            "VALIDATION_ERROR",
        )
    settings = with_running_stripe(get_settings())
    told = _Told()

    async def work(in_database: InDatabase, gateway: Gateway | None) -> Sequence[Reconciliation]:
        cut_off = await in_database(
            lambda session: reconciliations.find_cut_off(
                session, livemode=bool(settings.stripe_livemode)
            )
        )
        window, repairs = (utc(since), utc(until)), repair
        accounts = settings.accounts
        if resume:
            if cut_off is None:
                raise NotFound("No run was cut off", "RECONCILIATION_NOT_FOUND")
            window, repairs = (cut_off.since_at, None), cut_off.repairs
            accounts = (cut_off.stripe_account,)
            told.note(cut_off.stripe_account, cut_off.findings)
            _say(cut_off, "Resuming")
        elif cut_off is not None:
            _say(cut_off, "`--resume` would go on with")
        begin, end = window
        assert begin is not None  # noqa: S101  one of the two options names it
        return [
            await compare(
                Processor(in_database, gateway, settings),
                since=begin,
                until=end,
                repairs=repairs,
                resumes=resume,
                account=account,
                progress=partial(told.page, account),
            )
            for account in accounts
        ]

    _print(run_with_stripe(settings, work), list(told.findings.values()), as_json=as_json)


@dataclass
class _Told:
    """What has been found so far, of all accounts."""

    compared: int = 0
    findings: dict[tuple[str | None, str], dict[str, Any]] = field(
        default_factory=dict[tuple[str | None, str], dict[str, Any]]
    )
    """By account and object: the newest holds."""

    def page(self, account: str | None, stage: str, page: Page) -> None:
        """Say that a page is done."""
        self.compared += page.compared
        self.note(account, page.findings)
        of_account = f"{account}: " if account else ""
        say(f"{of_account}{stage}: {page.compared} compared, {self.compared} in all", err=True)

    def note(self, account: str | None, findings: Sequence[dict[str, Any]]) -> None:
        """Keep what was found, with whose it is."""
        of_account = {"account": account} if account else {}
        self.findings.update(((account, each["object"]), each | of_account) for each in findings)


def _print(
    runs: Sequence[Reconciliation], findings: list[dict[str, Any]], *, as_json: bool
) -> None:
    left = sum(run.drift for run in runs)
    result: dict[str, Any] = {
        "since": runs[0].since_at,
        "until": runs[0].until_at,
        "compared": sum(run.compared for run in runs),
        "differences": len(findings),
        "left": left,
    }
    if as_json:
        print_record({**result, "findings": findings}, as_json=True)
    else:
        print_record(result, as_json=False)
        print_rows(findings, as_json=False, empty="Stripe and the books agree.")
    if left:
        raise typer.Exit(1)


def _say(run: Reconciliation, what: str) -> None:
    say(
        f"{what} the run of {run.started_at:%Y-%m-%d %H:%M:%S %Z} from {run.since_at.isoformat()} "
        f"to {run.until_at.isoformat()}, cut off at {run.stage} after {run.compared} compared",
        err=True,
    )
