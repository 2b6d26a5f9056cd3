"""What callers may not ask: arguments of a wrong type, and whatever is the ledger's own."""

import datetime as dt
import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from src.common.credits import async_ledger, ledger, operations, queries, requests
from src.common.credits.domain.commands import Command, Grant, Spend
from src.common.credits.domain.own_commands import assignment, opening, purchase
from src.common.credits.engine.engine import Engine
from src.common.credits.reservation import reserve, reserve_async
from src.common.exceptions import Invalid
from src.common.models.credit_lot import LotSource
from src.common.settings import get_settings
from tests.credits.books import booked_balance, journal, make_user, write_purchase

WHO = uuid.uuid4()
NOW = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NOT_TEXT: list[Any] = [b"text", 7, ["text"], {"te": "xt"}]
NOT_A_NUMBER: list[Any] = [True, 1.0, "1", None, [1]]
NOT_AN_INSTANT: list[Any] = ["2030-01-01T00:00:00Z", 1_900_000_000, dt.date(2030, 1, 1)]
NOT_A_USER: list[Any] = [str(WHO), WHO.bytes, WHO.int, None, [WHO]]
WRONG: dict[str, list[Any]] = {
    "user_id": NOT_A_USER,
    "user_ids": [*NOT_A_USER[:-1], [str(WHO)], [WHO, None]],
    "amount": NOT_A_NUMBER,
    "hold_seq": NOT_A_NUMBER,
    "seq": NOT_A_NUMBER,
    "limit": NOT_A_NUMBER,
    "expires_in_seconds": NOT_A_NUMBER,
    "key": [*NOT_TEXT, None],
    "reason": [*NOT_TEXT, None],
    "actor": [*NOT_TEXT, None],
    "reference": NOT_TEXT,
    "cursor": NOT_TEXT,
    "source": ["garbage", LotSource.PURCHASE, LotSource.OPENING, 7, None, ["promo"]],
    "priority": [True, 1.0, "1"],
    "expires_at": [*NOT_AN_INSTANT, NOW.replace(tzinfo=None)],
    "as_of": [*NOT_AN_INSTANT, NOW.replace(tzinfo=None)],
    "now": [*NOT_AN_INSTANT, NOW.replace(tzinfo=None)],
    "metadata": ["{}", [("a", 1)], 7, {"a": b"b"}],
    "status": ["garbage", 7, ["open"]],
    "kind": ["garbage", 7, ["spend"]],
    "final": [1, "true", None],
    "as_far_as_possible": [1, "true", None],
    "own_only": [1, "true", None],
    "if_expired": ["maybe", 7, None, ["retake"]],
    "command": ["spend", None, {"amount": 1}, opening(WHO, 1), assignment(WHO, 1, actor="a")],
    "commands": ["spend", None, 7, [None], [opening(WHO, 1)], [Spend]],
}
"""Values of a wrong type, by the name of the argument."""
RIGHT: dict[str, Any] = {
    "user_id": WHO,
    "user_ids": [WHO],
    "amount": 1,
    "hold_seq": 1,
    "seq": 1,
    "limit": 1,
    "expires_in_seconds": 60,
    "key": "k",
    "reason": "why",
    "cursor": None,
    "command": Spend(user_id=WHO, amount=1, key="k", actor="key:tests"),
    "commands": [],
}
"""What must be given."""
WRITES = ("grant", "spend", "adjust", "open_hold", "capture", "release", "renew", "reverse")
OTHERS: dict[str, Callable[..., Any]] = {
    name: getattr(ledger, name) for name in ledger.__all__ if name not in WRITES
} | {"holds": queries.holds, "get_hold": queries.get_hold}


