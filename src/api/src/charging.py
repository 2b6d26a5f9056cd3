"""`charge`: an endpoint that costs credits, which are taken only if it succeeds.

    @router.post("/render", dependencies=[Depends(charge(10, reference="render"))])

The dependency opens a hold before the endpoint runs. `ChargingMiddleware`
(`charging_middleware.py`) captures or releases it before the first byte of the answer. A process
that dies leaves the hold to its expiry.

With an `Idempotency-Key` a request is done once. Whoever sends it again while it is being done is
told to wait. Later they get the answer of the first, or are told that it was charged.
"""

import hashlib
import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from src.api.src.charging_middleware import Charges, charges_of
from src.api.src.dependencies import Caller, SettingsOf
from src.api.src.head_requests import ASKED_AS_HEAD
from src.api.src.principals import Principal
from src.common.accounts.api_keys import Scope
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import charged_requests, ledger, requests
from src.common.credits.charged_requests import Answer, Claim
from src.common.credits.domain import errors
from src.common.credits.domain.commands import KEY_LENGTH_MAX
from src.common.credits.domain.digest import digested_bytes
from src.common.credits.reservation import Reservation, ReservationState, do_to_end
from src.common.exceptions import Invalid
from src.common.routing import async_routed_to

T = TypeVar("T")
FromRequest: TypeAlias = T | Callable[[Request], T | Awaitable[T]]
"""A value, or a function of the request that gives it; a plain function must not block."""

HOLD_SECONDS = 300
"""How long an endpoint may take; a dead process's hold goes back after it."""
_USER_HEADER = "X-User-ID"


async def _charged_user(
    caller: Caller,
    x_user_id: Annotated[
        uuid.UUID | None,
        Header(
            description="The user to charge, named by a service whose key has the scope "
            f"`{Scope.CREDITS_SPEND}`; a user charges themselves, an admin anybody."
        ),
    ] = None,
) -> uuid.UUID:
    if x_user_id is not None:
        caller.require_own_or(Scope.CREDITS_SPEND, x_user_id)
        return x_user_id
    if caller.user_id is not None:
        return caller.user_id
    caller.require(Scope.CREDITS_SPEND)
    raise Invalid(
        f"{_USER_HEADER}: a service names the user to charge",
        "VALIDATION_ERROR",
        field=_USER_HEADER,
    )


ChargedUser = Annotated[uuid.UUID, Depends(_charged_user)]
"""The user who pays: the calling user, or whom a service names."""
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=KEY_LENGTH_MAX,
        description="Yours, unique per user: the same request sent again with it is done once.",
    ),
]


class Charge:
    """A dependency that charges for its endpoint: what `charge` makes."""

    def __init__(
        self,
        amount: FromRequest[int],
        reference: FromRequest[str | None],
        metadata: FromRequest[Mapping[str, Any] | None],
        expires_in_seconds: int,
    ) -> None:
        self._amount = amount
        self._reference = reference
        self._metadata = metadata
        self._expires_in_seconds = expires_in_seconds
        self._is_computed = any(map(callable, (amount, reference, metadata)))
        _check(
            1 if callable(amount) else amount,
            None if callable(reference) else reference,
            None if callable(metadata) else metadata,
            expires_in_seconds,
        )

    async def __call__(
        self,
        request: Request,
        caller: Caller,
        user_id: ChargedUser,
        settings: SettingsOf,
        idempotency_key: IdempotencyKey = None,
    ) -> Reservation:
        """Hold the credits, and give the endpoint the reservation."""
        if request.scope.get(ASKED_AS_HEAD):
            raise HTTPException(405, "HEAD is not charged", {"Allow": "GET"})
        charges = charges_of(request)
        is_first = not charges.reservations
        if is_first and idempotency_key is not None:
            charges.claim = await _claim(request, charges, caller, user_id, idempotency_key)
            charges.replay_seconds = settings.charge_replay_seconds
            charges.replay_max_bytes = settings.charge_replay_max_bytes
            if self._is_computed:  # what was charged is not computed again
                await _look(charges, charges.claim)
        # A second charge of the same request is another one.
        holds = charges.claim.hold_key if charges.claim else f"charge:{uuid.uuid4().hex}"
        terms = (
            await _resolve(self._amount, request),
            await _resolve(self._reference, request),
            await _resolve(self._metadata, request),
        )
        _check(*terms, self._expires_in_seconds)
        amount, reference, metadata = terms
        reservation = Reservation(
            user_id=user_id,
            amount=amount,
            key=f"{holds}:{len(charges.reservations)}",
            reference=reference,
            metadata=metadata,
            expires_in_seconds=self._expires_in_seconds,
            actor=caller.actor,
        )
        charges.reservations.append(reservation)  # also what a cancellation opens is given back
        await _open(charges, reservation, charges.claim if is_first else None)
        return reservation


