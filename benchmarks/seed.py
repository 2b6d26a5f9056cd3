"""The schema as the migrations build it, and users to sell credits to."""

import hashlib
import uuid
from functools import lru_cache

from benchmarks.server import connect
from src.common.migrations import upgrade_to_head
from src.local_postgres import ConnectionParameters

SQL_USER_ID = "md5(({number})::text)::uuid"
"""A user's id from the user's number, in SQL: pgbench has no list to choose from. As random to an
index as a uuid4 is."""

_INSERT_USERS = f"""
    INSERT INTO users (user_id, email, password_hash, first_name, last_name, stripe_customer_id,
                       preferences, timezone, language_preference)
    SELECT {SQL_USER_ID.format(number="number")}, 'user' || number || '@example.com',
           'managed_externally', 'First' || number, 'Last' || number, 'cus_' || number,
           jsonb_build_object('company', 'Company ' || mod(number, 1000),
                              'marketing_consent', true),
           'Europe/Berlin', 'en'
    FROM generate_series(0, %s - 1) AS number
"""  # noqa: S608  nothing of anybody else's in it


@lru_cache(maxsize=4)
def user_ids(count: int) -> list[uuid.UUID]:
    """Return the ids of users 0, 1, 2 …, as SQL_USER_ID makes them."""
    return [
        uuid.UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest())
        for number in range(count)
    ]


def build(connection: ConnectionParameters, user_count: int) -> None:
    """Migrate to the newest revision and add the users; the server has nothing left to do."""
    upgrade_to_head()
    with connect(connection) as admin:
        admin.execute(_INSERT_USERS, [user_count])
        admin.execute("VACUUM (ANALYZE) users")
        admin.execute("CHECKPOINT")
