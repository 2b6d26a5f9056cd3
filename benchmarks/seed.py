"""The schemas as the migrations build them, and users who have something to spend.

Rows are written in bulk with the triggers of that one session off, which only this program does;
`verify` and `books.py` look at the result as at any other. Every user gets a history that the rules
could have written: one large lot, spends from it, two lots of `LOT`, the first of them begun.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

import psycopg
from alembic import command
from alembic.script import ScriptDirectory

from benchmarks.entry_hash import entry_hash, line, lot
from benchmarks.server import connect
from benchmarks.workload import LOT, RESERVE, RESERVE_PRIORITY
from src.common.credits.domain.commands import Grant, Spend
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters

LEDGER_REVISION = "3f4e5d6c7b8a"
"""The migration that creates the ledger; the one before it leaves the document's schema."""

SQL_USER_ID = "md5(({number})::text)::uuid"
"""A user's id from the user's number, in SQL: pgbench has no list to choose from. As random to an
index as a uuid4 is."""

_ID = SQL_USER_ID.format(number="number")
_BEGUN = f"(1 + mod(number, {LOT - 1}))"
"""How much of a user's first small lot is used."""

_ACTOR = "system:seed"

_INSERT_USERS = f"""
    INSERT INTO users (user_id, email, password_hash, first_name, last_name, stripe_customer_id,
                       preferences, timezone, language_preference, credits_balance, credits_version)
    SELECT {_ID}, 'user' || number || '@example.com',
           'managed_externally', 'First' || number, 'Last' || number, 'cus_' || number,
           jsonb_build_object('company', 'Company ' || mod(number, 1000),
                              'marketing_consent', true),
           'Europe/Berlin', 'en', %(balance)s - mod(number, {LOT - 1}), %(version)s
    FROM generate_series(%(first)s, %(first)s + %(count)s - 1) AS number
"""  # noqa: S608  nothing of anybody else's in it

# seq 1: the reserve and what the history takes of it; then the history; then two lots, one begun.
_COLUMNS = f"""{_ID} AS user_id, seq,
           CASE WHEN seq = 1 THEN {RESERVE} + %(history)s
                WHEN seq <= %(history)s + 1 THEN -1
                WHEN seq <= %(history)s + 3 THEN {LOT}
                ELSE -{_BEGUN} END AS amount,
           CASE WHEN seq <= %(history)s + 1 THEN 1
                WHEN seq = %(history)s + 3 THEN seq
                ELSE %(history)s + 2 END AS lot_seq,
           CASE WHEN seq <= %(history)s + 1 THEN {RESERVE} + %(history)s - (seq - 1)
                ELSE {RESERVE} + {LOT} * least(seq - %(history)s - 1, 2)
                     - CASE WHEN seq = %(history)s + 4 THEN {_BEGUN} ELSE 0 END
           END AS balance,
           CASE WHEN seq <= %(history)s + 1 THEN {RESERVE} + %(history)s - (seq - 1)
                ELSE {LOT} - CASE WHEN seq = %(history)s + 4 THEN {_BEGUN} ELSE 0 END
           END AS remaining"""
_NUMBERS = "generate_series(%(first)s, %(first)s + %(count)s - 1) AS number"
_HISTORY = f"SELECT {_COLUMNS} FROM {_NUMBERS}, generate_series(1, %(history)s + 4) AS seq"  # noqa: S608

_WORDS = """CASE WHEN amount > 0 THEN 'grant' ELSE 'spend' END AS kind,
           'seed:' || md5(user_id::text || seq) AS key,
           decode(%(digests)s::jsonb ->> CASE WHEN seq = 1 THEN 'reserve' ELSE amount::text END,
                  'hex') AS digest,
           now() - interval '1 day' AS moment"""
_HASH = entry_hash(
    {
        "user_id": "user_id",
        "seq": "seq",
        "kind": "kind",
        "amount": "amount",
        "balance_after": "balance",
        "result_balance": "balance",
        "idempotency_key": "key",
        "request_digest": "digest",
        "actor": f"'{_ACTOR}'",
        "effective_at": "moment",
        "created_at": "moment",
    },
    "previous",
    line("lot_seq", "amount", "remaining"),
    "(CASE WHEN amount > 0 THEN {} ELSE '' END)".format(
        lot(
            "'promo'",
            f"CASE WHEN seq = 1 THEN {RESERVE_PRIORITY} ELSE 10 END",
            "amount",
            "NULL::timestamptz",
            "NULL::uuid",
        )
    ),
)


def _hashed(rows: str) -> str:
    """What rows of a number, a seq and the hash before make of an entry."""
    columns = f"SELECT number, previous, {_COLUMNS} FROM ({rows}) AS rows"  # noqa: S608
    words = f"SELECT *, {_WORDS} FROM ({columns}) AS columns"  # noqa: S608
    return f"SELECT *, {_HASH} AS entry_hash FROM ({words}) AS words"  # noqa: S608


