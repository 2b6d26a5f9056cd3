"""A process that forks after it has used the database: parent and child both go on working.

The child leaves the connections it inherited alone, which are the parent's, and opens its own.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import environment_of

ROOT = Path(__file__).parents[2]

COMMON = """
import asyncio, gc, os, sys, threading
from sqlalchemy import text
from src.common import async_database, database

ROUNDS = 30
WHO = text("SELECT pg_backend_pid(), :asked")

def forked(in_child):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            in_child()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child

def ended_well(child):
    assert os.waitpid(child, 0)[1] == 0
"""

SYNC = """
from src.common.database import SessionLocal, engine

def ask(asked):
    with SessionLocal() as db:
        pid, answer = db.execute(WHO, {"asked": str(asked)}).one()
        assert answer == str(asked)
        return pid

def in_child():
    assert database.get_engine() is engine
    assert {ask(f"child {n}") for n in range(ROUNDS)}.isdisjoint({mine})
    gc.collect()

mine = ask("parent")
child = forked(in_child)
assert {ask(f"parent {n}") for n in range(ROUNDS)} == {mine}
ended_well(child)
assert ask("still") == mine
"""

ASYNC = """
from src.common.async_database import get_async_db

async def ask(asked):
    async with get_async_db() as db:
        pid, answer = (await db.execute(WHO, {"asked": str(asked)})).one()
        assert answer == str(asked)
        return pid

async def asks(whose):
    return {await ask(f"{whose} {n}") for n in range(ROUNDS)}

async def main():
    mine = await ask("parent")

    def in_child():
        assert asyncio.run(asks("child")).isdisjoint({mine})
        gc.collect()

    child = forked(in_child)
    assert await asks("parent") == {mine}
    ended_well(child)
    assert await ask("still") == mine
    await async_database.dispose_async_db()

asyncio.run(main())
"""

BATCH_ENGINE = """
import uuid
from src.common.credits.engine.engine import Engine
from src.common.credits.engine.queue import EngineBusy
from src.common.database import SessionLocal
from src.common.models import User
from src.common.settings import get_settings

with SessionLocal.begin() as db:
    db.add(user := User(email="ada@example.com", password_hash="x", credits_balance=1000))
    db.flush()
    who = user.user_id

def spend(engine):
    return engine.spend(who, 1, key=str(uuid.uuid4()))

async def with_one_of_its_own(inherited):
    try:
        await spend(inherited)
    except EngineBusy:
        pass
    else:
        raise AssertionError("nobody serves the parent's engine here")
    await inherited.aclose()
    async with Engine.from_settings(get_settings()) as engine:
        for _ in range(ROUNDS):
            await spend(engine)

async def main():
    async with Engine.from_settings(get_settings()) as engine:
        await spend(engine)
        child = forked(lambda: asyncio.run(with_one_of_its_own(engine)))
        for _ in range(ROUNDS):
            await spend(engine)
        ended_well(child)
        last = await spend(engine)
        assert last.balance == 1000 - 2 - 2 * ROUNDS, last

asyncio.run(main())
"""

WHILE_A_THREAD_BUILDS = """
reads, may_go_on = threading.Event(), threading.Event()
settings = database.get_settings()

def slowly():
    reads.set()
    may_go_on.wait()
    return settings

def build(module, get):
    module.get_settings = slowly
    thread = threading.Thread(target=get)
    thread.start()
    reads.wait()
    module.get_settings = lambda: settings
    ended_well(forked(get))
    may_go_on.set()
    thread.join()
    reads.clear()
    may_go_on.clear()

build(database, database.get_engine)
build(async_database, async_database.get_async_engine)
"""


@pytest.mark.parametrize(
    "program",
    [SYNC + ASYNC + WHILE_A_THREAD_BUILDS, BATCH_ENGINE],
    ids=["sessions", "batch engine"],
)
def test_parent_and_child_both_go_on(fresh_database: ConnectionParameters, program: str) -> None:
    """Neither reads the other's answers, nor waits for a lock nobody holds."""
    quiet = (
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
    )  # forking beside threads is asked for
    done = subprocess.run(
        [sys.executable, *quiet, "-c", textwrap.dedent(COMMON + program)],
        cwd=ROOT,
        env={**os.environ, **environment_of(fresh_database), "ENV": "local"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
