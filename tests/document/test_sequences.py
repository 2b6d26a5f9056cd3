"""The pictures of a purchase and of a batch show what happens: messages, answers, statements."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from src.common.credits import ledger
from src.common.credits.engine import Engine, lane, queue
from src.common.database import SessionLocal
from src.common.settings import get_settings
from src.common.stripe.confirmation import CheckoutStatus
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import HANDLED_TYPES
from src.local_postgres import ConnectionParameters
from tests.models.examples import a_user

EXPLANATION = Path(__file__).parents[2] / "docs/explanation"
LOCKS = "FOR NO KEY UPDATE"


def messages(page: str, arrow: str) -> list[str]:
    """What is said along one arrow of a page's picture, in order."""
    picture = re.findall(
        r"^```mermaid\n(sequenceDiagram.*?)^```",
        (EXPLANATION / page).read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(picture) == 1
    return re.findall(rf"^    {re.escape(arrow)}: (.+)$", picture[0], re.MULTILINE)


def test_a_purchase_names_an_event_and_answers_that_exist() -> None:
    """Stripe's event is handled; what Stripe and the customer are answered can be answered."""
    event, again = messages("payments.md", "S->>A")
    assert event in HANDLED_TYPES
    assert again == "the same event again"
    first, second = messages("payments.md", "A-->>S")
    assert [first, second] == [
        f"200 {EventAnswer.PROCESSED}",
        f"200 {EventAnswer.ALREADY_PROCESSED}",
    ]
    assert messages("payments.md", "A-->>C")[-1] == CheckoutStatus.CREDITED


def test_the_participants_of_a_batch_are_parts_of_the_engine() -> None:
    """A queue and a lane."""
    assert {queue.Queue.__name__, lane.Lane.__name__} == {"Queue", "Lane"}
    assert messages("ledger.md", "Lane->>Queue")
    assert messages("ledger.md", "Callers->>Queue")


async def test_a_batch_takes_the_statements_of_its_picture(
    fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that reads and locks nobody, and one that locks and writes."""
    assert fresh_database
    with SessionLocal.begin() as db:
        user = a_user()
        db.add(user)
        db.flush()
        ledger.grant(db, user.user_id, 10, key="start")
        user_id = user.user_id
    asked: list[str] = []

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: asyncpg.Connection, sql: str, *arguments: Any, **options: Any) -> Any:
            asked.append(sql)
            return await method(self, sql, *arguments, **options)

        return call

    async with Engine.from_settings(get_settings()) as engine:
        await engine.spend(user_id, 1, key="first")  # after which its connections are open
        monkeypatch.setattr(asyncpg.Connection, "fetch", noted(asyncpg.Connection.fetch))
        monkeypatch.setattr(asyncpg.Connection, "execute", noted(asyncpg.Connection.execute))
        await engine.spend(user_id, 1, key="second")
    read, write = messages("ledger.md", "Lane->>D")
    assert ("without a lock" in read, "locks" in write) == (True, True)
    assert [LOCKS in sql for sql in asked[:2]] == [False, True]
    assert not any("credit_" in sql for sql in asked[2:])
