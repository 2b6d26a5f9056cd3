"""Each check names the trouble it is for: the trouble is made, and the check is asked."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest

from src.common import worker_failures
from src.common.credits import unbookable
from src.common.credits.domain.commands import Grant
from src.common.doctor import (
    connections,
    migrations,
    preferences,
    server,
    storage,
)
from src.common.doctor.catalogue import CHECKS
from src.common.models import (
    CreditVerification,
    Reconciliation,
    StripeEvent,
    UnmatchedPayment,
    WorkerHeartbeat,
)
from src.common.postgres.kept_errors import KeptError
from src.common.postgres.runtime_role import grant_runtime
from src.common.settings import get_settings
from src.local_postgres import free_port
from tests.credits.ledger import at, do, someone
from tests.doctor.system import System, asked

LONG_AGO = -10 * 365 * 86_400
"""Seconds before the tests' start of time."""
SECRET_VALUE = "not-a-number-7c1f"
ELSEWHERE = {
    "database": "tests/cli/test_database_conditions.py",
    "blocked-sessions": "tests/doctor/test_sessions.py",
    "deadlocks": "tests/doctor/test_sessions.py",
    "idle-in-transaction": "tests/doctor/test_sessions.py",
    "replication": "tests/doctor/test_sessions.py",
}
"""Checks whose trouble takes sessions of its own, and where it is made."""


def _restricted(system: System) -> None:
    with_role = system.db.connection()
    grant_runtime(with_role, "runtime_of_doctor")
    system.run("REVOKE INSERT ON users FROM runtime_of_doctor")
    system.run("SET LOCAL ROLE runtime_of_doctor")


def _expired(system: System) -> None:
    user_id = someone(system.db)
    do(system.db, Grant, user_id, LONG_AGO, amount=10, expires_at=at(LONG_AGO + 1))
    system.db.commit()


def _owing(system: System) -> None:
    user_id = someone(system.db)
    do(system.db, Grant, user_id, amount=10)
    system.run("ALTER TABLE credit_debts DISABLE TRIGGER ALL")
    system.run("INSERT INTO credit_debts VALUES (:user_id, 1, 7, 7)", user_id=user_id)


def _unbookable(system: System) -> None:
    user_id = someone(system.db)
    unbookable.note(system.db, user_id, KeptError("ValueError", "in a test"))
    system.db.commit()


def _failing(system: System) -> None:
    worker_failures.note(system.db, "bookings", KeptError("ValueError", "in a test"))
    system.db.commit()


def _stuck(system: System) -> None:
    now = dt.datetime.now(dt.UTC)
    system.add(
        WorkerHeartbeat,
        worker_id="00000000-0000-4000-8000-000000000001",
        beat_at=now,
        work="lookups",
        work_began_at=now - dt.timedelta(hours=1),
    )


def _live_event(system: System) -> None:
    system.set(STRIPE_MODE="test")
    system.add(StripeEvent, livemode=True)


def _few_events(system: System) -> None:
    loop = system.loop
    [endpoint] = loop.offline.account.all("webhook_endpoint")
    endpoint["enabled_events"] = ["checkout.session.completed"]


def _other_version(system: System) -> None:
    loop = system.loop
    [endpoint] = loop.offline.account.all("webhook_endpoint")
    endpoint["api_version"] = "2018-02-28"


def _stripe_s_clock(system: System) -> None:
    system.loop.offline.account.state.clock_offset_seconds = 600


def _no_endpoint(system: System) -> None:
    [endpoint] = system.loop.offline.account.all("webhook_endpoint")
    endpoint["status"] = "disabled"


def _our_clock(system: System) -> None:
    ours = time.time()
    system.patch.setattr("src.common.doctor.clocks.time.time", lambda: ours + 600)


def _full_disk(system: System) -> None:
    (system.folder / "data" / "pgdata").mkdir(parents=True)
    system.patch.delenv("DATABASE_HOST")
    system.patch.setattr(server, "DISK_FREE_FAIL_BYTES", 2**62)
    system.patch.setattr(server, "DISK_FREE_WARN_BYTES", 2**62)
    get_settings.cache_clear()


