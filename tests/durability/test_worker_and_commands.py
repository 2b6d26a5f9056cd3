"""Before a silent standby the worker takes nothing for done, and no command says that it is."""

import threading

import pytest
from sqlalchemy import select, update

from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.database import SessionLocal
from src.common.exceptions import DatabaseBusy
from src.common.models.stripe_event import StripeEvent
from src.common.stripe import inbox
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.durability.conftest import Primary
from tests.durability.test_confirmed_commits import WAITS
from tests.fixtures.api import balance_of, make_user
from tests.fixtures.api import until as until_it_is
from tests.models.examples import a_user
from tests.postgres.drivers import until
from tests.stripe.loop import start_loop
from tests.stripe.payments import make_event, make_session, to_body

__all__ = ["data_folder", "run_command"]

pytestmark = pytest.mark.xdist_group("standbys")

TRY_LATER = 75


async def test_the_worker_takes_nothing_for_done(
    primary: Primary, impatient: ConnectionParameters
) -> None:
    """An event stays unsettled, whatever of it is on the primary; later it is settled once."""
    assert impatient
    user = await make_user()
    body = to_body(make_event(make_session(user)))
    event = parse_event(body)
    await run_in_async_database_transaction(lambda session: inbox.store_event(session, event, body))
    free = update(StripeEvent).values(lease_expires_at=None)
    await run_in_async_database_transaction(lambda session: session.execute(free))
    processor = start_loop().processor
    primary.set_synchronous_commit("on")
    for _ in range(2):
        with pytest.raises(DatabaseBusy):
            await processor.settle_due(needs_lookup=False)
        primary.end_who_waits()
    status = select(StripeEvent.status)
    assert await read_from_async_database(lambda s: s.scalars(status).one()) == "received"
    primary.set_synchronous_commit("local")
    await run_in_async_database_transaction(
        lambda session: session.execute(free.values(next_attempt_at=None))
    )

    async def is_settled() -> bool:
        await processor.settle_due(needs_lookup=False)
        return await read_from_async_database(lambda s: s.scalars(status).one()) == "processed"

    await until_it_is(is_settled)
    assert await balance_of(user.user_id) == 500


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_an_upgrade_is_not_done(
    primary: Primary, impatient: ConnectionParameters, run_command: RunCommand, end: str
) -> None:
    """Though there is nothing to do: others may have done it just now, on this server alone."""
    assert impatient
    assert run_command("db", "upgrade").exit_code == 0
    primary.set_synchronous_commit("on")

    def end_its_wait() -> None:
        with primary.admin() as admin:
            until(admin, WAITS)
            primary.change("SELECT {}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", end)

    ending = threading.Thread(target=end_its_wait, daemon=True)  # where nobody waits, it never ends
    ending.start()
    done = run_command("db", "upgrade")
    assert (done.exit_code, done.out) == (TRY_LATER, ""), done
    ending.join()


@pytest.mark.parametrize(
    "command",
    [
        ("user", "create", "grace@example.com"),
        ("credits", "grant", "ada@example.com", "10", "--key", "k"),
    ],
    ids=" ".join,
)
def test_a_command_is_not_done(
    primary: Primary,
    impatient: ConnectionParameters,
    run_command: RunCommand,
    command: tuple[str, ...],
) -> None:
    """It ends with 75 (try again later), the first time and again."""
    assert impatient
    with SessionLocal.begin() as session:
        session.add(a_user(email="ada@example.com"))
    primary.set_synchronous_commit("on")
    for _ in range(2):
        done = run_command(*command)
        assert (done.exit_code, done.out) == (TRY_LATER, ""), done
        primary.end_who_waits()
