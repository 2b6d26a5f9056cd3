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
    AnchorTurn,
    Base,
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
from tests.doctor.system import System, Trouble, asked

LONG_AGO = -10 * 365 * 86_400
"""Seconds before the tests' start of time."""
SECRET_VALUE = "not-a-number-7c1f"
ELSEWHERE = {
    "approvals": "tests/doctor/test_approvals.py",
    "database": "tests/cli/test_database_conditions.py",
    "blocked-sessions": "tests/doctor/test_sessions.py",
    "dead-notices": "tests/doctor/test_notices.py",
    "deadlocks": "tests/doctor/test_sessions.py",
    "disabled-endpoints": "tests/doctor/test_notices.py",
    "idle-in-transaction": "tests/doctor/test_sessions.py",
    "late-notices": "tests/doctor/test_notices.py",
    "read-replica": "tests/replicas/test_surfaces.py",
    "replication": "tests/doctor/test_sessions.py",
}
"""Checks whose trouble is made in another file, with sessions or people of its own."""


def _restricted(system: System) -> None:
    with_role = system.db.connection()
    grant_runtime(with_role, "runtime_of_doctor")
    system.run("REVOKE INSERT ON users FROM runtime_of_doctor")
    system.run("SET LOCAL ROLE runtime_of_doctor")


def _without_column(system: System) -> None:
    grant_runtime(system.db.connection(), "runtime_of_doctor")
    system.run("REVOKE UPDATE (remaining) ON credit_lots FROM runtime_of_doctor")
    system.run("SET LOCAL ROLE runtime_of_doctor")


def _with_another_column(system: System) -> None:
    grant_runtime(system.db.connection(), "runtime_of_doctor")
    system.run("GRANT UPDATE (amount) ON credit_entries TO runtime_of_doctor")
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


def _mended_mode(system: System) -> None:
    _live_event(system)
    system.add(
        StripeEvent,
        event_id="evt_2",
        livemode=False,
        received_at=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1),
    )


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

    def settings_of(*_: object) -> dict[str, str]:
        return {"data_checksums": "off"}

    system.patch.setattr(server, "_settings_of", settings_of)


def _limit(module: Any, name: str, value: float) -> Callable[[System], None]:
    return lambda system: system.patch.setattr(module, name, value)


def _set(**variables: str) -> Callable[[System], None]:
    return lambda system: system.set(**variables)


def _run(statement: str) -> Callable[[System], None]:
    return lambda system: system.run(statement)


def _unchained(statement: str) -> Callable[[System], None]:
    """Past the triggers, which are there again afterwards."""

    def make(system: System) -> None:
        system.run("ALTER TABLE credit_ledgers DISABLE TRIGGER USER")
        system.run(statement)
        system.run("ALTER TABLE credit_ledgers ENABLE TRIGGER USER")

    return make


def _add(model: type[Base], **values: object) -> Callable[[System], object]:
    return lambda system: system.add(model, **values)


def _nothing(_system: System) -> None:
    pass


def _stripe_away(system: System) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    system.set(STRIPE_SECRET_KEY="sk_test_1", STRIPE_API_BASE_URL=url)


def _different(system: System) -> None:
    system.add(
        Reconciliation, status="finished", finished_at=_hour_ago(), drift=2, stripe_account=None
    )


def _one_never_compared(system: System) -> None:
    system.set(STRIPE_CONNECTED_ACCOUNTS="acct_1")
    system.add(Reconciliation, status="finished", finished_at=_hour_ago(), drift=0)


def _one_compared_long_ago(system: System) -> None:
    _one_never_compared(system)
    days_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=9)
    for account, ended in ((None, _hour_ago()), ("acct_1", days_ago)):
        system.set(STRIPE_SECRET_KEY="sk_test_1")
        system.add(
            Reconciliation, status="finished", finished_at=ended, drift=0, stripe_account=account
        )


def _late(system: System) -> None:
    system.add(StripeEvent, status="failed", next_attempt_at=_hour_ago())


def _hour_ago() -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)


