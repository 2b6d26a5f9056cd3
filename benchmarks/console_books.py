"""What the console's benchmark looks at: many users, many entries, and somebody with very many."""

import uuid

from benchmarks.reports import ENTRIES_A_USER, fill
from benchmarks.seed import SQL_USER_ID, add_users, user_ids
from benchmarks.server import connect
from src.common.database import SessionLocal
from src.console import sessions
from src.console.permissions import Role
from src.local_postgres import ConnectionParameters

BUSY_ENTRIES_SHARE = 0.02
"""Of all entries, how many are one user's."""
EVENTS_SHARE, ACTIONS_SHARE = 0.2, 0.2
"""Of Stripe's events and of actions in the console, beside the entries."""
VIEWER = "benchmark"

_ID = SQL_USER_ID.format(number="number")

# Those who have come and not bought yet: all but the few who have entries.
_OTHERS = f"""
    INSERT INTO users (user_id, email, password_hash, first_name, last_name, stripe_customer_id,
                       preferences, created_at)
    SELECT {_ID}, 'user' || number || '@example.com', 'managed_externally', 'First' || number,
           'Last' || number, 'cus_' || number,
           jsonb_build_object('company', 'Company ' || mod(number, 1000)),
           now() - number * interval '1 minute'
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS number
"""  # noqa: S608  nothing of anybody else's in it
_EVENTS = """
    INSERT INTO stripe_events (livemode, event_id, type, stripe_created_at, received_at, status,
                               body, error)
    SELECT true, 'evt_' || number, 'checkout.session.completed', now(),
           now() - number * interval '10 seconds',
           CASE WHEN mod(number, 1000) = 0 THEN 'dead' ELSE 'processed' END,
           convert_to('{"id": "evt_' || number || '", "data": {}}', 'UTF8'),
           CASE WHEN mod(number, 1000) = 0 THEN 'Nobody has this id' END
    FROM generate_series(1, %(events)s::integer) AS number
"""
_UNMATCHED = """
    INSERT INTO unmatched_payments (livemode, stripe_object_id, event_id, reason, explanation,
                                    details)
    SELECT true, 'cs_unmatched_' || number, 'evt_' || number, 'USER_UNKNOWN', 'Nobody has this id',
           '{"amount_total_cents": 900, "currency": "usd", "payment_status": "paid"}'
    FROM generate_series(1, 200) AS number
"""
_ACTIONS = """
    INSERT INTO console_actions (actor, action, user_id, created_at)
    SELECT %(actor)s::text, 'users.see', CASE WHEN mod(number, 10) = 0 THEN %(busy)s::uuid END,
           now() - number * interval '1 second'
    FROM generate_series(1, %(actions)s::integer) AS number ORDER BY number DESC
"""
_APPROVALS = """
    INSERT INTO approvals (user_id, command, reason, requester, idempotency_key, request_digest,
                           expires_at)
    SELECT %(busy)s::uuid, '{"operation": "adjustment", "version": 1, "amount": 20000}', 'outage',
           'user:00000000-0000-0000-0000-000000000001', 'key ' || number,
           decode(repeat('ab', 32), 'hex'), now() + interval '2 days'
    FROM generate_series(1, 1000) AS number
"""


def fill_console(connection: ConnectionParameters, *, users: int, entries: int) -> uuid.UUID:
    """Add it all; the id of the user with very many entries, who has bought as well."""
    with_entries = max(entries // ENTRIES_A_USER, 1)
    busy = users + 1
    fill(connection, with_entries)
    with connect(connection) as admin:
        add_users(admin, first=busy, count=1, history=int(entries * BUSY_ENTRIES_SHARE))
        busy_id = _id_of(busy)
        facts = {
            "first": with_entries,
            "last": users - 1,
            "events": int(entries * EVENTS_SHARE),
            "actions": int(entries * ACTIONS_SHARE),
            "busy": busy_id,
            "actor": f"user:{viewer().person_id}",
        }
        with admin.transaction():
            admin.execute("SET LOCAL session_replication_role = replica")
            for statement in (_OTHERS, _EVENTS, _UNMATCHED, _ACTIONS, _APPROVALS):
                admin.execute(statement.encode(), facts)
        admin.execute("VACUUM ANALYZE")
        admin.execute("CHECKPOINT")
    return busy_id


def viewer() -> sessions.Identity:
    """Who looks."""
    return sessions.local_identity(VIEWER, (Role.ADMIN,))


def link() -> str:
    """The token of a link that signs the viewer in."""
    with SessionLocal.begin() as session:
        return sessions.make_link(session, viewer())


def _id_of(number: int) -> uuid.UUID:
    return user_ids(number + 1)[number]
