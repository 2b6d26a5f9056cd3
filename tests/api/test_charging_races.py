"""One request, sent by several at once or by somebody who died: done once, and charged once."""

import asyncio
import multiprocessing
import uuid
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from typing import Annotated

from fastapi import Depends
from sqlalchemy import select

from src.api.src.charging import charge
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.reservation import Reservation
from src.common.models import CreditHold
from src.local_postgres import ConnectionParameters
from tests.api.charged_app import (
    HOLDS_GATE,
    OPENS_GATE,
    PRICE,
    RUNS,
    TOLD,
    add_render,
    ask,
    prepare,
    told,
)
from tests.api.tokens import ISSUER, jwk_set, make_token
from tests.credits.committed import balances, look, open_holds
from tests.fixtures.api import Api, StartApi, error_type_of, make_user, until
from tests.fixtures.databases import environment_of
from tests.postgres.drivers import open_connection
from tests.postgres.drivers import until as until_in

START = 100
PROCESSES = 2
REQUESTS = 6
"""Of each process."""


def forking() -> ForkServerContext:
    """Makes processes that need not import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.api.charged_app"])
    return context


def environment(database: ConnectionParameters) -> Mapping[str, str]:
    """What a process of its own needs."""
    keys = {"AUTH_JWT_SECRET": jwk_set(), "AUTH_JWT_ISSUER": ISSUER}
    return environment_of(database) | keys


async def customer() -> uuid.UUID:
    """A committed user with credits."""
    user_id = (await make_user()).user_id
    await run_in_async_database_transaction(
        lambda session: ledger.grant(session, user_id, START, key="start")
    )
    return user_id


def times_run(database: ConnectionParameters) -> int:
    """How often the endpoint began."""
    with open_connection(database) as connection:
        found = connection.execute("SELECT count(*) FROM runs").fetchone()
    assert found is not None
    return int(found[0])


async def test_one_request_sent_by_many_processes_at_once_is_done_once(
    fresh_database: ConnectionParameters,
) -> None:
    """Of twelve one does the work and eleven are told to wait; asked again, all get its answer."""
    prepare(fresh_database)
    user_id = await customer()
    arguments = environment(fresh_database), make_token(user_id), ["job"] * REQUESTS
    context = forking()
    with (
        open_connection(fresh_database) as connection,
        ProcessPoolExecutor(PROCESSES, mp_context=context) as processes,
    ):
        connection.execute(HOLDS_GATE)
        asking = [processes.submit(ask, *arguments) for _ in range(PROCESSES)]
        until_in(connection, TOLD, PROCESSES * REQUESTS - 1)
        connection.execute(OPENS_GATE)
        first = [each for share in asking for each in share.result()]
        again = [
            each for _ in range(PROCESSES) for each in processes.submit(ask, *arguments).result()
        ]
    [done] = [each for each in first if each.status == 200]
    waiting = [each for each in first if each is not done]
    assert not done.is_replay
    assert {(each.status, each.retry_after) for each in waiting} == {(409, "1")}
    assert all("REQUEST_IN_PROGRESS" in each.text for each in waiting)
    assert len(waiting) == PROCESSES * REQUESTS - 1
    assert {(each.status, each.text, each.is_replay) for each in again} == {(200, done.text, True)}
    assert times_run(fresh_database) == 1
    assert balances([user_id]) == [START - PRICE]
    assert open_holds(user_id) == 0


async def expire_soon(user_id: uuid.UUID) -> None:
    """Let the user's open hold expire a second from now, by the database's own clock."""
    [seq] = look(
        lambda session: session.scalars(
            select(CreditHold.seq).where(CreditHold.user_id == user_id, CreditHold.status == "open")
        ).all()
    )
    await run_in_async_database_transaction(
        lambda session: ledger.renew(session, user_id, seq, expires_in_seconds=1, key="soon")
    )


async def send_until_done(api: Api, token: str) -> str:
    """Send the request again and again until it is not under way any more."""
    texts: list[str] = []

    async def is_done() -> bool:
        headers = {"Idempotency-Key": "job"}
        found = told(await api.call("POST", "/render", token, headers=headers, json={"deck": 1}))
        assert (found.status == 200) != ("REQUEST_IN_PROGRESS" in found.text)
        texts.append(found.text)
        return found.status == 200

    await until(is_done)
    return texts[-1]


async def test_a_process_that_is_killed_at_its_work_leaves_the_request_to_be_made_again(
    fresh_database: ConnectionParameters, start_api: StartApi
) -> None:
    """Under way until its hold has expired; then it is done, and charged once."""
    prepare(fresh_database)
    api = await start_api()
    add_render(api.app)
    user_id = await customer()
    token = make_token(user_id)
    context = forking()
    dying = context.Process(target=ask, args=(environment(fresh_database), token, ["job"]))
    with open_connection(fresh_database) as connection:
        connection.execute(HOLDS_GATE)
        dying.start()
        until_in(connection, RUNS, 1)
        dying.kill()
        dying.join()
        connection.execute(OPENS_GATE)
    headers = {"Idempotency-Key": "job"}
    waits = await api.call("POST", "/render", token, headers=headers, json={"deck": 1})
    assert (waits.status_code, waits.headers["Retry-After"]) == (409, "1")
    other = await api.call("POST", "/render", token, headers=headers, json={"deck": 2})
    assert other.json()["detail"]["error_type"] == "IDEMPOTENCY_KEY_REUSED"
    await expire_soon(user_id)
    await send_until_done(api, token)
    assert times_run(fresh_database) == 2
    assert balances([user_id]) == [START - PRICE]
    assert open_holds(user_id) == 0


async def test_of_two_who_do_one_request_one_is_charged_and_answered(
    fresh_database: ConnectionParameters, start_api: StartApi
) -> None:
    """Whose hold expired and was begun in place of is told to ask again, and then gets the answer.

    It may end before or after the other: here after.
    """
    assert fresh_database
    api = await start_api()
    user_id = await customer()
    token = make_token(user_id)
    begun, goes_on = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    async def slow_at_first(reservation: Annotated[Reservation, Depends(charge(PRICE))]) -> str:
        runs.append(reservation.hold_seq)
        if len(runs) == 1:
            begun.set()
            await goes_on.wait()
        return f"slides of try {len(runs)}" if goes_on.is_set() else "slides"

    api.app.post("/api/v1/render")(slow_at_first)
    headers = {"Idempotency-Key": "job"}
    slow = asyncio.create_task(
        api.call("POST", "/render", token, headers=headers, json={"deck": 1})
    )
    await begun.wait()
    await expire_soon(user_id)
    assert await send_until_done(api, token) == '"slides"'
    goes_on.set()
    refused = await slow
    assert (refused.status_code, error_type_of(refused)) == (503, "DATABASE_BUSY")
    assert await send_until_done(api, token) == '"slides"'
    assert len(runs) == 2
    assert balances([user_id]) == [START - PRICE]
    assert open_holds(user_id) == 0