def charge(
    amount: FromRequest[int],
    *,
    reference: FromRequest[str | None] = None,
    metadata: FromRequest[Mapping[str, Any] | None] = None,
    expires_in_seconds: int = HOLD_SECONDS,
) -> Charge:
    """A dependency that charges for its endpoint, if the endpoint succeeds: answers 2xx or 3xx.

    The calling user pays, or whom a service names in `X-User-ID`. The dependency gives the endpoint
    the `Reservation`. The endpoint may lower its `used` to charge less. Its `user_id` is who pays.

    A request with an `Idempotency-Key` is done and charged once, however often it is sent. One
    without is done and charged each time.

    The first three arguments may each be a function of the request, sync or async.

    Args:
        amount: Whole credits, 1 or more: what the endpoint costs at most.
        reference: What it is for, in the history.
        metadata: JSON kept beside the entry.
        expires_in_seconds: How long the endpoint may take, 1 to 2,592,000 (30 days). After that the
            request may be begun anew. One of the two is then charged, and only that one answered.

    Raises:
        ValueError: At once, where a value is none that the ledger takes. What a function gives is
            checked with its request, before anything is held: 500, since no client can mend it.
        InsufficientCredits: INSUFFICIENT_CREDITS, as all below before the endpoint runs.
        Conflict: IDEMPOTENCY_KEY_REUSED, REQUEST_IN_PROGRESS, ALREADY_CHARGED.
        Forbidden: FORBIDDEN, a service without the scope, or a user who names somebody else.
    """
    return Charge(amount, reference, metadata, expires_in_seconds)


def _check(amount: object, reference: object, metadata: object, expires_in_seconds: object) -> None:
    """Refuse what no hold can be opened with; the programmer's error, whoever the client is."""
    values: dict[str, Any] = {
        "amount": amount,
        "reference": reference,
        "metadata": metadata,
        "expires_in_seconds": expires_in_seconds,
    }
    try:
        requests.open_hold(uuid.UUID(int=0), **values, key="charge")
    except Invalid as error:
        raise ValueError(f"charge(): {error.message}") from None


async def _resolve(value: FromRequest[T], request: Request) -> T:
    if not callable(value):
        return value
    found: Any = value(request)
    result: T = await found if inspect.isawaitable(found) else found
    return result


async def _claim(
    request: Request, charges: Charges, caller: Principal, user_id: uuid.UUID, key: str
) -> Claim:
    asked = digested_bytes(  # its digest is kept in no cache: it is of what clients send
        caller.actor,
        "charge",
        request.method,
        request.scope["path"],
        request.scope["query_string"].decode("latin-1"),
        (await charges.client.body_digest()).hex(),
    )
    return Claim(
        user_id, key=hashlib.sha256(key.encode()).digest(), request=hashlib.sha256(asked).digest()
    )


async def _look(charges: Charges, claim: Claim) -> None:
    """Answer a request that was done before, without holding anything."""
    async with async_routed_to(claim.user_id):
        charges.stored = await run_in_async_database_transaction(
            lambda session: charged_requests.find_answer(session, claim)
        )
    _leave_what_is_stored(charges)


async def _open(charges: Charges, reservation: Reservation, claim: Claim | None) -> None:
    """Hold the credits, and claim the request with them."""
    stored: Answer | None = None

    def work(session: Session) -> list[ReservationState]:
        nonlocal stored
        if claim is None:
            return [reservation.open(session)]
        ledger.lock_users(session, [claim.user_id])
        stored = charged_requests.find_answer(session, claim)
        if stored is not None:
            return [ReservationState.NEW]
        state = reservation.open(session)
        charged_requests.take(session, claim, reservation.hold_seq, reservation.expires_in_seconds)
        return [state]

    async with async_routed_to(reservation.user_id):
        await do_to_end(run_in_async_database_transaction, [reservation], work)
    charges.stored = stored  # once that is confirmed: the middleware sends it whatever is raised
    _leave_what_is_stored(charges)


def _leave_what_is_stored(charges: Charges) -> None:
    """End the request where an answer is stored, which the middleware sends in place of this one.

    Raises:
        Conflict: ALREADY_CHARGED.
    """
    if charges.stored is not None:
        raise errors.already_charged()
