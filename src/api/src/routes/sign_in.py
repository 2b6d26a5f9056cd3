"""Signing in, by a route with a fast path for those who are known."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from src.api.src.authentication import identity_of
from src.api.src.dependencies import claims_at_hand, claims_of
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.fast_path import FastReadRoute
from src.api.src.routes import API_PREFIX
from src.api.src.schemas.users import SignInOut
from src.common.accounts import operations as accounts
from src.common.accounts.known_sign_ins import SigningIn
from src.common.accounts.operations import Identity, SignIn
from src.common.accounts.rules import is_reserved_email
from src.common.async_database import run_in_async_database_transaction
from src.common.postgres.routes import WrongShard
from src.common.postgres.shared_statements import AsksTogether, NotAnswered
from src.common.routing import async_routed_to_sign_up

router = APIRouter(prefix=API_PREFIX, tags=["users"], route_class=FastReadRoute)
"""Its routes are the application's own, see `FastReadRoute`."""


@dataclass(frozen=True)
class SignInRequest:
    """The claims of a genuine user's token, whether or not the user has a row yet."""

    claims: dict[str, Any]
    known: AsksTogether[SigningIn, bool] | None = None

    async def do(self) -> SignInOut:
        """Sign in: with all who do now, where that changes nothing else; otherwise alone."""
        identity = identity_of(self.claims)
        if self.known is not None and not is_reserved_email(identity.email):
            with suppress(NotAnswered):
                if await self.known.read(SigningIn(identity.user_id, identity.email)):
                    return SignInOut(
                        internal_id=identity.user_id, status="authenticated", is_new_user=False
                    )
        try:
            sign_in = await _sign_in(identity)
        except WrongShard:  # the first sight came twice at once, and the other chose another group
            sign_in = await _sign_in(identity)
        return SignInOut(
            internal_id=sign_in.user.user_id,
            status="created" if sign_in.is_new else "authenticated",
            is_new_user=sign_in.is_new,
        )


async def _sign_in(identity: Identity) -> SignIn:
    async with async_routed_to_sign_up(identity.user_id):
        return await run_in_async_database_transaction(
            lambda session: accounts.sign_in(session, identity)
        )


class _SignsIn:
    """A dependency: somebody with a genuine user's token."""

    async def __call__(
        self, claims: Annotated[dict[str, Any], Depends(claims_of)]
    ) -> SignInRequest:
        return SignInRequest(claims)

    async def at_hand(self, request: Request) -> SignInRequest | None:
        """The same where sign-ins are noted together."""
        known: AsksTogether[SigningIn, bool] | None = getattr(
            request.app.state, "known_sign_ins", None
        )
        claims = await claims_at_hand(request) if known is not None else None
        return None if claims is None else SignInRequest(claims, known)


@router.post(
    "/authenticate-jwt",
    summary="Sign in with a Supabase token",
    responses=error_responses(*EVERYWHERE, *AUTHENTICATED, "EMAIL_TAKEN"),
    response_model=SignInOut,
)
async def authenticate_jwt(request: Annotated[SignInRequest, Depends(_SignsIn())]) -> Response:
    """Create the user at the first sign-in, record the sign-in, take over a changed e-mail."""
    answer = await request.do()
    return Response(answer.model_dump_json(), media_type="application/json")