TROUBLES = [
    Trouble("settings", _set(DATABASE_PORT=SECRET_VALUE), "fail", "DATABASE_PORT"),
    Trouble("settings-names", _set(STRIPE_SECRET_KEYS="x"), "warn", "STRIPE_SECRET_KEY?"),
    Trouble("secrets", _set(STRIPE_SECRET_KEY="sk_test_1"), "fail", "STRIPE_WEBHOOK_SECRET is not"),
    Trouble(
        "database-pooler",
        _set(DATABASE_POOLER="transaction"),
        "warn",
        "and PostgreSQL answers itself",
    ),
    Trouble(
        "migrations",
        _run("UPDATE alembic_version SET version_num = 'newer'"),
        "warn",
        "of a newer release",
    ),
    Trouble(
        "migrations",
        _run("INSERT INTO alembic_version VALUES ('another')"),
        "fail",
        "several revisions at once",
    ),
    Trouble("migrations", _heads, "fail", "several heads: aaa, bbb"),
    Trouble(
        "schema-drift", _run("ALTER TABLE users DROP COLUMN phone"), "fail", "no column users.phone"
    ),
    Trouble("pool-sum", _set(DATABASE_POOL_SIZE="500"), "warn", "may open 547; 297 are allowed"),
    Trouble(
        "connections-in-use",
        _limit(connections, "USED_SHARE_WARN", 0),
        "warn",
        "connections are in use, this one among them",
    ),
    Trouble(
        "preferences-indexes", _lost_index("ix_users_company"), "fail", "no index ix_users_company"
    ),
    Trouble(
        "preferences-queries",
        _lost_index("ix_users_preferences"),
        "fail",
        "users who contain a preference",
    ),
    Trouble("preferences-scans", _scanned, "warn", "of users in"),
    Trouble("stripe", _stripe_away, "fail", "Stripe"),
    Trouble("stripe-mode", _live_event, "fail", "belongs to live mode"),
    Trouble("stripe-mode", _mended_mode, "ok", "The newest event is of test mode"),
    Trouble("stripe-mode", _set(STRIPE_MODE="test"), "skipped", "No event of Stripe's"),
    Trouble("stripe-endpoint-events", _few_events, "fail", "does not send us"),
    Trouble("stripe-endpoint-events", _no_endpoint, "fail", "no enabled webhook endpoint"),
    Trouble("stripe-endpoint-version", _other_version, "warn", "2018-02-28"),
    Trouble("database-clock", _our_clock, "fail", "10 min ahead of the database's"),
    Trouble("stripe-clock", _stripe_s_clock, "fail", "behind Stripe's"),
    Trouble(
        "drift", _add(CreditVerification, differing_users=2), "fail", "The books of 2 users differ"
    ),
    Trouble("chain", _unchained("UPDATE credit_ledgers SET chained_at = NULL"), "warn", "Some"),
    Trouble("chain", _unchained("DELETE FROM credit_ledgers"), "fail", "The row of credit_ledgers"),
    Trouble("anchors", _set(ANCHOR_SINKS="file:/x"), "warn", "No checkpoint has been closed yet"),
    Trouble(
        "anchors",
        _add(AnchorTurn, contradiction="Entry 7 of user 1 is missing"),
        "fail",
        "Entry 7 of user 1 is missing. No checkpoint is closed.",
    ),
    Trouble("drift", _nothing, "warn", "No worker has gone through all books yet"),
    Trouble(
        "triggers",
        _run("ALTER TABLE credit_lots DISABLE TRIGGER credit_lots_balanced"),
        "fail",
        "Switched off: credit_lots_balanced on credit_lots",
    ),
    Trouble(
        "triggers",
        _run("DROP TRIGGER users_kept ON users"),
        "fail",
        "Not there: users_kept on users",
    ),
    Trouble("runtime-role", _restricted, "fail", "runtime_of_doctor lacks INSERT on users"),
    Trouble("runtime-role", _without_column, "fail", "lacks UPDATE (remaining) on credit_lots."),
    Trouble(
        "runtime-role", _with_another_column, "warn", "need, UPDATE (amount) on credit_entries."
    ),
    Trouble("unmatched-payments", _add(UnmatchedPayment), "warn", "1 payment credited nobody"),
    Trouble("reconciliation", _different, "warn", "the newest left 2 differences"),
    Trouble("reconciliation", _one_never_compared, "warn", "accounts was never compared"),
    Trouble("reconciliation", _one_compared_long_ago, "warn", "ended 9 days ago. That is long"),
    Trouble("debts", _owing, "ok", "7 credits owed"),
    Trouble("worker", _nothing, "fail", "No worker has left a sign of life"),
    Trouble("worker", _stuck, "warn", "one has been at lookups for 60 min"),
    Trouble("worker-failures", _failing, "warn", "bookings (1 ever): ValueError"),
    Trouble("unbookable-users", _unbookable, "fail", "1 user cannot be booked"),
    Trouble("overdue-bookings", _expired, "warn", "ago and is not booked"),
    Trouble("dead-events", _add(StripeEvent, status="dead"), "fail", "1 event failed too often"),
    Trouble("late-events", _late, "warn", "1 event not settled"),
    Trouble("server-version", _limit(server, "VERSION_MIN", 10**7), "fail", "is older than 15"),
    Trouble("server-durability", _nothing, "fail", "off: a power cut"),  # as the tests' server is
    Trouble(
        "synchronous-commit",
        _run("SET LOCAL synchronous_commit = off"),
        "fail",
        "synchronous_commit is off",
    ),
    Trouble("data-checksums", _no_checksums, "warn", "Data checksums are off"),
    Trouble(
        "transaction-id-age",
        _limit(server, "TRANSACTION_ID_AGE_WARN", 0),
        "warn",
        "The oldest transaction id is",
    ),
    Trouble("embedded-disk", _full_disk, "fail", "GB are free"),
    Trouble(
        "vacuum-lag",
        _run("ALTER TABLE users SET (autovacuum_enabled = false)"),
        "fail",
        "Autovacuum is off for users",
    ),
    Trouble(
        "indexes-missing",
        _lost_index("ix_credit_lots_due"),
        "fail",
        "Not there: ix_credit_lots_due",
    ),
    Trouble(
        "vacuum-lag",
        _run("ALTER TABLE users SET (autovacuum_enabled = off)"),
        "fail",
        "Autovacuum is off for users",
    ),
    Trouble("indexes-unused", _unused_index, "warn", "ix_of_nobody"),
]


def test_every_check_has_a_test_of_its_trouble() -> None:
    """A new check needs an entry above, or a test of its own elsewhere."""
    met = {each.name for each in TROUBLES} | ELSEWHERE.keys() | {"engine-queue"}
    assert met == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=[f"{number}-{each.name}" for number, each in enumerate(TROUBLES)]
)
def test_a_check_names_its_trouble(system: System, trouble: Trouble) -> None:
    """With its status, a next step, and no value of a setting."""
    trouble.make(system)
    found = asked(trouble.name)
    assert (found.status, found.seen) == (trouble.status, found.seen)
    assert trouble.says in found.seen
    assert trouble.status in {"ok", "skipped"} or found.next
    assert SECRET_VALUE not in str(found)
