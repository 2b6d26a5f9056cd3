"""What goes wrong under the batch engine reaches whom it concerns, and nothing is done twice."""

import asyncio
import traceback

import pytest
from sqlalchemy.exc import DBAPIError

from src.common.database_settings import DatabasePooler
from src.common.postgres.errors import RetryableDatabaseError
from src.local_postgres import ConnectionParameters, free_port
from tests.credits.books import open_hold, release, spend
from tests.credits.committed import balances, make_users
from tests.credits.crashes import deaf_proxy
from tests.credits.engine.batching import (
    APPLICATION_NAME,
    all_at_once,
    locked,
    metric,
    running,
    told,
    until_waiting,
    writes_held_up,
)
from tests.postgres.drivers import open_connection, terminate

pytestmark = pytest.mark.xdist_group("credits_engine")

POISON = "poison"
SECRET = "somebody@example.com"
_REFUSE_POISON = f"""
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.reference = '{POISON}' THEN
        RAISE EXCEPTION 'refused: {SECRET}' USING ERRCODE = '23514', DETAIL = '{SECRET}';
    END IF; RETURN NEW; END $$
"""
WHEN = {
    "at the write": "CREATE TRIGGER poison BEFORE INSERT ON credit_entries FOR EACH ROW",
    "at COMMIT": "CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON credit_entries"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
}
NOTE_TIMEOUTS = (
    "CREATE TABLE noted (lock_timeout text, statement_timeout text)",
    """CREATE FUNCTION note_timeouts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO noted VALUES (current_setting('lock_timeout'),
                              current_setting('statement_timeout')); RETURN NULL; END $$""",
    """CREATE TRIGGER note_timeouts AFTER INSERT ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION note_timeouts()""",
)
_KNOW_AN_ENUM = (
    """CREATE FUNCTION know_an_enum() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE known user_type := 'individual'; BEGIN RETURN NULL; END $$""",
    """CREATE TRIGGER know_an_enum AFTER INSERT ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION know_an_enum()""",
)


def change(database: ConnectionParameters, *statements: str) -> None:
    """Change the schema, as a migration does."""
    with open_connection(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def terminate_engine(database: ConnectionParameters) -> None:
    """End every connection the engine has."""
    with open_connection(database) as connection:
        pids = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database()",
            [APPLICATION_NAME],
        ).fetchall()
    assert pids
    for (pid,) in pids:
        terminate(database, pid)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("places", [{0}, {8}, {2, 3, 6}])
async def test_poison_fails_alone(
    fresh_database: ConnectionParameters, when: str, places: set[int]
) -> None:
    """Whatever PostgreSQL refuses to write; neighbours of other users and of the same succeed."""
    change(fresh_database, _REFUSE_POISON, f"{WHEN[when]} EXECUTE FUNCTION refuse_poison()")
    people = make_users(100, 100, 100)
    commands = [
        spend(people[number % 3], 1, reference=POISON if number in places else None)
        for number in range(9)
    ]
    async with running(credits_engine_lanes=1) as engine:
        outcomes = await all_at_once(engine, commands)
    for number, outcome in enumerate(outcomes):
        if number in places:
            assert isinstance(outcome, DBAPIError)
            assert not isinstance(outcome, RetryableDatabaseError)
            assert SECRET not in "".join(traceback.format_exception(outcome))
        else:
            assert told(outcome) == "done"
    spent = [3 - sum(place % 3 == number for place in places) for number in range(3)]
    assert balances(people) == [100 - each for each in spent]


@pytest.mark.parametrize("pooler", [DatabasePooler.NONE, DatabasePooler.TRANSACTION])
async def test_who_waits_too_long_for_a_row_is_told_once_for_all(
    fresh_database: ConnectionParameters, pooler: DatabasePooler
) -> None:
    """While the row stays locked, everybody who waits for it; the engine's own limit counts."""
    kept, free = make_users(100, 100)
    commands = [spend(kept, 1) for _ in range(8)]
    async with running(
        credits_engine_lanes=1,
        credits_engine_lock_timeout_ms=50,
        database_lock_timeout_ms=0,
        database_pooler=pooler,
    ) as engine:
        batches = metric("batch_operations_count")
        with locked(fresh_database, kept):
            outcomes = await all_at_once(engine, commands)
            assert [told(each) for each in outcomes] == ["DATABASE_BUSY"] * 8
            assert all(isinstance(each, RetryableDatabaseError) for each in outcomes)
            assert told(await engine.execute(spend(free, 1))) == "done"
        assert metric("batch_operations_count") - batches == 3  # skipped, in vain, the other user
        assert {told(each) for each in await all_at_once(engine, commands)} == {"done"}
    assert balances([kept, free]) == [92, 99]


async def test_a_server_out_of_reach_is_tried_once_a_batch(
    fresh_database: ConnectionParameters,
) -> None:
    """Nobody waits for as many attempts as there are callers."""
    assert fresh_database
    [who] = make_users(100)
    batches = metric("batch_operations_count")
    async with running(credits_engine_lanes=1, database_port=str(free_port())) as engine:
        outcomes = await all_at_once(engine, [spend(who, 1) for _ in range(16)])
    assert [told(each) for each in outcomes] == ["DATABASE_BUSY"] * 16
    assert metric("batch_operations_count") - batches == 1


async def test_a_database_that_is_not_there_is_tried_once_a_batch(
    fresh_database: ConnectionParameters,
) -> None:
    """An error that does not pass is told to everybody as it is."""
    assert fresh_database
    [who] = make_users(100)
    batches = metric("batch_operations_count")
    async with running(credits_engine_lanes=1, database_name="there_is_none") as engine:
        outcomes = await all_at_once(engine, [spend(who, 1) for _ in range(16)])
    assert all(isinstance(each, DBAPIError) for each in outcomes)
    assert metric("batch_operations_count") - batches == 1


