"""Checks of the schema: the document's trouble "Alembic Conflicts"."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SAWarning

from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    fail,
    ok,
    skipped,
    warn,
)
from src.common.doctor.context import Context
from src.common.models import Base
from src.common.postgres.migrations import describe_revision, head_revisions, is_behind
from src.common.postgres.sides import Side

if TYPE_CHECKING:
    from alembic.operations.ops import MigrateOperation

_SHOWN = 5
_BESIDES = "unknown "
"""So begins what the database has and the models have not."""
_OF_A_GROUP = frozenset(
    {"unknown column users.home", "unknown constraint fk_users_user_id_users_directory"}
)
"""How a group's tables differ from those of a database without groups."""
_OF_EVERYBODYS = frozenset(
    {
        "unknown constraint fk_approvals_user_id_users_directory",
        "no foreign key fk_approvals_transaction_id_transactions",
        "no foreign key fk_approvals_user_id_users",
        "no foreign key fk_stripe_reversals_transaction_id_transactions",
    }
)
"""The same of what is everybody's."""


def _migrations(context: Context) -> Finding:
    """Whether the database has this release's migrations: behind, ahead, several heads."""
    heads = sorted(head_revisions())
    if len(heads) > 1:
        return fail(
            f"This code's migrations end in several heads: {', '.join(heads)}.",
            f'alembic merge -m "merge heads" {" ".join(heads)}',
        )
    found = context.revisions
    if len(found) > 1:
        return fail(
            f"The database says it is at several revisions at once: {', '.join(found)}.",
            f"alembic stamp --purge {heads[0]} && flashslides doctor schema-drift",
        )
    revision = next(iter(found), None)
    problem = describe_revision(revision)
    if problem is None:
        return ok(f"The database is at {revision}, the newest revision.")
    if is_behind(revision):
        seen, _, step = problem.partition(": run ")
        return fail(f"{seen}.", step.strip("`"))
    return warn(
        f"The database is at revision {revision} of a newer release, and this one ends at "
        f"{heads[0]}. It serves what both know.",
        "install the newer release, or there: flashslides db downgrade " + heads[0],
    )


def _schema_drift(context: Context) -> Finding:
    """Whether the tables are as the models have them, whatever revision was stamped."""
    revision = next(iter(context.revisions), None)
    if describe_revision(revision) is not None:
        return skipped("The database is at another revision than this release: see `migrations`.")
    with context.looking() as session:
        # Many small looks into the catalogue, whose tables are read as the planner likes.
        session.execute(text("SET LOCAL enable_seqscan = on"))
        differences = _differences(session.connection(), context.has_table)
    differences = _unexpected(differences, _of_division(context))
    if not differences:
        return ok(f"The tables are those of revision {revision}.")
    shown = ", ".join(differences[:_SHOWN])
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    seen = (
        f"Stamped {revision}, but {count(len(differences), 'difference')} from the models: "
        f"{shown}{more}."
    )
    missing_tables = {
        f"no table {name}" for name in Base.metadata.tables if context.has_table(name)
    }
    if missing_tables <= set(differences):
        return fail(seen, "alembic stamp base && flashslides db upgrade")
    return fail(
        seen,
        "flashslides db check, then alembic stamp REVISION for the revision whose schema this is, "
        "and flashslides db upgrade",
    )


def _of_division(context: Context) -> frozenset[str]:
    """The differences that there are to be where `context` looks now."""
    if not context.sees_users:
        return _OF_EVERYBODYS
    return frozenset() if context.sees_everybodys else _OF_A_GROUP


def _unexpected(found: Sequence[str], expected: frozenset[str]) -> list[str]:
    """Those that are not to be there, and what is to be there besides the models and is not."""
    besides = [each for each in sorted(expected - {*found}) if each.startswith(_BESIDES)]
    return [
        *(each for each in found if each not in expected),
        *(each.replace(_BESIDES, "no ", 1) for each in besides),
    ]


def _differences(connection: Connection, has_table: Callable[[str], bool]) -> list[str]:
    """What `alembic check` would find of these tables, in a few words each."""
    import alembic_postgresql_enum  # noqa: F401  # pyright: ignore[reportUnusedImport]  compares enums
    from alembic.autogenerate import produce_migrations
    from alembic.runtime.migration import MigrationContext

    def has_name(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name is None or has_table(name)

    def has_object(_item: object, name: str | None, kind: str, *_others: object) -> bool:
        return has_name(name, kind, None)

    options: dict[str, Any] = {
        "compare_server_default": True,
        "target_metadata": Base.metadata,
        "include_name": has_name,
        "include_object": has_object,
    }
    migration = MigrationContext.configure(connection, opts=options)
    with warnings.catch_warnings():
        # SQLAlchemy reads a constraint that is NOT VALID with an option it does not take itself.
        warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'", SAWarning)
        found = produce_migrations(migration, Base.metadata).upgrade_ops
    return [] if found is None else [_describe(each) for each in _flat(found.ops)]


def _flat(operations: "list[MigrateOperation]") -> "list[MigrateOperation]":
    flat: list[MigrateOperation] = []
    for each in operations:
        inner: list[MigrateOperation] | None = getattr(each, "ops", None)
        flat.extend([each] if inner is None else _flat(inner))
    return flat


def _describe(operation: "MigrateOperation") -> str:
    """`no table users`, `no index ix_users_email` …: what the database lacks, or has besides."""
    name = next(
        (
            str(value)
            for value in (
                getattr(operation, "index_name", None),
                getattr(operation, "constraint_name", None),
                _column_of(operation),
                getattr(operation, "table_name", None),
                getattr(operation, "name", None),
            )
            if value
        ),
        "",
    )
    verb, _, what = type(operation).__name__.removesuffix("Op").partition("_")
    kinds = {
        "CreateEnum": "no type",
        "DropEnum": "unknown type",
        "CreateTable": "no table",
        "DropTable": "unknown table",
        "AddColumn": "no column",
        "DropColumn": "unknown column",
        "AlterColumn": "another column",
        "CreateIndex": "no index",
        "DropIndex": "unknown index",
        "CreateForeignKey": "no foreign key",
        "CreateUniqueConstraint": "no unique constraint",
        "DropConstraint": "unknown constraint",
    }
    return f"{kinds.get(verb + what, verb + what)} {name}".strip()


def _column_of(operation: "MigrateOperation") -> str | None:
    column = getattr(operation, "column", None)
    name = getattr(column, "name", None) or getattr(operation, "column_name", None)
    return None if name is None else f"{getattr(operation, 'table_name', '')}.{name}"


CHECKS = (
    Check(
        "migrations",
        _migrations,
        Needs.DATABASE,
        "A release on another schema than its own answers errors, or NOT_READY.",
    ),
    Check(
        "schema-drift",
        _schema_drift,
        Needs.DATABASE,
        "A revision that was stamped and not migrated promises tables that are not there.",
        sides=tuple(Side),
    ),
)
