"""`docs/explanation`: blocks of Python run as they stand, examples and tables are true."""

import ast
import asyncio
import re
from enum import StrEnum
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import pytest

from src.common.async_database import AsyncSessionLocal
from src.common.credits import ledger
from src.common.credits.reservation import ReservationState
from src.common.database import SessionLocal
from src.common.models import User
from src.common.purchases.rules import Reason
from src.common.stripe.confirmation import CheckoutStatus
from src.common.stripe.inbox import EventAnswer
from src.local_postgres import ConnectionParameters
from tests.models.examples import a_user

if TYPE_CHECKING:
    import uuid
    from collections.abc import Coroutine

EXPLANATION = Path(__file__).parents[2] / "docs/explanation"
LEDGER = (EXPLANATION / "ledger.md").read_text(encoding="utf-8")
DATABASE_TRANSACTIONS = (EXPLANATION / "database-transactions.md").read_text(encoding="utf-8")
NEVER_SEEN_AFTER_THE_BLOCK = {ReservationState.NEW}
EXAMPLE_ROW = re.compile(r"^\| (\d+) \| (\w+)[^|]*\| ([+-]\d+) \| (\d+) \|", re.MULTILINE)


def blocks(page: str) -> list[str]:
    """A page's blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.fixture
def user_id(fresh_database: ConnectionParameters) -> "uuid.UUID":
    """Somebody with a thousand credits."""
    assert fresh_database
    with SessionLocal.begin() as db:
        user = a_user()
        db.add(user)
        db.flush()
        ledger.grant(db, user.user_id, 1_000, key="start")
        return user.user_id


async def run(block: str, **given: Any) -> dict[str, Any]:
    """Run a block as it stands; its names afterwards."""
    names: dict[str, Any] = {"asyncio": asyncio, "AsyncSessionLocal": AsyncSessionLocal, **given}
    code = compile(block, "explanation", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = cast("Coroutine[Any, Any, None] | None", FunctionType(code, names)())
    if running is not None:
        await running
    return names


async def balance(user_id: "uuid.UUID") -> int:
    """What the user has now."""
    async with AsyncSessionLocal() as db:
        return (await db.run_sync(lambda session: ledger.balance(session, user_id))).balance


async def test_spending_and_holding_go_as_written(user_id: "uuid.UUID") -> None:
    """Each block takes what it says, and one key takes it once, whichever block names it."""
    spend, spend_async, hold, hold_again, time_out, undo, engine = blocks(LEDGER)

    async def render() -> int:
        await asyncio.sleep(0)
        return 60

    given: dict[str, Any] = {"user_id": user_id, "job_id": 7, "render": render, "key": "other"}
    given["ReservationState"] = ReservationState
    left: list[int] = []
    for block in (spend, spend_async):
        await run(block, **given)
        left.append(await balance(user_id))
    # Of another job: the same key by another actor would be refused.
    await run(engine, **{**given, "job_id": 8})
    left.append(await balance(user_id))
    names: dict[str, Any] = {}
    for block in (hold, hold_again):
        given["reserve_async"] = names.get("reserve_async")
        names = await run(block, **given)
        left.append(await balance(user_id))
    assert (names["held"].replayed, names["held"].used) == (True, 60)
    names = await run(time_out, **given)
    left.append(await balance(user_id))
    with SessionLocal.begin() as db:  # what the first block spent, after the first grant
        await run(undo, **given, ledger=ledger, db=db, seq=2)
    left.append(await balance(user_id))
    assert left == [970, 970, 940, 880, 880, 820, 850]
    assert names["held"].state is ReservationState.CAPTURED


async def test_a_time_out_finds_nothing_charged(user_id: "uuid.UUID") -> None:
    """Work that takes too long is not charged, and the page's last line says so."""
    *_, time_out, _undo, _engine = blocks(LEDGER)

    async def render() -> int:
        raise TimeoutError

    names = await run(
        "from src.common.credits.reservation import reserve_async\n" + time_out,
        user_id=user_id,
        render=render,
        key="slow",
        ReservationState=ReservationState,
    )
    assert names["is_charged"] is False
    assert await balance(user_id) == 1_000


def test_the_example_at_the_beginning_is_what_the_ledger_writes(
    fresh_database: ConnectionParameters,
) -> None:
    """The same grants and the same spend give the table's numbers, and take from those lots."""
    assert fresh_database
    with SessionLocal.begin() as db:
        ada = a_user()
        db.add(ada)
        db.flush()
        # Only a payment may say that its source is a purchase; this has a purchase's priority.
        ledger.grant(db, ada.user_id, 500, key="purchase", priority=100)
        ledger.grant(db, ada.user_id, 50, key="gift")
        ledger.spend(db, ada.user_id, 80, key="slides")
        history = ledger.history(db, ada.user_id, cursor=None, limit=10)
        lots = ledger.balance(db, ada.user_id).lots
    written = [(it.seq, it.kind, it.amount, it.balance_after) for it in reversed(history.items)]
    assert written == [
        (int(seq), kind, int(amount), int(after))
        for seq, kind, amount, after in EXAMPLE_ROW.findall(LEDGER)
    ]
    assert {lot.seq: lot.granted - lot.remaining for lot in lots} == {1: 30}


async def test_what_happens_in_one_block_is_committed_together(user_id: "uuid.UUID") -> None:
    """The page's block commits the spend and the preference; where it fails, neither."""
    [together] = blocks(DATABASE_TRANSACTIONS)
    await run(together, user_id=user_id)
    with SessionLocal() as db:
        assert db.get_one(User, user_id).preferences == {"last_deck": 1}
    assert await balance(user_id) == 970
    failing = together.replace("slides:1", "slides:2").replace('["last_deck"] = 1', ".missing")
    with pytest.raises(AttributeError):
        await run(failing, user_id=user_id)
    assert await balance(user_id) == 970


def first_column(page: str, heading: str) -> set[str]:
    """What a table's first column says, each value as code; the table is found by its head."""
    text = (EXPLANATION / page).read_text(encoding="utf-8")
    table = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


@pytest.mark.parametrize(
    ("page", "heading", "values"),
    [
        ("payments.md", "the answer", set(EventAnswer)),
        ("payments.md", "`status`", set(CheckoutStatus)),
        ("payments.md", "reason", set(Reason)),
        ("ledger.md", "`state`", set(ReservationState) - NEVER_SEEN_AFTER_THE_BLOCK),
    ],
)
def test_a_table_has_every_value(page: str, heading: str, values: set[StrEnum]) -> None:
    """A value that is added or renamed has its row changed with it."""
    assert first_column(page, heading) == {value.value for value in values}
