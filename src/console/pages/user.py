"""All about one user: above all why the balance is what it is."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.accounts.queries import get_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import queries
from src.common.credits.balance_history import BalanceHistory, balance_history
from src.common.credits.domain.errors import entry_not_found
from src.common.credits.domain.views import Explanation, HistoryEntry, HoldState
from src.common.credits.entries import read_entries, related_entries
from src.common.credits.lot_shares import LotShares, lot_shares
from src.common.models.console_action import ConsoleAction
from src.common.models.user import User
from src.common.postgres.pagination import Page
from src.common.purchases.queries import Purchase, PurchaseFilter, list_purchases
from src.console.addresses import here_with
from src.console.audit import record
from src.console.balance_charts import history_chart, lots_chart
from src.console.pages.audit_trail import names_of
from src.console.pages.credit_moves import KEY_PREFIX
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render

router = APIRouter()
SHOWN = 20
"""Entries, lots, purchases, holds and actions on the user's page; each list has its own page."""
SHOWN_ON_A_PAGE = 50
DAYS = (7, 30, 90, 365)
"""How far back the chart can go; else to the user's beginning."""
_Sees = Annotated[Person, require(Permission.USERS_SEE)]
_Cursor = Annotated[str | None, Query(max_length=200)]
_Seq = Annotated[int, Path(ge=1, le=2**31 - 1)]


@dataclass(frozen=True, kw_only=True)
class UserPage:
    """What the page of a user shows."""

    user: User
    explanation: Explanation
    history: BalanceHistory
    lots: Page[LotShares]
    entries: Page[HistoryEntry]
    purchases: Page[Purchase]
    holds: Page[HoldState]
    actions: Sequence[ConsoleAction]
    names: Mapping[str, str]
    """Of those who did them, and of who moved credits."""


@dataclass(frozen=True, kw_only=True)
class EntryPage:
    """What the page of an entry shows."""

    user: User
    entry: HistoryEntry
    action: ConsoleAction | None
    """What somebody did in the console that made it."""
    names: Mapping[str, str]
    related: Sequence[HistoryEntry]


@router.get("/users/{user_id}", name="console_user")
async def show_user(
    request: Request, person: _Sees, user_id: uuid.UUID, *, days: int = 30
) -> Response:
    """The balance and its reasons, the newest of everything, and what may be done."""

    def work(session: Session) -> UserPage:
        page = _read(session, user_id, days)
        record(session, person, "users.see", user_id=user_id)
        return page

    page = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "user.html",
        page=page,
        user=page.user,
        history=history_chart(page.history),
        lots=lots_chart(page.lots.items),
        days=days,
        choices=DAYS,
        address=here_with(request),
    )


def _read(session: Session, user_id: uuid.UUID, days: int) -> UserPage:
    user = get_user(session, user_id)
    explanation = queries.explain(session, user_id)
    since = user.created_at
    if days in DAYS:
        since = max(since, dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
    entries = queries.history(session, user_id, limit=SHOWN)
    actions = session.scalars(
        select(ConsoleAction)
        .where(ConsoleAction.user_id == user_id)
        .order_by(ConsoleAction.action_id.desc())
        .limit(SHOWN)
    ).all()
    return UserPage(
        user=user,
        explanation=explanation,
        history=balance_history(session, user_id, since=since),
        lots=lot_shares(session, user_id, limit=SHOWN),
        entries=entries,
        purchases=list_purchases(
            session, PurchaseFilter(user_id=user_id), cursor=None, limit=SHOWN
        ),
        holds=queries.holds(session, user_id, limit=SHOWN),
        actions=actions,
        names=names_of(
            session, [*(each.actor for each in actions), *(each.actor for each in entries.items)]
        ),
    )


@router.get("/users/{user_id}/entries/{seq}", name="console_entry")
async def show_entry(request: Request, person: _Sees, user_id: uuid.UUID, seq: _Seq) -> Response:
    """One entry: its lines, its cause, the request that made it, and what refers to it."""

    def work(session: Session) -> EntryPage:
        user = get_user(session, user_id)
        entry = read_entries(session, user_id, [seq]).get(seq)
        if entry is None:
            raise entry_not_found()
        action = _action_of(session, user_id, entry)
        record(session, person, "users.see", user_id=user_id, target=f"entry {seq}")
        related = related_entries(session, user_id, seq, limit=SHOWN_ON_A_PAGE)
        actors = [each.actor for each in (entry, action, *related) if each is not None]
        return EntryPage(
            user=user,
            entry=entry,
            action=action,
            names=names_of(session, actors),
            related=related,
        )

    page = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "entry.html",
        user=page.user,
        entry=page.entry,
        related=page.related,
        action=page.action,
        names=page.names,
    )


def _action_of(session: Session, user_id: uuid.UUID, entry: HistoryEntry) -> ConsoleAction | None:
    """What somebody did in the console that made the entry: its key has the form's.

    Anybody may send such a key, so the action is the same person's, about the same user.
    """
    written = entry.idempotency_key.removeprefix(KEY_PREFIX)
    try:
        form_key = uuid.UUID(written) if written != entry.idempotency_key else None
    except ValueError:
        return None
    done = select(ConsoleAction).where(
        ConsoleAction.form_key == form_key,
        ConsoleAction.actor == entry.actor,
        ConsoleAction.user_id == user_id,
    )
    return None if form_key is None else session.scalars(done).one_or_none()


@router.get("/users/{user_id}/lots", name="console_user_lots")
async def show_lots(
    request: Request, person: _Sees, user_id: uuid.UUID, *, cursor: _Cursor = None
) -> Response:
    """One page of the lots, the newest first, and what became of each."""

    def work(session: Session) -> tuple[User, Page[LotShares]]:
        user = get_user(session, user_id)
        page = lot_shares(session, user_id, cursor=cursor, limit=SHOWN_ON_A_PAGE)
        record(session, person, "users.see", user_id=user_id, target="lots")
        return user, page

    user, page = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "user_lots.html",
        user=user,
        lots=page,
        chart_of_lots=lots_chart(page.items),
        address=here_with(request),
    )


@router.get("/users/{user_id}/holds", name="console_user_holds")
async def show_holds(
    request: Request, person: _Sees, user_id: uuid.UUID, *, cursor: _Cursor = None
) -> Response:
    """One page of the holds, the newest first."""

    def work(session: Session) -> tuple[User, Page[HoldState]]:
        user = get_user(session, user_id)
        page = queries.holds(session, user_id, cursor=cursor, limit=SHOWN_ON_A_PAGE)
        record(session, person, "users.see", user_id=user_id, target="holds")
        return user, page

    user, page = await run_in_async_database_transaction(work)
    return render(
        request, person, "user_holds.html", user=user, holds=page, address=here_with(request)
    )
