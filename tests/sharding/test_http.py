"""HTTP for users of different groups, by turns and at once: each sees and moves their own."""

import asyncio
import uuid

import pytest

from src.common.database import get_engine
from src.common.doctor.checks import Status
from src.common.routing import known_routes
from src.common.sharding.copying.closing import close
from src.common.sharding.copying.databases import Database
from tests.api.tokens import make_token
from tests.fixtures.api import StartApi, error_type_of
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import check_all_books, count_entries, people, service_key
from tests.sharding.test_doctor import examined

ONE_CONNECTION = {"DATABASE_ASYNC_POOL_SIZE": "1", "DATABASE_ASYNC_MAX_OVERFLOW": "0"}
SPENDS = 5
POOLERS = pytest.mark.parametrize("pooler", ["none", "transaction"])


@POOLERS
async def test_users_of_two_groups_by_turns_on_one_connection(
    start_service: StartApi, pooler: str
) -> None:
    """Profile, balance, journal and purchases are the user's own, whoever was served before."""
    ada, bob = people(1, 100)
    api = await start_service(DATABASE_POOLER=pooler, **ONE_CONNECTION)
    key = service_key()
    for number in range(SPENDS):
        for user_id in (ada, bob):
            path, own = f"/user/{user_id}", make_token(user_id)
            spent = await api.call(
                "POST",
                f"{path}/credits/spend",
                key,
                json={"amount": 1},
                headers={"Idempotency-Key": f"turn-{number}"},
            )
            assert spent.json()["balance"] == 99 - number, spent.text
            assert (await api.get(path, own)).json()["user_id"] == str(user_id)
            for token in (own, key):
                found = (await api.get(f"{path}/credits", token)).json()
                assert found["balance"] == 99 - number
                page = (await api.get(f"{path}/credits/entries", token)).json()
                assert [each["seq"] for each in page["items"]] == list(range(number + 2, 0, -1))
                assert (await api.get(f"{path}/transactions", token)).json()["items"] == []
                assert (await api.get(f"{path}/credits/holds", token)).json()["items"] == []
            explained = (await api.get(f"{path}/credits/explain", key)).json()
            assert explained["agrees"]
    assert check_all_books() == 2


async def test_a_storm_of_spends_over_groups_is_exact(start_service: StartApi) -> None:
    """Keys sent twice at once are booked once; nothing is booked to a user of another group."""
    users = people(6, 50)
    api = await start_service()
    key = service_key()

    async def spend(user_id: uuid.UUID, number: int) -> int:
        answer = await api.call(
            "POST",
            f"/user/{user_id}/credits/spend",
            key,
            json={"amount": 1},
            headers={"Idempotency-Key": f"storm-{number}"},
        )
        return answer.status_code

    wanted = [(user_id, number) for number in range(20) for user_id in users] * 2
    answers = await asyncio.gather(*(spend(*each) for each in wanted))
    assert set(answers) == {200}
    assert [balance_of(user_id) for user_id in users] == [30] * len(users)
    assert [count_entries(user_id) for user_id in users] == [21] * len(users)
    assert check_all_books() == len(users)


def close_database() -> None:
    """As a copy does."""
    with get_engine().connect() as connection:
        database = Database(connection, [*GROUPS])
        close(database)
        database.raw.commit()


async def test_a_service_is_ready_until_its_database_is_closed(start_service: StartApi) -> None:
    """Whoever balances load sends it nothing more, and it is told that it was closed."""
    api = await start_service()
    assert (await api.client.get("/readyz")).status_code == 200
    await asyncio.to_thread(close_database)
    refused = await api.client.get("/readyz")
    assert refused.status_code == 503
    assert "database closed" in refused.json()["detail"]["message"]
    found = (await asyncio.to_thread(examined, "database"))["database"]
    assert found.status is Status.FAIL
    assert "closed to writes" in found.seen


