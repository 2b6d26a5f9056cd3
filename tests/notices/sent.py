"""Endpoints with secrets, users with notices, and delivery as the worker does it."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from src.cli.reach import in_database
from src.common.credits.domain.commands import Grant
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.notices.delivery.deliver import deliver_due
from src.common.notices.ids import notice_id
from src.common.settings import load_settings
from tests.credits.books import make_user

SECRET = bytes(range(32))


def add_endpoint(url: str, *types: NoticeType, secrets: Sequence[bytes] = (SECRET,)) -> uuid.UUID:
    """A committed endpoint that is told of grants, or of these."""
    with SessionLocal.begin() as session:
        wanted = types or (NoticeType.GRANTED,)
        endpoint = NoticeEndpoint(url=url, types=[str(each) for each in wanted])
        session.add(endpoint)
        session.flush()
        session.add_all(
            NoticeSecret(endpoint_id=endpoint.endpoint_id, secret=secret) for secret in secrets
        )
        return endpoint.endpoint_id


def add_users(count: int) -> list[uuid.UUID]:
    """Committed users."""
    with SessionLocal.begin() as session:
        return [make_user(session).user_id for _ in range(count)]


def give(user_ids: Sequence[uuid.UUID], *, times: int = 1) -> None:
    """Grants, so many to each, each with its notice."""
    with SessionLocal.begin() as session:
        for _ in range(times):
            execute(
                session,
                [
                    Grant(user_id=user_id, actor="key:t", key=str(uuid.uuid4()), amount=1)
                    for user_id in user_ids
                ],
            )


async def deliver(**settings: Any) -> int:
    """Deliver until nothing is due; how many attempts there were."""
    return await deliver_due(in_database, load_settings(**settings))


def make_due() -> None:
    """Have everything that waits be due, and no endpoint be paused."""
    with SessionLocal.begin() as session:
        session.execute(
            update(CreditNotice)
            .where(CreditNotice.status == "pending")
            .values(next_attempt_at=CreditNotice.created_at)
        )
        session.execute(update(NoticeEndpointState).values(paused_until=None))


def outbox(session: Session | None = None) -> list[CreditNotice]:
    """All notices, in order."""
    statement = select(CreditNotice).order_by(CreditNotice.number)
    if session is not None:
        return list(session.scalars(statement))
    with SessionLocal() as own:
        found = list(own.scalars(statement))
        own.expunge_all()
        return found


def statuses() -> list[str]:
    """The status of each notice, in order."""
    return [each.status for each in outbox()]


def ids_by_user() -> dict[str, list[str]]:
    """The ids of each user's notices, in order."""
    found: dict[str, list[str]] = {}
    for each in outbox():
        found.setdefault(str(each.user_id), []).append(notice_id(each.user_id, each.number))
    return found


def state_of(endpoint_id: uuid.UUID) -> NoticeEndpointState:
    """How delivery to it went."""
    with SessionLocal() as session:
        state = session.get_one(NoticeEndpointState, endpoint_id)
        session.expunge(state)
        return state
