"""Our own code never lazy-loads: with `raiseload("*")` on every query each route still works."""

from collections.abc import Callable, Generator

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import ORMExecuteState, Session, raiseload

from src.common.accounts import api_keys, queries
from src.common.accounts import operations as accounts
from src.common.accounts.operations import Identity
from src.common.models.api_key import ApiKey
from src.common.models.user import User
from src.common.purchases import unmatched
from src.common.stripe import inbox
from tests.api.tokens import make_token
from tests.fixtures.api import Api, make_api_key, make_user
from tests.models.examples import a_user
from tests.stripe.payments import make_event, make_session


@pytest.fixture(autouse=True)
def no_lazy_loading() -> Generator[None]:
    """Every query of every session refuses to load more later, columns included."""

    def refuse(state: ORMExecuteState) -> None:
        if state.is_relationship_load:
            raise InvalidRequestError("a relationship was loaded lazily")
        if state.is_select and not state.is_column_load:
            state.statement = state.statement.options(raiseload("*"))

    event.listen(Session, "do_orm_execute", refuse)
    yield
    event.remove(Session, "do_orm_execute", refuse)


def test_the_guard_sees_a_lazy_load(db: Session) -> None:
    """The counter-test: touching a relationship is an error here."""
    db.add(a_user())
    db.commit()
    db.expunge_all()
    user = db.scalars(select(User)).one()
    with pytest.raises(InvalidRequestError):
        _ = user.transactions


async def test_no_route_loads_lazily(api: Api) -> None:
    """Every route answers 200 under asyncio, where a lazy load is an error anyway."""
    user = await make_user()
    token = make_token(user.user_id, email="new@example.com")
    key = await make_api_key("users:read")
    session = make_session(user)
    unpaid = make_event(make_session(user, payment_status="unpaid"))
    answers = [
        await api.deliver(make_event(session)),
        await api.deliver(make_event(session)),
        await api.deliver(unpaid),
        await api.deliver(make_event(session, "ping")),
        await api.call("POST", "/authenticate-jwt", token),
        await api.sign_in(email="somebody@example.com", user_metadata={"full_name": "Some Body"}),
        await api.call("PATCH", "/update_profile", token, json={"company": "X", "first_name": "Y"}),
        await api.get(f"/user/{user.user_id}", token),
        await api.get(f"/user/{user.user_id}", key),
        await api.get(f"/user/{user.user_id}/transactions", token),
        await api.client.get("/readyz"),
        await api.client.get("/metrics"),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)


def results(db: Session) -> list[object]:
    """What each operation that a command or route uses gives back."""
    user = accounts.create_user(db, email="ada@example.com", first_name="Ada")
    issued = api_keys.create_api_key(db, service_name="slides", scopes=["users:read"])
    return [
        user,
        queries.get_user(db, user.user_id),
        queries.find_user_by_email(db, "ADA@example.com"),
        accounts.sign_in(db, Identity(user.user_id, "new@example.com")).user,
        accounts.update_profile(db, user.user_id, {"company": "X"}),
        accounts.set_user_type(db, user.user_id, "admin"),
        accounts.set_active(db, user.user_id, is_active=False),
        accounts.erase_user(db, user.user_id),
        issued.record,
        api_keys.revoke_api_key(db, issued.record.key_id),
        *api_keys.list_api_keys(db),
        *inbox.events_matching(db, limit=10),
        *unmatched.open_unmatched_payments(db, 10),
    ]


def test_what_operations_give_back_is_loaded_whole(db: Session) -> None:
    """After the session is closed each column can still be read: nothing was left expired."""
    rows = results(db)
    db.commit()
    db.expunge_all()
    for row in rows:
        assert isinstance(row, (User, ApiKey))
        for attribute in type(row).__mapper__.column_attrs:
            getattr(row, attribute.key)


ONE_AT_A_TIME: list[Callable[[Session, User], object]] = [
    lambda db, user: accounts.sign_in(db, Identity(user.user_id, user.email)).user,
    lambda db, user: accounts.update_profile(db, user.user_id, {"first_name": "A"}),
    lambda db, user: accounts.set_active(db, user.user_id, is_active=False),
    lambda db, user: accounts.erase_user(db, user.user_id),
]


@pytest.mark.parametrize("change", ONE_AT_A_TIME, ids=["sign in", "update", "deactivate", "erase"])
def test_a_changed_user_is_loaded_whole(
    db: Session, change: Callable[[Session, User], object]
) -> None:
    """The values the server set are there without another query."""
    person = a_user()
    db.add(person)
    db.commit()
    changed = change(db, person)
    db.expunge_all()
    assert isinstance(changed, User)
    assert {attribute.key for attribute in User.__mapper__.column_attrs} <= set(vars(changed))
