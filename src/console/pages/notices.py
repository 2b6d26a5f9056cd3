"""Notices: endpoints and how delivery to each goes, what was sent, what was given up; replay."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.models.credit_notice import CreditNotice, NoticeStatus, NoticeType
from src.common.notices import endpoints
from src.common.notices.delivery.figures import EndpointFigures, endpoint_figures
from src.common.notices.delivery.messages import Notice, body_of
from src.common.notices.everybodys import merge_notices, read_places
from src.common.notices.ids import notice_id
from src.common.notices.queries import NoticeFilter, get_notice, list_notices
from src.common.notices.replay import replay_notice
from src.common.postgres.pagination import Page
from src.common.postgres.routes import routed_to_schema
from src.common.routing import async_all_groups, is_sharding
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.whose import in_each_group, routed_to_notice

router = APIRouter(prefix="/notices")
Choice = TypeVar("Choice", NoticeStatus, NoticeType)

PAGE_SIZE = 50
AT_ONCE_MAX = 50
"""How many notices one form may name."""
ENABLE, DISABLE = "enable", "disable"


@router.get("", name="console_notices")
async def show_notices(
    request: Request,
    person: Annotated[Person, require(Permission.NOTICES_SEE)],
    status: str = "",
    notice_type: Annotated[str, Query(alias="type")] = "",
    endpoint: str = "",
    user: str = "",
    cursor: str | None = None,
) -> Response:
    """Endpoints, and notices by status, type, endpoint and user, the newest first."""
    wanted = NoticeFilter(
        status=_one_of(NoticeStatus, "status", status),
        type=_one_of(NoticeType, "type", notice_type),
        endpoint_id=_id("endpoint", endpoint),
        user_id=_id("user", user),
    )
    # Endpoints are everybody's: they are there before the first group is.
    of_groups = await in_each_group(endpoint_figures)
    known = _of_all(of_groups or {None: await read_from_async_database(endpoint_figures)})
    found = await _newest(wanted, cursor)
    return render(
        request,
        person,
        "notices.html",
        notices=[(notice_id(each.user_id, each.number), each) for each in found.items],
        next_cursor=found.next_cursor,
        endpoints=known,
        statuses=tuple(NoticeStatus),
        types=tuple(NoticeType),
        chosen={"status": status, "type": notice_type, "endpoint": endpoint, "user": user},
        may_replay=person.may(Permission.NOTICES_REPLAY),
        may_change=person.may(Permission.ENDPOINTS_CHANGE),
    )


def _of_all(
    found: Mapping[str | None, Sequence[EndpointFigures]],
) -> Sequence[EndpointFigures]:
    """All endpoints, each with what waits for it of all users."""
    known: dict[uuid.UUID, EndpointFigures] = {}
    for figures in found.values():
        for each in figures:
            before = known.get(each.endpoint_id)
            known[each.endpoint_id] = each if before is None else before.beside(each)
    return list(known.values())


async def _newest(wanted: NoticeFilter, cursor: str | None) -> Page[CreditNotice]:
    def reading(cursor: str | None) -> Callable[[Session], Page[CreditNotice]]:
        return partial(list_notices, wanted=wanted, limit=PAGE_SIZE, cursor=cursor)

    if not is_sharding():
        return await read_from_async_database(reading(cursor))
    places, pages = read_places(cursor), dict[str, Page[CreditNotice]]()
    for group in await async_all_groups():
        with routed_to_schema(group):
            pages[group] = await read_from_async_database(reading(places.get(group)))
    return merge_notices(pages, PAGE_SIZE)


@router.get("/{name}", name="console_notice")
async def show_notice(
    request: Request, person: Annotated[Person, require(Permission.NOTICES_SEE)], name: str
) -> Response:
    """One notice, what is sent of it, and how far it has come."""
    async with routed_to_notice(name):
        notice = await read_from_async_database(lambda session: get_notice(session, name))
    return render(
        request,
        person,
        "notice.html",
        name=name,
        notice=notice,
        body=body_of(_as_sent(notice)),
        may_replay=person.may(Permission.NOTICES_REPLAY),
    )


@router.post("", name="console_notices_replay")
async def replay(
    request: Request,
    person: Annotated[Person, require(Permission.NOTICES_REPLAY)],
    form: Annotated[Form, posted()],
) -> Response:
    """Have the chosen notices sent again, once what that means was shown."""
    names = _chosen(form)
    if not form.is_confirmed:
        found: list[CreditNotice] = []
        for name in names:
            async with routed_to_notice(name):
                found.append(await read_from_async_database(partial(get_notice, notice_id=name)))
        return confirm(
            request,
            person,
            form,
            heading=f"Send {len(names)} notices again?",
            facts={
                name: f"{each.type}: {each.status}; it will be sent within seconds"
                for name, each in zip(names, found, strict=True)
            },
            button="Send again",
            cancel=path_of(request, "console_notices"),
            warning="What is sent again comes after newer notices of its user.",
        )
    told = [await _replay(person, form, name) for name in names]
    return done(request, "; ".join(told) + ".", "console_notices")


async def _replay(person: Person, form: Form, name: str) -> str:
    def work(session: Session) -> bool:
        key = uuid.uuid5(form.key, name)
        if is_recorded(session, key):
            return False
        before = {"status": get_notice(session, name).status}
        notice = replay_notice(session, name)
        return record(
            session,
            person,
            "notices.replay",
            user_id=notice.user_id,
            target=name,
            before=before,
            after={"status": notice.status},
            key=key,
        )

    try:
        async with routed_to_notice(name):
            is_new = await run_in_async_database_transaction(work)
    except ExceptionWithErrorType as error:
        return f"{name}: {error.message}"
    return f"{name} will be sent again" if is_new else f"{name} was sent again by this form"


@router.post("/endpoints/{endpoint_id}", name="console_endpoint_change")
async def change_endpoint(
    request: Request,
    person: Annotated[Person, require(Permission.ENDPOINTS_CHANGE)],
    form: Annotated[Form, posted()],
    endpoint_id: uuid.UUID,
) -> Response:
    """Switch an endpoint off or on, and say why."""
    what, reason = form.required("do"), form.reason()
    if what not in {ENABLE, DISABLE}:
        raise Invalid("do: enable or disable", "VALIDATION_ERROR", field="do")
    if not form.is_confirmed:
        found = await run_in_async_database_transaction(
            lambda session: endpoints.get_endpoint(session, endpoint_id)
        )
        return confirm(
            request,
            person,
            form,
            heading=f"{what.capitalize()} this endpoint?",
            facts={
                "Address": found.url,
                "Is told of": ", ".join(found.types),
                "Afterwards": _AFTERWARDS[what],
            },
            button=what.capitalize(),
            cancel=path_of(request, "console_notices"),
        )

    def work(session: Session) -> None:
        if is_recorded(session, form.key):
            return
        was = endpoints.get_endpoint(session, endpoint_id).disabled_at is not None
        if what == DISABLE:
            endpoints.disable_endpoint(session, endpoint_id, reason=endpoints.DISABLED_BY_HAND)
        else:
            endpoints.enable_endpoint(session, endpoint_id)
        record(
            session,
            person,
            f"notice_endpoints.{what}",
            target=str(endpoint_id),
            reason=reason,
            before={"is_disabled": was},
            after={"is_disabled": what == DISABLE},
            key=form.key,
        )

    await run_in_async_database_transaction(work)
    return done(request, f"The endpoint is {what}d.", "console_notices")


_AFTERWARDS = {
    ENABLE: "It is told what happens from now on, and what waited when it was disabled",
    DISABLE: "Nothing is written for it or sent to it; what waits is kept for a while",
}


def _chosen(form: Form) -> Sequence[str]:
    names = list(dict.fromkeys(form.texts("notice")))
    if not 1 <= len(names) <= AT_ONCE_MAX:
        raise Invalid(
            f"notice: choose from 1 to {AT_ONCE_MAX} notices", "VALIDATION_ERROR", field="notice"
        )
    return names


def _as_sent(row: CreditNotice) -> Notice:
    return Notice(
        user_id=row.user_id,
        number=row.number,
        type=row.type,
        data=row.data,
        created_at=row.created_at,
        attempts=row.attempts,
        is_claimed=False,
    )


def _one_of(choices: type[Choice], field: str, written: str) -> Choice | None:
    try:
        return choices(written) if written else None
    except ValueError:
        raise Invalid(f"{field}: one of the list", "VALIDATION_ERROR", field=field) from None


def _id(field: str, written: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(written.strip()) if written.strip() else None
    except ValueError:
        raise Invalid(f"{field}: an id", "VALIDATION_ERROR", field=field) from None
