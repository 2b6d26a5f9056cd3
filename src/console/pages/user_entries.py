"""A user's journal, page by page, with filters as support asks: what, of which lot, whose, when."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.queries import get_user
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.entry_search import EntryFilter, FoundEntries, search_entries
from src.common.exceptions import Invalid
from src.common.models.credit_entry import EntryKind
from src.common.models.credit_lot import LotSource
from src.common.models.user import User
from src.console.addresses import here_with
from src.console.audit import record
from src.console.pages.audit_trail import names_of
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import render

router = APIRouter()
SHOWN = 50
SOURCES = tuple(LotSource)
Choice = TypeVar("Choice", EntryKind, LotSource)
_Text = Annotated[str, Query(max_length=255)]
_Number = Annotated[str, Query(max_length=20)]


def _chosen(
    kind: _Text = "",
    source: _Text = "",
    lot: _Number = "",
    actor: _Text = "",
    since: _Number = "",
    until: _Number = "",
    least: _Number = "",
    most: _Number = "",
    text: _Text = "",
) -> Mapping[str, str]:
    """What is asked for, as the page's form writes it; empty where nothing is."""
    written = {
        "kind": kind,
        "source": source,
        "lot": lot,
        "actor": actor,
        "since": since,
        "until": until,
        "least": least,
        "most": most,
        "text": text,
    }
    return {name: value.strip() for name, value in written.items()}


@router.get("/users/{user_id}/entries", name="console_user_entries")
async def show_entries(
    request: Request,
    person: Annotated[Person, require(Permission.USERS_SEE)],
    user_id: uuid.UUID,
    *,
    chosen: Annotated[Mapping[str, str], Depends(_chosen)],
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """One page of the entries that are asked for, the newest first."""
    problem: Invalid | None = None
    wanted = EntryFilter()
    try:
        wanted = _filter(chosen)
    except Invalid as error:
        problem = error

    def work(session: Session) -> tuple[User, FoundEntries | None, Mapping[str, str]]:
        user = get_user(session, user_id)
        page = None
        if problem is None:
            page = search_entries(session, user_id, wanted, cursor=cursor, limit=SHOWN)
        record(session, person, "users.see", user_id=user_id, target="entries")
        names = names_of(session, [] if page is None else [each.actor for each in page.items])
        return user, page, names

    user, page, names = await run_in_async_database_transaction(work)
    return render(
        request,
        person,
        "user_entries.html",
        problem=problem,
        user=user,
        entries=page,
        names=names,
        chosen=chosen,
        sources=SOURCES,
        address=here_with(request),
    )


def _filter(chosen: Mapping[str, str]) -> EntryFilter:
    """What the fields say; the last day is within.

    Raises:
        Invalid: VALIDATION_ERROR, naming the field.
    """
    until = _day(chosen, "until")
    return EntryFilter(
        kind=_choice(chosen, "kind", EntryKind),
        source=_choice(chosen, "source", LotSource),
        lot_seq=_number(chosen, "lot", least=1),
        actor=chosen["actor"] or None,
        since=_day(chosen, "since"),
        until=None if until is None else until + dt.timedelta(days=1),
        least=_number(chosen, "least", least=0),
        most=_number(chosen, "most", least=0),
        text=chosen["text"] or None,
    )


def _choice(chosen: Mapping[str, str], name: str, choices: type[Choice]) -> Choice | None:
    try:
        return choices(chosen[name]) if chosen[name] else None
    except ValueError:
        raise _invalid(name, f"one of {', '.join(choices)}") from None


def _number(chosen: Mapping[str, str], name: str, *, least: int) -> int | None:
    written = chosen[name].replace(",", "")
    if not written:
        return None
    if not written.isdecimal() or not written.isascii() or not least <= int(written) <= AMOUNT_MAX:
        raise _invalid(name, f"a whole number from {least:,} to {AMOUNT_MAX:,}")
    return int(written)


def _day(chosen: Mapping[str, str], name: str) -> dt.datetime | None:
    """A day's first moment in UTC."""
    if not chosen[name]:
        return None
    try:
        day = dt.date.fromisoformat(chosen[name])
    except ValueError:
        raise _invalid(name, "a day, such as 2030-01-31") from None
    if day.year > _YEAR_MAX:
        raise _invalid(name, f"a day up to the year {_YEAR_MAX}")
    return dt.datetime.combine(day, dt.time.min, dt.UTC)


_YEAR_MAX = 9_000


def _invalid(name: str, sentence: str) -> Invalid:
    return Invalid(f"{name}: {sentence}", "VALIDATION_ERROR", field=name)
