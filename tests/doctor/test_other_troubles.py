"""Checks that know several troubles: each of the others is made too, and named."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import stripe
from sqlalchemy.orm import Session

from src.common.doctor import context, preferences, server, stripe_answers
from src.common.doctor.stripe_answers import StripeAnswers
from src.common.models import CreditVerification, Reconciliation, StripeEvent, WorkerHeartbeat
from src.common.postgres.runtime_role import grant_runtime
from src.common.settings import Settings, get_settings
from src.common.stripe.wire import WebhookEndpoint
from tests.doctor.system import System, Trouble, asked

ENDPOINT = WebhookEndpoint(
    id="we_1", url="https://example.com/api/v1/webhook", status="enabled", enabled_events=("*",)
)
VIEWS_FIRST = "SET LOCAL search_path = pg_temp, public, pg_catalog"
STANDBY = (
    "CREATE TEMP VIEW pg_stat_replication AS SELECT 's1' AS application_name, {state} AS state,"
    " 'async' AS sync_state, interval '10 minutes' AS replay_lag, replay_lsn, flush_lsn, sent_lsn"
    " FROM (SELECT pg_current_wal_lsn() AS replay_lsn, pg_current_wal_lsn() AS flush_lsn,"
    " pg_current_wal_lsn() AS sent_lsn) AS positions"
)
NO_SLOTS = (
    "CREATE TEMP VIEW pg_replication_slots AS"
    " SELECT * FROM pg_catalog.pg_replication_slots WHERE false"
)


def with_settings(**changed: Any) -> Callable[[System], None]:
    """As if these settings were set, whatever else a deployment with them would need."""

    def make(system: System) -> None:
        settings: Settings = get_settings().model_copy(update=changed)
        system.patch.setattr(context, "get_settings", lambda: settings)

    return make


def with_stripe(**said: Any) -> Callable[[System], None]:
    """A key is set, and Stripe answers this."""
    right: dict[str, Any] = {
        "endpoints": (ENDPOINT,),
        "others": 0,
        "missing_types": (),
        "api_version": stripe.api_version,
        "clock_ahead_seconds": 0.0,
        "missing_permissions": (),
    }

    def make(system: System) -> None:
        system.set(STRIPE_SECRET_KEY="sk_test_1", STRIPE_WEBHOOK_SECRET="whsec_1")
        answers = StripeAnswers(**right | said)

        def ask(_: Settings) -> StripeAnswers:
            return answers

        system.patch.setattr(stripe_answers, "ask_stripe", ask)

    return make


def ran(*statements: str) -> Callable[[System], None]:
    """What these statements leave."""

    def make(system: System) -> None:
        for statement in statements:
            system.run(statement)

    return make


def added(model: Any, **values: Any) -> Callable[[System], None]:
    """A row with these values; a span is so long ago."""

    def make(system: System) -> None:
        now = dt.datetime.now(dt.UTC)
        system.add(
            model,
            **{
                name: now - value if isinstance(value, dt.timedelta) else value
                for name, value in values.items()
            },
        )

    return make


def both(*makers: Callable[[System], None]) -> Callable[[System], None]:
    """All of them, in their order."""

    def make(system: System) -> None:
        for each in makers:
            each(system)

    return make


def as_runtime(system: System) -> None:
    """The session's role is the service's."""
    grant_runtime(system.db.connection(), "runtime_of_doctor")
    system.run("GRANT CREATE ON SCHEMA public TO PUBLIC")
    system.run("SET LOCAL ROLE runtime_of_doctor")


def shown_as(**settings: str) -> Callable[[System], None]:
    """The server says this of its settings."""

    def settings_of(_: Session, *names: str) -> dict[str, str]:
        return {name: settings[name] for name in names}

    return lambda system: system.patch.setattr(server, "_settings_of", settings_of)


def planned_badly(system: System) -> None:
    """PostgreSQL could use the indexes, and prefers to read all users."""

    def reads_all(session: Session, _: object) -> bool:
        shown: str = session.connection().exec_driver_sql("SHOW enable_seqscan").scalar_one()
        return shown == "on"

    system.patch.setattr(preferences, "MANY_USERS", 0)
    system.patch.setattr(preferences, "_reads_all_users", reads_all)


FINISHED: dict[str, Any] = {"status": "finished", "drift": 0, "finished_at": dt.timedelta(hours=1)}
RECONCILED = added(Reconciliation, **FINISHED)


def with_key(system: System) -> None:
    """A test-mode key is set."""
    system.set(STRIPE_SECRET_KEY="sk_test_1", STRIPE_WEBHOOK_SECRET="whsec_1")


TROUBLES = [
    Trouble("secrets", with_settings(env="prod"), "warn", "Not set: AUTH_JWT_SECRET"),
    Trouble(
        "migrations",
        ran("DROP TABLE alembic_version"),
        "fail",
        "has none of this service's tables",
    ),
    Trouble(
        "schema-drift",
        ran("UPDATE alembic_version SET version_num = 'newer'"),
        "skipped",
        "another revision than this release",
    ),
    Trouble(
        "schema-drift",
        ran(
            "ALTER TABLE users DROP COLUMN phone,"
            " ADD CONSTRAINT still_to_be_validated CHECK (email <> '') NOT VALID"
        ),
        "fail",
        "no column users.phone",
    ),
    Trouble(
        "idle-in-transaction",
        ran(
            "CREATE TEMP VIEW pg_stat_activity AS SELECT current_database() AS datname, 1 AS pid,"
            " NULL AS state, 'client backend' AS backend_type, '' AS application_name,"
            " clock_timestamp() AS state_change",
            VIEWS_FIRST,
        ),
        "unknown",
        "1 session of other roles do is hidden from this role",
    ),
    Trouble(
        "preferences-indexes",
        ran(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_users_company'::regclass"
        ),
        "fail",
        "ix_users_company is not valid",
    ),
    Trouble("preferences-queries", planned_badly, "warn", "PostgreSQL reads all users for"),
    Trouble(
        "stripe", with_stripe(missing_permissions=("rak_charge_read",)), "fail", "rak_charge_read"
    ),
    Trouble("stripe-endpoint-events", with_stripe(endpoints=None), "unknown", "may not read"),
    Trouble("stripe-endpoint-version", with_stripe(endpoints=None), "unknown", "may not read"),
    Trouble(
        "stripe-endpoint-version",
        both(with_stripe(), added(StripeEvent, api_version="2018-02-28")),
        "warn",
        "the account's default version: 2018-02-28",
    ),
    Trouble("stripe-clock", with_stripe(clock_ahead_seconds=None), "unknown", "did not say"),
    Trouble("stripe-clock", with_stripe(clock_ahead_seconds=30.0), "warn", "30 s ahead of Stripe"),
    Trouble(
        "drift",
        with_settings(credits_verify_interval_seconds=0),
        "warn",
        "CREDITS_VERIFY_INTERVAL_SECONDS is 0",
    ),
    Trouble(
        "drift",
        added(
            CreditVerification,
            last_pass_users=1,
            last_pass_differing_users=0,
            last_pass_ended_at=dt.timedelta(days=3),
        ),
        "warn",
        "all were verified 3 days ago. That is long.",
    ),
    Trouble(
        "triggers",
        ran("SET LOCAL session_replication_role = replica"),
        "fail",
        "session_replication_role is replica",
    ),
    Trouble("runtime-role", with_settings(env="prod"), "warn", "could switch the ledger's trigg"),
    Trouble("runtime-role", as_runtime, "warn", "Everybody may create functions in schema public"),
    Trouble("reconciliation", with_settings(), "skipped", "There is no Stripe key, and nothing"),
    Trouble("reconciliation", with_key, "warn", "Nothing was ever compared with Stripe"),
    Trouble(
        "reconciliation",
        both(RECONCILED, with_settings(stripe_reconcile_interval_seconds=0)),
        "warn",
        "so no worker does it",
    ),
    Trouble(
        "reconciliation",
        added(Reconciliation, **FINISHED | {"finished_at": dt.timedelta(days=9)}),
        "skipped",
        "There is no Stripe key now",
    ),
    Trouble(
        "reconciliation",
        both(RECONCILED, added(Reconciliation, status="running"), with_key),
        "ok",
        "a later run was cut off and will be taken up",
    ),
    Trouble(
        "worker",
        added(
            WorkerHeartbeat,
            worker_id="00000000-0000-4000-8000-000000000001",
            beat_at=dt.timedelta(hours=3),
        ),
        "fail",
        "The last sign of life of a worker is 3 h old",
    ),
    Trouble(
        "synchronous-commit",
        shown_as(synchronous_commit="local", synchronous_standby_names="s1"),
        "warn",
        "no answer waits for the synchronous standbys",
    ),
    Trouble(
        "replication",
        both(ran(NO_SLOTS, VIEWS_FIRST), shown_as(synchronous_standby_names="s1")),
        "fail",
        "No synchronous standby is connected",
    ),
    Trouble(
        "replication",
        ran(NO_SLOTS, STANDBY.format(state="'streaming'"), VIEWS_FIRST),
        "warn",
        "s1 (async) 10 min, 0 MB behind",
    ),
    Trouble(
        "replication",
        ran(NO_SLOTS, STANDBY.format(state="NULL"), VIEWS_FIRST),
        "unknown",
        "Standbys are hidden from this role",
    ),
    Trouble(
        "vacuum-lag",
        ran(
            "CREATE TEMP VIEW pg_stat_user_tables AS SELECT 'users'::regclass::oid AS relid,"
            " 50000 AS n_dead_tup, 10 AS n_live_tup, NULL::timestamptz AS last_vacuum,"
            " NULL::timestamptz AS last_autovacuum",
            VIEWS_FIRST,
        ),
        "warn",
        "users has 50,000 dead rows beside 10 live ones; vacuumed never",
    ),
    Trouble(
        "indexes-missing",
        ran(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = 'ix_credit_lots_due'::regclass"
        ),
        "fail",
        "Begun and not finished: ix_credit_lots_due",
    ),
]


@pytest.mark.parametrize(
    "trouble", TROUBLES, ids=[f"{number}-{each.name}" for number, each in enumerate(TROUBLES)]
)
def test_a_check_names_its_trouble(system: System, trouble: Trouble) -> None:
    """With its status, and a next step where there is something to do."""
    trouble.make(system)
    found = asked(trouble.name)
    assert (found.status, found.seen) == (trouble.status, found.seen)
    assert trouble.says in found.seen
    assert bool(found.next) == (trouble.status in {"warn", "fail"}) or found.status == "unknown"


def test_a_query_that_most_users_meet_is_no_trouble(system: System) -> None:
    """PostgreSQL is right to read all of them: so it is asked for what nobody has."""
    asked_for: list[str] = []

    def reads_all(session: Session, query: Any) -> bool:
        shown: str = session.connection().exec_driver_sql("SHOW enable_seqscan").scalar_one()
        if shown == "on":
            asked_for.append(str(query.compile(compile_kwargs={"literal_binds": True})))
        return False

    system.patch.setattr(preferences, "MANY_USERS", 0)
    system.patch.setattr(preferences, "_reads_all_users", reads_all)
    assert asked("preferences-queries").status == "ok"
    assert len(asked_for) == len(preferences.QUERIES)
    assert [each for each in asked_for if "flashslides doctor" not in each] == []
