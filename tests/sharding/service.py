"""The whole service over groups of users, and what several tests do to it."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope, create_api_key
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal
from src.common.models import CreditEntry, StripeEvent, Transaction, UnmatchedPayment
from src.common.postgres.routes import routed_to_schema
from src.common.postgres.session_makers import SessionsOfGroup
from src.common.routing import routed_to
from tests.fixtures.api import Api
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

TWO = GROUPS[:2]
"""Groups that most tests need."""


def people(number: int, balance: int = 0) -> list[uuid.UUID]:
    """So many users in each of two groups, by turns."""
    return [user_of(group, balance) for _ in range(number) for group in TWO]


def service_key() -> str:
    """A committed API key with every scope, in clear."""
    with SessionLocal.begin() as session:
        return create_api_key(session, service_name="slides", scopes=[*Scope]).key


async def deliver_all(api: Api, events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Deliver events at once; how often each answer, all of them 200."""
    answers = await asyncio.gather(*(api.deliver(json.dumps(event)) for event in events))
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers]
    return Counter(answer.json()["status"] for answer in answers)


def purchases_of(user_id: uuid.UUID) -> int:
    """How many purchases this user has."""
    of_user = select(func.count(Transaction.transaction_id)).where(Transaction.user_id == user_id)
    with routed_to(user_id), SessionLocal() as session:
        return session.scalars(of_user).one()


def counted(session: Session, model: type[Any]) -> int:
    """How many rows there are."""
    return session.scalars(select(func.count()).select_from(model)).one()


def count_in_groups(model: type[Any]) -> dict[str, int]:
    """How many rows each group has that has any."""
    found: dict[str, int] = {}
    for group in GROUPS:
        with routed_to_schema(group), SessionLocal() as session:
            if number := counted(session, model):
                found[group] = number
    return found


def statuses_of_events() -> Counter[str]:
    """What became of the events in the inbox."""
    with SessionLocal() as session:
        return Counter(session.scalars(select(StripeEvent.status)))


def reasons_of_unmatched() -> dict[str, tuple[str, str]]:
    """Of each unmatched payment its reason and status."""
    with SessionLocal() as session:
        rows = session.scalars(select(UnmatchedPayment))
        return {row.stripe_object_id: (row.reason, row.status) for row in rows}


def check_all_books(groups: Iterable[str] = TWO) -> int:
    """Verify everybody's books of these groups; how many users that were."""
    users = 0
    for group in groups:
        report = None
        for report in verify(SessionsOfGroup(SessionLocal, group)):
            assert not report.differences, report.first
        users += report.users if report else 0
    return users


def switch_triggers_off(session: Session) -> None:
    """Until the database transaction ends; on Citus where the group's tables are too."""
    session.execute(text("SET LOCAL citus.propagate_set_commands = 'local'"))
    session.execute(text("SET LOCAL session_replication_role = replica"))


def count_entries(user_id: uuid.UUID) -> int:
    """How many entries this user's journal has."""
    of_user = select(func.count()).select_from(CreditEntry).where(CreditEntry.user_id == user_id)
    with routed_to(user_id), SessionLocal() as session:
        return session.scalars(of_user).one()
