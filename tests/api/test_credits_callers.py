"""Who may move credits over HTTP, and whom the journal names."""

import uuid

import pytest
from sqlalchemy import func, select

from src.common.accounts.api_keys import Scope
from src.common.models.credit_entry import CreditEntry
from tests.api.credits import GRANT, WRITER, WRITES, done, fresh_key, post
from tests.api.tokens import make_token
from tests.fixtures.api import Api, error_type_of, fetch, make_api_key, make_user

SCOPES_OF = {
    path: {Scope.CREDITS_GRANT} if path in {"grant", "adjust"} else {Scope.CREDITS_SPEND}
    for path in WRITES
} | {"entries/1/reverse": {Scope.CREDITS_SPEND, Scope.CREDITS_GRANT}}
"""Any of them is enough."""


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("dry_run", ["", "?dry_run=true"])
async def test_a_write_needs_its_own_scope(api: Api, path: str, dry_run: str) -> None:
    """403 with every other scope, whether or not the user exists, before key and body."""
    user = await make_user()
    token = await make_api_key(*(set(Scope) - SCOPES_OF[path]), service_name="all but those")
    for user_id in (user.user_id, uuid.uuid4()):
        answer = await post(api, token, user_id, path + dry_run, {"nonsense": 1}, {})
        assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
        for scope in SCOPES_OF[path]:
            allowed = await make_api_key(scope, service_name=f"only {scope}")
            answer = await post(api, allowed, user_id, path + dry_run, WRITES[path])
            assert answer.status_code != 403


@pytest.mark.parametrize("path", WRITES)
async def test_users_move_no_credits_themselves(api: Api, path: str) -> None:
    """403 for one's own token on one's own account; an admin may."""
    user = await make_user()
    answer = await post(api, make_token(user.user_id), user.user_id, path, WRITES[path])
    assert (answer.status_code, error_type_of(answer)) == (403, "FORBIDDEN")
    admin = await make_user(user_type="admin")
    answer = await post(api, make_token(admin.user_id), user.user_id, path, WRITES[path])
    assert answer.status_code != 403


async def test_the_journal_names_who_did_it(api: Api) -> None:
    """A service by its name, an admin by id; the key's own id is in no entry."""
    user, admin = await make_user(), await make_user(user_type="admin")
    token = await make_api_key(*WRITER, service_name="renderer")
    await done(api, token, user.user_id, "grant", GRANT)
    await done(api, make_token(admin.user_id), user.user_id, "spend", {"amount": 1})
    actors = await fetch(
        select(func.array_agg(CreditEntry.actor)).where(CreditEntry.user_id == user.user_id)
    )
    assert actors == ["key:renderer", f"user:{admin.user_id}"]


async def test_a_service_whose_key_was_rotated_can_still_replay(api: Api) -> None:
    """The principal is the service, not its key."""
    user = await make_user()
    old, new = [await make_api_key(*WRITER, service_name="renderer") for _ in range(2)]
    other = await make_api_key(*WRITER, service_name="exporter")
    key = fresh_key()
    await post(api, old, user.user_id, "grant", GRANT, key)
    again = await post(api, new, user.user_id, "grant", GRANT, key)
    assert again.headers["Idempotent-Replayed"] == "true"
    refused = await post(api, other, user.user_id, "grant", GRANT, key)
    assert error_type_of(refused) == "IDEMPOTENCY_KEY_REUSED"