def parameters(operation: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What the operation takes, besides a session."""
    found = dict(inspect.signature(operation).parameters)
    found.pop("session", None)
    return found


def named(operations: Mapping[str, Callable[..., Any]]) -> list[Any]:
    """Every operation with each of its arguments."""
    return [
        pytest.param(name, argument, id=f"{name}-{argument}")
        for name, operation in operations.items()
        for argument in parameters(operation)
    ]


def wrong_calls(operation: Callable[..., Any], argument: str) -> list[dict[str, Any]]:
    """The argument wrong in each way, the others right; None is right where it is the default."""
    right = {
        each.name: RIGHT[each.name]
        for each in parameters(operation).values()
        if each.default is inspect.Parameter.empty
    }
    default = parameters(operation)[argument].default
    wrong = [value for value in WRONG[argument] if value is not None or default is not None]
    return [right | {argument: value} for value in wrong]


def check(refused: pytest.ExceptionInfo[Invalid], argument: str) -> None:
    """It is refused by its name."""
    assert refused.value.error_type == "VALIDATION_ERROR"
    assert refused.value.details["field"] == argument
    assert refused.value.message.startswith(f"{argument}: ")


@pytest.mark.parametrize(
    ("name", "argument"), named({name: getattr(requests, name) for name in WRITES})
)
async def test_a_wrong_argument_of_a_write_is_named(name: str, argument: str) -> None:
    """By the ledger for sessions of both kinds and by the engine, before a database is asked."""
    engine = Engine.from_settings(get_settings())
    for arguments in wrong_calls(getattr(requests, name), argument):
        with pytest.raises(Invalid) as refused:
            getattr(ledger, name)(Session(), **arguments)
        check(refused, argument)
        with pytest.raises(Invalid) as refused:
            await getattr(engine, name)(**arguments)
        check(refused, argument)
        with pytest.raises(Invalid) as refused:
            await getattr(async_ledger, name)(AsyncSession(), **arguments)
        check(refused, argument)


@pytest.mark.parametrize(("name", "argument"), named(OTHERS))
async def test_a_wrong_argument_of_another_operation_is_named(name: str, argument: str) -> None:
    """Of reads, locks, and lists of commands; before a database is asked."""
    for arguments in wrong_calls(OTHERS[name], argument):
        with pytest.raises(Invalid) as refused:
            OTHERS[name](Session(), **arguments)
        check(refused, argument)
        if name in ledger.__all__:
            with pytest.raises(Invalid) as refused:
                await getattr(async_ledger, name)(AsyncSession(), **arguments)
            check(refused, argument)


@pytest.mark.parametrize("key", [*WRONG["key"], "~mine"])
async def test_a_wrong_key_of_a_reservation_is_named(key: Any) -> None:
    """What it looks like as text does not become the key."""
    arguments: dict[str, Any] = {"user_id": WHO, "amount": 1, "key": key}
    with pytest.raises(Invalid) as refused, reserve(Session, **arguments):
        pass
    check(refused, "key")
    with pytest.raises(Invalid) as refused:
        async with reserve_async(AsyncSession, **arguments):
            pass
    check(refused, "key")


def own_commands(user_id: uuid.UUID, transaction_id: uuid.UUID) -> list[Command]:
    """One of each kind that the ledger gives itself."""
    bought = purchase(
        user_id, 5, transaction_id=transaction_id, stripe_session_id="cs_1", actor="system:stripe"
    )
    return [opening(user_id, 1), assignment(user_id, 1, actor="system:orm"), bought]


async def test_the_ledgers_own_commands_are_refused_from_callers(
    db: Session, async_db: AsyncSession
) -> None:
    """Wherever a command can be put, whatever it looks like; nothing is written."""
    who = make_user(db, 10).user_id
    engine = Engine.from_settings(get_settings())

    class Disguised(Grant, frozen=True, kw_only=True):
        is_own = True

    disguised = Disguised(user_id=who, amount=1, key="~purchase:cs_1", actor="system:stripe")
    for command in [*own_commands(who, WHO), disguised]:
        for refusing in (ledger.execute, ledger.execute_each):
            with pytest.raises(Invalid, match="commands: "):
                refusing(db, [command])
        with pytest.raises(Invalid, match="command: "):
            ledger.preview(db, command)
        with pytest.raises(Invalid, match="commands: "):
            await async_ledger.execute(async_db, [command])
        with pytest.raises(Invalid, match="command: "):
            await engine.execute(command)
        with pytest.raises(Invalid, match="command: "):
            engine.submit(command)
    assert journal(db, who) == [("grant", 10)]


@pytest.mark.parametrize("actor", ["system:application", "system:stripe", "key:a", "user:1"])
def test_nobody_takes_the_key_of_a_purchase_or_an_expiry(db: Session, actor: str) -> None:
    """The real purchase is credited all the same, and what falls due is booked."""
    who = make_user(db, 10, now=NOW).user_id
    mine: dict[str, Any] = {"user_id": who, "amount": 1, "actor": actor}
    for key in ("~purchase:cs_1", "~lot_expiry:3"):
        for kind in (Grant, Spend):
            with pytest.raises(Invalid) as refused:
                ledger.execute(db, [kind(key=key, **mine)])
            assert refused.value.details["field"] in {"key", "actor"}
        for word in (ledger.grant, ledger.spend):
            with pytest.raises(Invalid):
                word(db, who, 1, key=key, actor=actor)
    transaction_id = write_purchase(db, who, 5).transaction_id
    [*_, bought] = own_commands(who, transaction_id)
    operations.execute(db, [bought], now=NOW)
    assert booked_balance(db, who) == 15