async def test_nobody_is_told_of_others_whatever_the_group(start_service: StartApi) -> None:
    """A token of another group's user is refused before anybody is looked for, as ever."""
    ada, bob = people(1, 100)
    api = await start_service()
    for path in ("", "/credits", "/credits/entries", "/transactions", "/credits/explain"):
        refused = await api.get(f"/user/{bob}{path}", make_token(ada))
        assert (refused.status_code, error_type_of(refused)) == (403, "FORBIDDEN")
        unknown = await api.get(f"/user/{uuid.uuid4()}{path}", service_key())
        assert (unknown.status_code, error_type_of(unknown)) == (404, "USER_NOT_FOUND")


async def test_an_administrator_reads_users_of_other_groups(start_service: StartApi) -> None:
    """Who asks and who is asked about need not be of one group."""
    admin, bob = user_of(GROUPS[0], user_type="admin"), user_of(GROUPS[1], 70)
    api = await start_service()
    found = await api.get(f"/user/{bob}/credits", make_token(admin))
    assert found.json()["balance"] == 70


async def test_newcomers_sign_in_and_are_spread_over_the_groups(start_service: StartApi) -> None:
    """The first sign-in makes the user in some group, the next finds them there.

    An e-mail is taken in all groups.
    """
    api = await start_service()
    newcomers = {uuid.uuid4(): f"new-{number}@example.com" for number in range(len(GROUPS) * 2)}
    made = [await api.sign_in(user_id, email=email) for user_id, email in newcomers.items()]
    assert [each.json()["status"] for each in made] == ["created"] * len(newcomers)
    groups = {known_routes().get(user_id) for user_id in newcomers}
    assert groups <= {*GROUPS, None}
    again = [await api.sign_in(user_id, email=email) for user_id, email in newcomers.items()]
    assert [each.json()["status"] for each in again] == ["authenticated"] * len(newcomers)
    taken = await api.sign_in(uuid.uuid4(), email="NEW-0@example.com")
    assert (taken.status_code, error_type_of(taken)) == (409, "EMAIL_TAKEN")


async def test_first_sights_of_one_user_at_once_make_one_user(start_service: StartApi) -> None:
    """Whichever groups they chose."""
    api = await start_service()
    user_id = uuid.uuid4()
    answers = await asyncio.gather(*(api.sign_in(user_id) for _ in range(8)))
    assert {each.status_code for each in answers} == {200}
    assert [each.json()["status"] for each in answers].count("created") == 1


async def test_a_profile_is_changed_where_the_user_is(start_service: StartApi) -> None:
    """A change, and its refusal, concern the caller's own group."""
    ada, bob = people(1)
    api = await start_service()
    for user_id, name in ((ada, "Ada"), (bob, "Bob")):
        changed = await api.call(
            "PATCH", "/update_profile", make_token(user_id), json={"first_name": name}
        )
        assert changed.json()["first_name"] == name
        assert (await api.get(f"/user/{user_id}", make_token(user_id))).json()["first_name"] == name


async def test_a_batch_moves_credits_in_several_groups(start_service: StartApi) -> None:
    """Each item is its user's; previews look there too."""
    users = people(2, 40)
    api = await start_service()
    key = service_key()
    items = [
        {"operation": "spend", "user_id": str(each), "amount": 7, "idempotency_key": "batch"}
        for each in users
    ]
    answer = await api.call("POST", "/credits/batch", key, json={"items": items})
    assert [each["status"] for each in answer.json()["results"]] == [200] * len(users)
    assert [balance_of(each) for each in users] == [33] * len(users)
    for user_id in users:
        foreseen = await api.call(
            "POST", f"/user/{user_id}/credits/spend?dry_run=true", key, json={"amount": 3}
        )
        assert foreseen.json()["balance"] == 30, foreseen.text


async def test_the_metrics_are_of_all_groups(start_service: StartApi) -> None:
    """The figures of users' tables are added up, and those of everybody's are read once."""
    people(1, 10)
    api = await start_service()
    metrics = (await api.client.get("/metrics")).text
    assert "flashslides_database_up 1.0" in metrics
