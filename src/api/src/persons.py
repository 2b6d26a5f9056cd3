"""What is done by hand over HTTP, where nobody can be asked (rule 13).

An administrator's own token obeys the limits where APPROVALS_REQUIRED says so. A service has a key
that two people made, and is bounded by it. Neither uses the key of what somebody asked for.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

from src.api.src.dependencies import Ledger
from src.api.src.principals import Principal
from src.common.approvals.alone import execute_alone, is_asked_for, request_alone
from src.common.approvals.asked_keys import AskedKeys, UsedKey
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.domain import errors
from src.common.credits.domain.commands import Adjust, Command, Grant, Release, Result, Reverse
from src.common.postgres.shared_statements import NotAnswered
from src.common.purchases.refunds import RefundWish
from src.common.routing import async_routed_to
from src.common.settings import Settings

if TYPE_CHECKING:
    from starlette.datastructures import State


@dataclass(frozen=True)
class _Alone:
    """The ledger for somebody who has to ask another person above limits."""

    ledger: Ledger
    limits: Limits

    async def execute(self, command: Command) -> Result:
        """Do it, or refuse it with CONSENT_NEEDED."""
        if not isinstance(command, Grant | Adjust | Reverse | Release):
            return await self.ledger.execute(command)
        async with async_routed_to(command.user_id):
            return await run_in_async_database_transaction(
                lambda session: execute_alone(session, command, self.limits)
            )


@dataclass(frozen=True)
class ByHand:
    """The ledger for whoever has nobody to ask: not with the key of what somebody asked for."""

    ledger: Ledger
    asked_keys: AskedKeys | None

    @classmethod
    def of(cls, state: "State") -> "ByHand":
        """That of the service."""
        return cls(state.ledger, getattr(state, "asked_keys", None))

    async def execute(self, command: Command) -> Result:
        """Do it, or refuse it with IDEMPOTENCY_KEY_REUSED."""
        return await (await self.looked_up([command])).execute(command)

    async def looked_up(self, commands: Sequence[Command]) -> Ledger:
        """The ledger for these, whose keys are looked up already: it gets them in their order."""
        by_hand = [each for each in commands if isinstance(each, Grant | Adjust | Reverse)]
        if not by_hand:
            return self.ledger
        are_asked_for = await asyncio.gather(*map(self._is_asked_for, by_hand))
        asked = (UsedKey(each.user_id, each.key) for each in compress(by_hand, are_asked_for))
        return _LookedUp(self.ledger, frozenset(asked))

    async def _is_asked_for(self, command: Grant | Adjust | Reverse) -> bool:
        """By one statement for all who look; by a session where that fails."""
        if self.asked_keys is not None:
            with suppress(NotAnswered):
                used = UsedKey(command.user_id, command.key)
                return await self.asked_keys.read(used) is not None
        return await run_in_async_database_transaction(
            lambda session: is_asked_for(session, command.user_id, command.key)
        )


@dataclass(frozen=True)
class _LookedUp:
    """The ledger, but for the keys that requests have."""

    ledger: Ledger
    asked: frozenset[UsedKey]

    async def execute(self, command: Command) -> Result:
        """As `ByHand.execute`, in one step up to the ledger's."""
        if isinstance(command, Grant | Adjust | Reverse) and self._has(command):
            raise errors.key_reused()
        return await self.ledger.execute(command)

    def _has(self, command: Grant | Adjust | Reverse) -> bool:
        return UsedKey(command.user_id, command.key) in self.asked


def limits_of(caller: Principal, settings: Settings) -> Limits | None:
    """Above what this caller has to ask; None where they need not."""
    is_bound = caller.is_person and settings.approvals_required
    return Limits.of(settings) if is_bound else None


def ledger_for(caller: Principal, state: "State") -> "ByHand | _Alone":
    """The service's ledger as this caller may use it."""
    limits = limits_of(caller, state.settings)
    return ByHand.of(state) if limits is None else _Alone(state.ledger, limits)


async def begin_refund(caller: Principal, settings: Settings, wish: RefundWish) -> None:
    """Write a refund down that this caller may pay back alone.

    Raises:
        ExceptionWithErrorType: as `request_alone`.
    """
    limits = limits_of(caller, settings)
    await run_in_async_database_transaction(lambda session: request_alone(session, wish, limits))