def _lost_index(name: str) -> Callable[[System], None]:
    return lambda system: system.run(f"DROP INDEX {name}")


def _unused_index(system: System) -> None:
    system.run("CREATE INDEX ix_of_nobody ON users (phone)")
    system.patch.setattr(storage, "UNUSED_BYTES_WARN", 0)
    system.patch.setattr(storage, "UNUSED_DAYS", -1.0)


def _scanned(system: System) -> None:
    system.patch.setattr(preferences, "MANY_USERS", 0)
    system.patch.setattr(preferences, "SCANS_A_DAY_WARN", 0)


def _heads(system: System) -> None:
    system.patch.setattr(migrations, "head_revisions", lambda: frozenset({"aaa", "bbb"}))


def _no_checksums(system: System) -> None:
    system.patch.setattr(server, "_settings_of", lambda *_: {"data_checksums": "off"})


def _limit(module: Any, name: str, value: float) -> Callable[[System], None]:
    return lambda system: system.patch.setattr(module, name, value)


def _hour_ago() -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)


TROUBLES: list[tuple[str, Callable[[System], object], str, str]] = [
    ("settings", lambda it: it.set(DATABASE_PORT=SECRET_VALUE), "fail", "DATABASE_PORT"),
    ("settings-names", lambda it: it.set(STRIPE_SECRET_KEYS="x"), "warn", "STRIPE_SECRET_KEY?"),
    (
        *("secrets", lambda it: it.set(STRIPE_SECRET_KEY="sk_test_1")),
        *("fail", "STRIPE_WEBHOOK_SECRET is not"),
    ),
    (
        *("database-pooler", lambda it: it.set(DATABASE_POOLER="transaction")),
        *("warn", "DATABASE_DIRECT_HOST is not set"),
    ),
    (
        *("migrations", lambda it: it.run("UPDATE alembic_version SET version_num = 'newer'")),
        *("warn", "of a newer release"),
    ),
    (
        *("migrations", lambda it: it.run("DROP TABLE alembic_version")),
        *("fail", "has none of this service's tables"),
    ),
    (
        *("migrations", lambda it: it.run("INSERT INTO alembic_version VALUES ('another')")),
        *("fail", "several revisions at once"),
    ),
    ("migrations", _heads, "fail", "several heads: aaa, bbb"),
    (
        *("schema-drift", lambda it: it.run("ALTER TABLE users DROP COLUMN phone")),
        *("fail", "no column users.phone"),
    ),
    (
        *("pool-sum", lambda it: it.set(DATABASE_POOL_SIZE="500")),
        *("warn", "may open 547; 297 are allowed"),
    ),
    (
        *("connections-in-use", _limit(connections, "USED_SHARE_WARN", 0)),
        *("warn", "connections are in use. "),
    ),
    (
        *("preferences-indexes", _lost_index("ix_users_company")),
        *("fail", "no index ix_users_company"),
    ),
    (
        *("preferences-queries", _lost_index("ix_users_preferences")),
        *("fail", "users who contain a preference"),
    ),
    ("preferences-scans", _scanned, "warn", "of users in"),
    (
        "stripe",
        lambda it: it.set(
            STRIPE_SECRET_KEY="sk_test_1", STRIPE_API_BASE_URL=f"http://127.0.0.1:{free_port()}"
        ),
        *("fail", "Stripe"),
    ),
    (
        "stripe-mode",
        _live_event,
        *("fail", "belongs to live mode"),
    ),
    ("stripe-endpoint-events", _few_events, "fail", "does not send us"),
    ("stripe-endpoint-events", _no_endpoint, "fail", "no enabled webhook endpoint"),
    ("stripe-endpoint-version", _other_version, "warn", "2018-02-28"),
    ("database-clock", _our_clock, "fail", "10 min ahead of the database's"),
    ("stripe-clock", _stripe_s_clock, "fail", "behind Stripe's"),
    (
        *("drift", lambda it: it.add(CreditVerification, differing_users=2)),
        *("fail", "The books of 2 users differ"),
    ),
    ("drift", lambda _: None, "warn", "No worker has gone through all books yet"),
    (
        "triggers",
        lambda it: it.run("ALTER TABLE credit_lots DISABLE TRIGGER credit_lots_balanced"),
        *("fail", "Switched off: credit_lots_balanced on credit_lots"),
    ),
    (
        *("triggers", lambda it: it.run("DROP TRIGGER users_kept ON users")),
        *("fail", "Not there: users_kept on users"),
    ),
    ("runtime-role", _restricted, "fail", "runtime_of_doctor lacks INSERT on users"),
    (
        *("unmatched-payments", lambda it: it.add(UnmatchedPayment)),
        *("warn", "1 payment credited nobody"),
    ),
    (
        "reconciliation",
        lambda it: it.add(
            Reconciliation, status="finished", finished_at=_hour_ago(), drift=2, stripe_account=None
        ),
        *("warn", "which left 2 differences"),
    ),
    ("debts", _owing, "ok", "7 credits owed"),
    ("worker", lambda _: None, "fail", "No worker has left a sign of life"),
    ("worker", _stuck, "warn", "one has been at lookups for 60 min"),
    ("worker-failures", _failing, "warn", "bookings (1 ever): ValueError"),
    ("unbookable-users", _unbookable, "fail", "1 user cannot be booked"),
    ("overdue-bookings", _expired, "warn", "1 lot or hold expired and not booked"),
    (
        *("dead-events", lambda it: it.add(StripeEvent, status="dead")),
        *("fail", "1 event failed too often"),
    ),
    (
        *(
            "late-events",
            lambda it: it.add(StripeEvent, status="failed", next_attempt_at=_hour_ago()),
        ),
        *("warn", "1 event not settled"),
    ),
    ("server-version", _limit(server, "VERSION_MIN", 10**7), "fail", "is older than 15"),
    ("server-durability", lambda _: None, "fail", "fsync off"),  # as the tests' server is
    (
        *("synchronous-commit", lambda it: it.run("SET LOCAL synchronous_commit = off")),
        *("fail", "synchronous_commit is off"),
    ),
    ("data-checksums", _no_checksums, "warn", "Data checksums are off"),
    (
        *("transaction-id-age", _limit(server, "TRANSACTION_ID_AGE_WARN", 0)),
        *("warn", "The oldest transaction id is"),
    ),
    ("embedded-disk", _full_disk, "fail", "GB are free"),
    (
        *("vacuum-lag", lambda it: it.run("ALTER TABLE users SET (autovacuum_enabled = false)")),
        *("fail", "Autovacuum is off for users"),
    ),
    ("indexes-missing", _lost_index("ix_credit_lots_due"), "fail", "Not there: ix_credit_lots_due"),
    ("indexes-unused", _unused_index, "warn", "ix_of_nobody"),
]
"""The check, how its trouble is made, its status, and words of what it has seen."""


def test_every_check_has_a_test_of_its_trouble() -> None:
    """A new check needs an entry above, or a test of its own elsewhere."""
    met = {name for name, *_ in TROUBLES} | ELSEWHERE.keys() | {"engine-queue"}
    assert met == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("name", "trouble", "status", "says"),
    TROUBLES,
    ids=[f"{number}-{name}" for number, (name, *_) in enumerate(TROUBLES)],
)
def test_a_check_names_its_trouble(
    system: System, name: str, trouble: Callable[[System], object], status: str, says: str
) -> None:
    """With its status, a next step, and no value of a setting."""
    trouble(system)
    found = asked(name)
    assert (found.status, found.seen) == (status, found.seen)
    assert says in found.seen
    assert status == "ok" or found.next
    assert SECRET_VALUE not in str(found)