async def test_connections_lost_while_idle_are_replaced_unnoticed(
    fresh_database: ConnectionParameters,
) -> None:
    """The next operation of every lane succeeds, also of those that wait for a row."""
    people = make_users(*[100] * 6)
    async with running() as engine:
        for _ in range(3):
            with locked(fresh_database, people[0]):
                asked = [engine.submit(spend(who, 1)) for who in people]
                await until_waiting(fresh_database)
            assert {told(await each) for each in asked} == {"done"}
            terminate_engine(fresh_database)
    assert balances(people) == [97] * 6


async def test_a_connection_lost_in_a_batch_is_told_and_the_key_decides(
    fresh_database: ConnectionParameters,
) -> None:
    """Every caller of the batch is told to try again; doing so has one effect each."""
    people = make_users(100, 100, 100)
    commands = [spend(who, 1) for who in people for _ in range(3)]
    async with running(credits_engine_lanes=1) as engine:
        async with writes_held_up(fresh_database):
            asked = [engine.submit(command) for command in commands]
            [pid] = await until_waiting(fresh_database)
            terminate(fresh_database, pid)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, RetryableDatabaseError) for each in outcomes)
        assert {told(each) for each in await all_at_once(engine, commands)} == {"done"}
        assert {told(each) for each in await all_at_once(engine, commands)} == {"replayed"}
    assert balances(people) == [97] * 3


async def test_a_commit_whose_answer_is_lost_is_found_by_its_key(
    fresh_database: ConnectionParameters,
) -> None:
    """The callers are told to try again; the operations were done, and are not done again."""
    people = make_users(100, 100, 100)
    commands = [spend(who, 1) for who in people for _ in range(3)]
    with deaf_proxy(fresh_database) as port:
        async with running(
            credits_engine_lanes=1, database_host="127.0.0.1", database_port=str(port)
        ) as engine:
            outcomes = await all_at_once(engine, commands)
    assert all(isinstance(each, RetryableDatabaseError) for each in outcomes)
    async with running() as engine:
        assert {told(each) for each in await all_at_once(engine, commands)} == {"replayed"}
    assert balances(people) == [97] * 3


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE users ADD COLUMN nickname text", "ALTER TABLE credit_entries ADD note text"),
        ("CREATE DOMAIN flag AS boolean", "ALTER TABLE users ALTER is_active TYPE flag"),
        ("CREATE INDEX ON credit_lots (source)", "ANALYZE"),
        (
            "CREATE TYPE user_type_new AS ENUM ('admin', 'member', 'individual', 'robot')",
            "ALTER TABLE users ALTER user_type DROP DEFAULT",
            "ALTER TABLE users ALTER user_type TYPE user_type_new USING 'robot'::user_type_new",
            "DROP TYPE user_type",
            "ALTER TYPE user_type_new RENAME TO user_type",
        ),
    ],
    ids=["columns", "a column's type", "an index", "an enum made anew"],
)
async def test_a_migration_between_batches_fails_nobody(
    fresh_database: ConnectionParameters, statements: tuple[str, ...]
) -> None:
    """Statements prepared before are prepared anew, in every lane; what triggers know, too."""
    people = make_users(*[100] * 4)
    change(fresh_database, *_KNOW_AN_ENUM)
    commands = [spend(who, 1) for who in people]
    async with running() as engine:
        with locked(fresh_database, people[0]):
            asked = [engine.submit(command) for command in commands]
            await until_waiting(fresh_database)
        await asyncio.gather(*asked)
        change(fresh_database, *statements)
        for _ in range(3):
            outcomes = await all_at_once(engine, [spend(who, 1) for who in people])
            assert [told(each) for each in outcomes] == ["done"] * 4
    assert balances(people) == [96] * 4


@pytest.mark.parametrize("pooler", list(DatabasePooler))
async def test_time_outs_hold_behind_every_pooler(
    fresh_database: ConnectionParameters, pooler: DatabasePooler
) -> None:
    """Each database transaction has the engine's lock time-out and the statement time-out."""
    change(fresh_database, *NOTE_TIMEOUTS)
    people = make_users(100, 100)
    change(fresh_database, "DELETE FROM noted")
    async with running(
        credits_engine_lanes=1,
        database_pooler=pooler,
        credits_engine_lock_timeout_ms=1_234,
        database_statement_timeout_ms=5_678,
    ) as engine:
        [hold, spent] = await all_at_once(engine, [open_hold(people[0], 5), spend(people[1], 5)])
        assert told(spent) == "done"
        assert not isinstance(hold, BaseException)
        assert (await engine.execute(release(people[0], hold.seq))).balance == 100
    with open_connection(fresh_database) as connection:
        rows = connection.execute("SELECT DISTINCT * FROM noted").fetchall()
    assert rows == [("1234ms", "5678ms")]
    assert balances(people) == [100, 95]


async def test_a_server_that_may_be_a_standby_answers_nobody(
    fresh_database: ConnectionParameters,
) -> None:
    """A refusal read there would be of yesterday. The next batch looks for a new connection."""
    [who] = make_users(100)
    name = fresh_database.database
    change(fresh_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with running(credits_engine_lanes=1) as engine:
        for amount in (1, 101, 101):
            [outcome] = await all_at_once(engine, [spend(who, amount)])
            assert told(outcome) == "DATABASE_BUSY"
        with open_connection(fresh_database) as other:
            other.execute("SET default_transaction_read_only = off")
            other.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
        assert told(await engine.execute(spend(who, 1))) == "done"
    assert balances([who]) == [99]
