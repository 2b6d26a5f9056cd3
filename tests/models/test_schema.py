"""The migrated database has what the document's models say, column by column."""

from typing import Any

import pytest
from sqlalchemy import Column, Dialect, Enum, Inspector, Table, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.orm import DeclarativeBase, Session, configure_mappers
from sqlalchemy.types import TypeEngine

from src.common.models import Base, Transaction, User
from tests.document.document import run

DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


class DocumentBase(DeclarativeBase):
    """A registry of its own for the models exactly as the document writes them."""


def document_model(name: str) -> Any:
    """The document's class, made by running its block."""
    return run(name, Base=DocumentBase)[name]


THEIRS: dict[str, Any] = {name: document_model(name) for name in ("User", "Transaction")}
OURS: dict[str, type[Base]] = {"User": User, "Transaction": Transaction}
TABLES: dict[str, Table] = {name: model.__table__ for name, model in THEIRS.items()}
COLUMNS = [
    pytest.param(column, id=f"{table.name}.{column.name}")
    for table in TABLES.values()
    for column in table.columns
]


@pytest.fixture
def inspector(db: Session) -> Inspector:
    """The schema as PostgreSQL has it."""
    return inspect(db.connection())


def reflected(inspector: Inspector, column: Column[Any]) -> ReflectedColumn:
    """The column as PostgreSQL has it."""
    [found] = [it for it in inspector.get_columns(column.table.name) if it["name"] == column.name]
    return found


def in_ddl(type_: TypeEngine[Any]) -> str:
    """A type as PostgreSQL writes it; an enum by its values, since the document's has no name."""
    if isinstance(type_, Enum):
        return f"ENUM {type_.enums}"
    return type_.compile(DIALECT)


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_of_the_document_exists_with_its_type(
    inspector: Inspector, column: Column[Any]
) -> None:
    """A column of the document's model is in the database, under its name, of its type."""
    found = reflected(inspector, column)
    assert in_ddl(found["type"]) == in_ddl(column.type)


@pytest.mark.parametrize("column", COLUMNS)
def test_what_the_document_requires_is_required(inspector: Inspector, column: Column[Any]) -> None:
    """NOT NULL there is NOT NULL here; what may be left out there has a default or may here."""
    found = reflected(inspector, column)
    if not column.nullable:
        assert not found["nullable"]
    else:
        assert found["nullable"] or found["default"] is not None


@pytest.mark.parametrize("column", COLUMNS)
def test_defaults_of_the_document_are_defaults_in_the_database(
    inspector: Inspector, column: Column[Any]
) -> None:
    """What the document fills in, the database fills in too, for whoever writes plain SQL."""
    if column.default is not None or column.server_default is not None:
        assert reflected(inspector, column)["default"] is not None


@pytest.mark.parametrize("column", COLUMNS)
def test_every_index_of_the_document_exists(inspector: Inspector, column: Column[Any]) -> None:
    """What the document indexes or makes unique has an index, and a unique one, of its own."""
    alone = [
        it for it in inspector.get_indexes(column.table.name) if it["column_names"] == [column.name]
    ]
    if column.index:
        assert alone
    if column.unique:
        assert any(it["unique"] for it in alone)


def test_best_practice_columns_are_indexed(inspector: Inspector) -> None:
    """The columns of the document's "Index Frequently Queried Fields" have unique indexes."""
    unique = [it["column_names"] for it in inspector.get_indexes("users") if it["unique"]]
    columns = run("indexed columns")
    wanted = [[name] for name, value in columns.items() if isinstance(value, Column)]
    assert wanted == [["email"], ["stripe_customer_id"]]
    assert [columns for columns in wanted if columns not in unique] == []


def test_settings_live_in_preferences(inspector: Inspector) -> None:
    """As in the document's "Use JSONB": one JSONB column, none of those it stands for."""
    defined = run("flexible schema")
    there = {column["name"]: in_ddl(column["type"]) for column in inspector.get_columns("users")}
    assert there["preferences"] == in_ddl(defined["preferences"].type)
    instead = {name for name, value in defined.items() if isinstance(value, Column)}
    assert instead & set(there) == {"preferences"}


@pytest.mark.parametrize("name", OURS)
def test_keys_are_the_document_s(inspector: Inspector, name: str) -> None:
    """Primary and foreign keys are over the document's columns."""
    table = TABLES[name]
    key = inspector.get_pk_constraint(table.name)["constrained_columns"]
    assert key == [column.name for column in table.primary_key]
    references = {
        (tuple(it["constrained_columns"]), it["referred_table"], tuple(it["referred_columns"]))
        for it in inspector.get_foreign_keys(table.name)
    }
    theirs = {
        ((it.parent.name,), it.column.table.name, (it.column.name,)) for it in table.foreign_keys
    }
    assert references == theirs


@pytest.mark.parametrize("name", OURS)
def test_relationships_are_the_document_s(name: str) -> None:
    """`Transaction.user` and `User.transactions` lead where the document's lead."""
    configure_mappers()
    ours, theirs = (
        {it.key: (it.mapper.class_.__name__, it.uselist) for it in inspect(model).relationships}
        for model in (OURS[name], THEIRS[name])
    )
    assert ours.items() >= theirs.items()
