"""Checks of the settings, where each comes from, and whether the database can be reached."""

import difflib
import os
import re
from contextlib import suppress

import psycopg
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from src.common.database_settings import DatabasePooler
from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    fail,
    ok,
    psql,
    sentence,
    skipped,
    unknown,
    warn,
)
from src.common.doctor.context import Context
from src.common.exceptions import ExceptionWithErrorType, SettingsError
from src.common.postgres.conditions import explain_database_error
from src.common.postgres.poolers import Pooler, Sharing, find_pooler
from src.common.settings import Settings
from src.common.sharding.copying.closing import is_closed
from src.common.ssm import FOLDER_BY_FIELD

OUR_PREFIXES = ("DATABASE_", "STRIPE_", "CREDITS_", "CREDIT_", "CHECKOUT_", "AUTH_JWT_")
# The look's own database transaction only reads; no lock tells what another's may.
_TAKES_WRITES = text(
    "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'"
)
_ALIKE = 0.8
_ADVICE = re.compile(r"(?P<seen>.*)(?:; |\)?: )(?P<advice>[^;:]+)$", re.DOTALL)


def _settings(context: Context) -> Finding:
    """Whether the settings can be used, and where each that is set comes from; never a value."""
    try:
        settings = context.settings
    except SettingsError as error:
        return fail(sentence(error.message), "correct these, in the environment, .env or SSM")
    from_where: dict[str, list[str]] = {}
    for name, source in sources_of(settings).items():
        from_where.setdefault(source, []).append(name)
    told = "; ".join(f"{source}: {', '.join(names)}" for source, names in from_where.items())
    defaults = len(Settings.model_fields) - sum(map(len, from_where.values()))
    if not told:
        return ok(f"ENV={settings.env}. No setting is set: all {defaults} have their defaults.")
    return ok(f"ENV={settings.env}. {told}. The other {defaults} settings have their defaults.")


def _settings_names(context: Context) -> Finding:
    """Variables whose names look like settings of ours, and that nothing reads."""
    del context
    fields = {name.upper() for name in Settings.model_fields}
    strangers = {
        name: difflib.get_close_matches(name.upper(), fields, n=1, cutoff=_ALIKE)
        for name in sorted({*os.environ, *_names_in_file()})
        if name.upper().startswith(OUR_PREFIXES) and name.upper() not in fields
    }
    alike = {name: matches[0] for name, matches in strangers.items() if matches}
    if not alike:
        return ok("Every variable that is named like a setting of ours is one.")
    named = ", ".join(f"{name} ({match}?)" for name, match in alike.items())
    return warn(f"Nothing reads {named}.", f"rename it, or: unset {' '.join(alike)}")


def _secrets(context: Context) -> Finding:
    """Whether the secrets are set that this deployment needs."""
    settings = context.settings
    if settings.stripe_secret_key is not None and not settings.stripe_webhook_secrets:
        return fail(
            "STRIPE_SECRET_KEY is set and STRIPE_WEBHOOK_SECRET is not: every webhook is answered "
            "503.",
            "set STRIPE_WEBHOOK_SECRET to the endpoint's signing secret (whsec_…)",
        )
    if settings.is_local:
        return ok("ENV=local, which makes those it needs by itself.")
    missing = [
        name
        for name, is_set in (
            ("AUTH_JWT_SECRET", settings.auth_jwt_secret or settings.auth_jwt_jwks_url),
            ("STRIPE_SECRET_KEY", settings.stripe_secret_key),
            ("STRIPE_WEBHOOK_SECRET", settings.stripe_webhook_secret),
            ("METRICS_TOKEN", settings.metrics_token),
        )
        if not is_set
    ]
    if missing:
        return warn(
            f"Not set: {', '.join(missing)}. Nobody signs in without the first, nobody buys "
            "without those of Stripe; without the last everybody may read /metrics.",
            "set them in the environment, or in SSM (docs/reference/settings.md)",
        )
    return ok("Those of the database, of sign-in, of Stripe and of /metrics are set.")


def _database(context: Context) -> Finding:
    """Whether the database can be reached with these settings, and takes writes."""
    settings = context.settings
    try:
        with context.looking() as session:
            takes_writes = session.execute(_TAKES_WRITES).scalar_one()
            closed = is_closed(session.connection())
    except DBAPIError as error:
        explained = explain_database_error(error, settings, lambda: None)
        if explained is None:
            raise
        return _out_of_reach(settings, explained)
    except ExceptionWithErrorType as error:
        return _out_of_reach(settings, error)
    where = "the embedded server" if settings.database_host is None else settings.database_host
    if not takes_writes:
        return fail(
            f"Database {settings.database_name} on {where} only reads.",
            "set DATABASE_HOST to the primary, or see: "
            + psql("SHOW default_transaction_read_only"),
        )
    if closed:
        return fail(
            f"Database {settings.database_name} on {where} is closed to writes: its users are in "
            "another one, or are copied here.",
            "serve with the settings of the other database, or end what is copied here: "
            "`flashslides shards copy --from SERVICE --cut-over`",
        )
    return ok(f"Database {settings.database_name} on {where} answers and takes writes.")


