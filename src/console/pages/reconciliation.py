"""Reconciliation: runs of the comparison with Stripe, what they found, and one to be run now."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common import worker_heartbeats
from src.common.async_database import run_in_async_database_transaction
from src.common.purchases.reconciliations import get_run, newest_runs
from src.common.stripe.asked_runs import COMPARED_DAYS, ask_for_runs
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.service import settings_of

router = APIRouter(prefix="/reconciliation")

LISTED_MAX = 50


@router.get("", name="console_reconciliations")
async def show_runs(
    request: Request, person: Annotated[Person, require(Permission.RECONCILIATIONS_SEE)]
) -> Response:
    """The newest runs. While one goes on, the page is loaded again by itself."""
    found = await run_in_async_database_transaction(
        lambda session: newest_runs(session, LISTED_MAX)
    )
    return render(
        request,
        person,
        "reconciliations.html",
        runs=found,
        goes_on=any(run.status == "running" for run in found),
        may_run=person.may(Permission.RECONCILIATIONS_RUN),
    )


@router.get("/{reconciliation_id}", name="console_reconciliation")
async def show_run(
    request: Request,
    person: Annotated[Person, require(Permission.RECONCILIATIONS_SEE)],
    reconciliation_id: uuid.UUID,
) -> Response:
    """One run and its differences."""
    run = await run_in_async_database_transaction(
        lambda session: get_run(session, reconciliation_id)
    )
    return render(request, person, "reconciliation.html", run=run)


@router.post("", name="console_reconcile")
async def run_now(
    request: Request,
    person: Annotated[Person, require(Permission.RECONCILIATIONS_RUN)],
    form: Annotated[Form, posted()],
) -> Response:
    """Have the worker compare the last days and mend what differs."""
    settings = settings_of(request)
    if not form.is_confirmed:
        workers = await run_in_async_database_transaction(worker_heartbeats.read_workers)
        return confirm(
            request,
            person,
            form,
            heading="Compare with Stripe now?",
            facts={
                "What": f"All that Stripe made within {COMPARED_DAYS} days",
                "Accounts": str(len(settings.accounts)),
                "What differs": "is mended, as each hour",
                "Workers at work": str(workers.alive),
            },
            button="Compare",
            cancel=path_of(request, "console_reconciliations"),
            warning=None if workers.alive else "No worker is at work: nobody will begin it.",
        )

    def work(session: Session) -> bool:
        if is_recorded(session, form.key):
            return False
        runs = ask_for_runs(session, settings)
        after = {"runs": [str(each) for each in runs]}
        return record(session, person, "reconciliations.run", after=after, key=form.key)

    await run_in_async_database_transaction(work)
    return done(request, "The worker will begin within seconds.", "console_reconciliations")
