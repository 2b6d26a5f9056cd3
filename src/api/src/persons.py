"""What a person's token may do alone: services are no persons, and have nobody to ask (rule 13)."""

from dataclasses import dataclass

from src.api.src.dependencies import Ledger
from src.api.src.principals import Principal
from src.common.approvals.operations import execute_alone, request_alone
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.domain.commands import Adjust, Command, Grant, Result, Reverse
from src.common.purchases.refunds import RefundWish
from src.common.settings import Settings


@dataclass(frozen=True)
class _Alone:
    """The ledger for somebody who has to ask another person above limits."""

    ledger: Ledger
    limits: Limits

    async def execute(self, command: Command) -> Result:
        """Do it, or refuse it with CONSENT_NEEDED."""
        if not isinstance(command, Grant | Adjust | Reverse):
            return await self.ledger.execute(command)
        return await run_in_async_database_transaction(
            lambda session: execute_alone(session, command, self.limits)
        )


def limits_of(caller: Principal, settings: Settings) -> Limits | None:
    """Above what this caller has to ask; None where they need not."""
    is_bound = caller.is_person and settings.approvals_required
    return Limits.of(settings) if is_bound else None


def ledger_for(caller: Principal, ledger: Ledger, settings: Settings) -> Ledger:
    """The ledger as this caller may use it."""
    limits = limits_of(caller, settings)
    return ledger if limits is None else _Alone(ledger, limits)


async def begin_refund(caller: Principal, settings: Settings, wish: RefundWish) -> None:
    """Write a refund down that this caller may pay back alone.

    Raises:
        ExceptionWithErrorType: as `request_alone`.
    """
    limits = limits_of(caller, settings)
    if limits is not None:
        await run_in_async_database_transaction(
            lambda session: request_alone(session, wish, limits)
        )