def _out_of_reach(settings: Settings, error: ExceptionWithErrorType) -> Finding:
    if settings.database_host is None and settings.is_local:
        return fail(sentence(f"The embedded server: {error.message}"), "flashslides db start")
    said = _ADVICE.fullmatch(error.message)
    if said is None:
        return fail(sentence(error.message), "flashslides db url")
    seen = said["seen"] + (")" if said["seen"].count("(") > said["seen"].count(")") else "")
    return fail(sentence(seen), said["advice"])


def sources_of(settings: Settings) -> dict[str, str]:
    """Where each setting that is set comes from, by the name of its variable."""
    by_environment = EnvSettingsSource(Settings)()
    by_file = DotEnvSettingsSource(Settings)()
    found: dict[str, str] = {}
    for field in Settings.model_fields:
        if field in by_environment:
            found[field.upper()] = "environment"
        elif field in by_file:
            found[field.upper()] = ".env"
        elif field in FOLDER_BY_FIELD and getattr(settings, field) is not None:
            found[field.upper()] = "SSM"
    return found


def _names_in_file() -> list[str]:
    """The variables in `.env`."""
    return [name.upper() for name in DotEnvSettingsSource(Settings).env_vars]


def _pooler(context: Context) -> Finding:
    """Which pooler answers, whether DATABASE_POOLER fits it, and migrations get past it."""
    settings = context.settings
    if settings.database_host is None:
        return skipped("The embedded server has none.")
    with suppress(ExceptionWithErrorType):  # a pooler nobody spoke of may refuse the service
        _ = context.session
    if not context.is_reachable:
        return unknown("Nobody answers there.", "flashslides doctor database")
    try:
        pooler = find_pooler(settings)
    except psycopg.Error:
        return unknown("It answers nobody.", "flashslides doctor database")
    is_said = settings.database_pooler is not DatabasePooler.NONE
    if pooler is None:
        if not is_said:
            return skipped("PostgreSQL answers itself.")
        return warn(
            f"DATABASE_POOLER={settings.database_pooler}, and PostgreSQL answers itself.",
            "set DATABASE_POOLER=none, which costs less, or DATABASE_HOST to the pooler",
        )
    seen = f"{pooler.name[:1].upper()}{pooler.name[1:]} answers, in {pooler.sharing} mode"
    if (advice := _unfit(settings.database_pooler, pooler)) is not None:
        return fail(f"{seen}; DATABASE_POOLER={settings.database_pooler}.", advice)
    if pooler.sharing is not Sharing.SESSION and settings.database_direct_host is None:
        return warn(
            f"{seen}; DATABASE_DIRECT_HOST is not set.",
            "set DATABASE_DIRECT_HOST and DATABASE_DIRECT_PORT to the server's own address",
        )
    return ok(f"{seen}, as DATABASE_POOLER={settings.database_pooler} has it.")


def _unfit(setting: DatabasePooler, pooler: Pooler) -> str | None:
    """What to do about a setting that does not work behind this pooler; None where it does."""
    if pooler.sharing is Sharing.STATEMENT:
        return "set its pool_mode to transaction: several statements belong together"
    if setting is DatabasePooler.NONE and pooler.sharing is Sharing.TRANSACTION:
        return "set DATABASE_POOLER to prepared (PgBouncer 1.21 or later) or transaction"
    if setting is DatabasePooler.PREPARED and pooler.keeps_prepared_statements is False:
        return "set DATABASE_POOLER=transaction, or its max_prepared_statements (1.21 or later)"
    return None


CHECKS = (
    Check(
        "settings",
        _settings,
        Needs.NOTHING,
        "Without usable settings nothing starts.",
    ),
    Check(
        "settings-names",
        _settings_names,
        Needs.SETTINGS,
        "A variable that is spelt wrong leaves its setting at the default, and nobody says so.",
    ),
    Check(
        "secrets",
        _secrets,
        Needs.SETTINGS,
        "What needs a secret that is missing is refused or open to everybody.",
    ),
    Check(
        "database",
        _database,
        Needs.SETTINGS,
        "Without it nothing is answered but /livez and /metrics.",
    ),
    Check(
        "database-pooler",
        _pooler,
        Needs.SETTINGS,
        "Migrations take turns by a lock of one connection, and a pooler shares connections.",
    ),
)
