"""Users: sign-in, profile, purchases."""

from fastapi import APIRouter, Response

from src.api.src.dependencies import Caller, CallingUser
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, error_responses
from src.api.src.known_parameters import KNOWN_PARAMETERS_ONLY
from src.api.src.lagging import ReaderOfUser, headers_of
from src.api.src.routes import Cursor, Limit, UserId
from src.api.src.schemas.users import ProfileIn, TransactionPage, UserOut
from src.common.accounts import operations as accounts
from src.common.accounts import queries
from src.common.accounts.api_keys import Scope
from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.postgres.pagination import PAGE_SIZE_DEFAULT
from src.common.purchases.queries import list_purchases_of
from src.common.routing import async_routed_to

router = APIRouter(tags=["users"], dependencies=[KNOWN_PARAMETERS_ONLY])


@router.get(
    "/user/{user_id}",
    summary="One user",
    responses=error_responses(*EVERYWHERE, *AUTHENTICATED, "USER_NOT_FOUND"),
)
async def get_user(user_id: UserId, caller: Caller) -> UserOut:
    """Read a user's profile and balance."""
    caller.require_own_or(Scope.USERS_READ, user_id)
    async with async_routed_to(user_id):
        user = await read_from_async_database(lambda session: queries.get_user(session, user_id))
    return UserOut.model_validate(user)


@router.get(
    "/user/{user_id}/transactions",
    summary="One user's purchases",
    responses=error_responses(*EVERYWHERE, *AUTHENTICATED, "USER_NOT_FOUND"),
)
async def list_transactions(
    user_id: UserId,
    caller: Caller,
    reader: ReaderOfUser,
    response: Response,
    cursor: Cursor = None,
    limit: Limit = PAGE_SIZE_DEFAULT,
) -> TransactionPage:
    """List what a user bought, newest first, a page at a time."""
    caller.require_own_or(Scope.USERS_READ, user_id)
    async with async_routed_to(user_id):
        page = await reader.read(list_purchases_of, user_id, cursor=cursor, limit=limit)
    response.headers.update(headers_of(page.read_from))
    return TransactionPage.model_validate(page.value)


@router.patch(
    "/update_profile",
    summary="Change one's own profile",
    responses=error_responses(*EVERYWHERE, *AUTHENTICATED, "BAD_REQUEST", "USER_NOT_FOUND"),
)
async def update_profile(caller: CallingUser, profile: ProfileIn) -> UserOut:
    """Change the fields that the body names."""
    assert caller.user_id is not None  # noqa: S101  CallingUser says so
    user_id, changes = caller.user_id, profile.model_dump(exclude_unset=True)
    async with async_routed_to(user_id):
        user = await run_in_async_database_transaction(
            lambda session: accounts.update_profile(session, user_id, changes)
        )
    return UserOut.model_validate(user)