# Each entry after the one before it, of all users at once.
_INSERT_ENTRIES = f"""
    WITH RECURSIVE chained AS (
        {_hashed(f"SELECT number, 1 AS seq, uuid_send(ledger_id) AS previous FROM {_NUMBERS}, credit_ledgers")}
        UNION ALL
        {_hashed("SELECT number, seq + 1 AS seq, entry_hash AS previous FROM chained WHERE seq < %(history)s + 4")}
    )
    INSERT INTO credit_entries (user_id, seq, kind, amount, balance_after, result_balance,
                                idempotency_key, request_digest, actor, effective_at, created_at,
                                entry_hash)
    SELECT user_id, seq, kind, amount, balance, balance, key, digest, '{_ACTOR}', moment, moment,
           entry_hash
    FROM chained ORDER BY seq
"""  # noqa: E501, S608  in the order of time, as a grown table lies on the disk
_INSERT_POSTINGS = f"""
    INSERT INTO credit_postings (user_id, seq, lot_seq, amount, remaining_after)
    SELECT user_id, seq, lot_seq, amount, remaining FROM ({_HISTORY}) AS history ORDER BY seq
"""  # noqa: S608
_INSERT_LOTS = f"""
    INSERT INTO credit_lots (user_id, seq, source, priority, granted, remaining, last_seq, is_open)
    SELECT user_id, lot_seq, 'promo', CASE WHEN lot_seq = 1 THEN {RESERVE_PRIORITY} ELSE 10 END,
           max(amount), (array_agg(remaining ORDER BY seq DESC))[1], max(seq), true
    FROM ({_HISTORY} ) AS history GROUP BY user_id, lot_seq
"""  # noqa: S608


@lru_cache(maxsize=4)
def user_ids(count: int) -> list[uuid.UUID]:
    """Return the ids of users 0, 1, 2 …, as SQL_USER_ID makes them."""
    return [
        uuid.UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest())
        for number in range(count)
    ]


def build_ledger(connection: ConnectionParameters, user_count: int, *, history: int = 0) -> None:
    """Migrate to the newest revision and add users with three open lots.

    `history` is how many entries each has before those that every one has.
    """
    _migrate(connection, "head")
    with connect(connection) as admin:
        add_users(admin, first=0, count=user_count, history=history)
        _settle(admin)


def build_document(connection: ConnectionParameters, user_count: int) -> None:
    """Migrate to the revision before the ledger, and add users."""
    script = ScriptDirectory.from_config(alembic_config()).get_revision(LEDGER_REVISION)
    _migrate(connection, str(script.down_revision))
    with connect(connection) as admin:
        parameters = {"first": 0, "count": user_count, "balance": LOT, "version": 0}
        admin.execute(_INSERT_USERS.encode(), parameters)
        _settle(admin)


def add_users(admin: psycopg.Connection, *, first: int, count: int, history: int) -> None:
    """Add users and their books, in bulk."""
    parameters = {
        "first": first,
        "count": count,
        "history": history,
        "balance": RESERVE + 2 * LOT - 1,
        "version": history + 4,
        "digests": json.dumps(_digests(history)),
    }
    with admin.transaction():
        admin.execute("SET LOCAL session_replication_role = replica")
        for statement in (_INSERT_USERS, _INSERT_ENTRIES, _INSERT_LOTS, _INSERT_POSTINGS):
            admin.execute(statement.encode(), parameters)


def _digests(history: int) -> dict[str, str]:
    """What the ledger would write as `request_digest`, in hex, by the amount of an entry."""
    user_id = uuid.UUID(int=0)  # not part of what makes two requests the same
    reserve = Grant(
        user_id=user_id,
        key="reserve",
        actor=_ACTOR,
        amount=RESERVE + history,
        priority=RESERVE_PRIORITY,
    )
    lot = Grant(user_id=user_id, key="lot", actor=_ACTOR, amount=LOT)
    spends = {
        str(-amount): Spend(user_id=user_id, key="spend", actor=_ACTOR, amount=amount)
        for amount in range(1, LOT)
    }
    commands = {"reserve": reserve, str(LOT): lot, **spends}
    return {name: command.digest.hex() for name, command in commands.items()}


def _migrate(connection: ConnectionParameters, revision: str) -> None:
    """Run the migrations as `flashslides db upgrade` does, on the database of this name."""
    with naming(connection.database):
        command.upgrade(alembic_config(), revision)


@contextmanager
def naming(database: str) -> Generator[None]:
    """Point this process's settings at another database of the server for a while."""
    before = os.environ.get("DATABASE_NAME")
    os.environ["DATABASE_NAME"] = database
    get_settings.cache_clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ["DATABASE_NAME"]
        else:
            os.environ["DATABASE_NAME"] = before
        get_settings.cache_clear()


def _settle(admin: psycopg.Connection) -> None:
    """Leave the server nothing to do of what the seeding made."""
    admin.execute("VACUUM (ANALYZE)")
    admin.execute("CHECKPOINT")


def email_of(number: int) -> str:
    """Return the e-mail of a user, as they are inserted."""
    return f"user{number}@example.com"
