"""The page `docs/reference/schema.md`: tables as the models have them, and who refers to whom."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import griffe
from sqlalchemy import CheckConstraint, Column, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from src.common.models import Base

MODELS = "src.common.models"
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
INTRODUCTION = """# The schema

The tables of the database, made from the models in `src/common/models`. A check compares the models
with the migrations, so this is what PostgreSQL has.

- Amounts of credits are whole credits. Amounts of money are in the currency's smallest unit, such
  as cents.
- What the triggers refuse is on [a page of its own](what-the-database-refuses.md).
- "Rule 11" is one of [the ledger's rules](../explanation/rules.md).
- A solid line in the pictures is a foreign key. A dotted line is a reference that triggers check
  instead ([why](../decisions/0019-references-are-checked-set-by-set.md)).

"""
LOOKED_UP_BY_TRIGGERS = (
    ("users", "credit_entries", "user_id"),
    ("credit_entries", "credit_postings", "user_id, seq"),
    ("credit_lots", "credit_postings", "user_id, lot_seq"),
)
"""References without a foreign key: decision 0019."""


def schema_page() -> str:
    """The whole page."""
    models = {each.class_.__tablename__: each.class_ for each in Base.registry.mappers}
    tables = [Base.metadata.tables[name] for name in sorted(models)]
    users = Base.metadata.tables["users"]
    tied = [table for table in tables if table.foreign_key_constraints]
    of_ledger = [table for table in tables if table.name.startswith("credit_")]
    sections = (_section(table, models[table.name]) for table in tables)
    return (
        INTRODUCTION
        + _diagram([users, *of_ledger])
        + _diagram([users, *(table for table in tied if table not in of_ledger)])
        + "".join(sections)
    )


def _diagram(tables: Sequence[Table]) -> str:
    """Tables with their keys, and who refers to whom, for Mermaid."""
    lines = ["```mermaid", "erDiagram"]
    names = {table.name for table in tables}
    for table in tables:
        keys = [column for column in table.columns if column.primary_key or column.foreign_keys]
        lines += [f"    {table.name} {{", *map(_key, keys), "    }"]
    for table in tables:
        lines += sorted(
            f'    {key.referred_table.name} ||--o{{ {table.name} : "{", ".join(key.column_keys)}"'
            for key in table.foreign_key_constraints
        )
    lines += [
        f'    {one} ||..o{{ {many} : "{by}"'
        for one, many, by in LOOKED_UP_BY_TRIGGERS
        if {one, many} <= names
    ]
    return "\n".join([*lines, "```", "", ""])


def _key(column: Column[object]) -> str:
    marks = ["PK"] * column.primary_key + ["FK"] * bool(column.foreign_keys)
    return f"        {_type_of(column).split('(')[0]} {column.name} {','.join(marks)}"


def _section(table: Table, model: type) -> str:
    meanings = _meanings(model)
    rows = "".join(
        f"| `{column.name}` | `{_type_of(column)}` | {'yes' if column.nullable else ''} "
        f"| {meanings.get(column.name, '')} |\n"
        for column in table.columns
    )
    rules = "".join(f"- {rule}\n" for rule in _rules(table))
    return (
        f"\n## `{table.name}`\n\n{inspect.cleandoc(model.__doc__ or '').splitlines()[0]}\n\n"
        f"| column | type | NULL | meaning |\n|---|---|---|---|\n{rows}\n{rules}"
    )


def _meanings(model: type) -> dict[str, str]:
    """What the models say below their columns."""
    module = _models()[model.__module__.removeprefix(f"{MODELS}.")]
    members = module.members[model.__name__].members
    return {
        name: " ".join(member.docstring.value.split()).replace("|", r"\|")
        for name, member in members.items()
        if member.docstring is not None
    }


@cache
def _models() -> griffe.Object | griffe.Alias:
    """Their source, read once: griffe reads all of `src` whatever it is asked for."""
    return griffe.load(MODELS, search_paths=["."])


def _rules(table: Table) -> Iterator[str]:
    yield f"Primary key: {_names(table.primary_key.columns)}"
    for key in sorted(table.foreign_key_constraints, key=lambda each: str(each.name)):
        target = key.referred_table.name
        yield f"`{key.name}`: {_names(key.columns)} is in [`{target}`](#{target})"
    for rule in sorted(table.constraints, key=lambda each: str(each.name)):
        if isinstance(rule, UniqueConstraint):
            yield f"`{rule.name}`: {_names(rule.columns)} is unique"
        elif isinstance(rule, CheckConstraint):
            yield f"`{rule.name}`: `{' '.join(str(rule.sqltext).split())}`"
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        yield f"`{' '.join(str(CreateIndex(index).compile(dialect=DIALECT)).split())}`"


def _names(columns: Iterable[Column[object]]) -> str:
    return ", ".join(f"`{column.name}`" for column in columns)


def _type_of(column: Column[object]) -> str:
    return (
        column.type.compile(dialect=DIALECT)
        .lower()
        .replace("timestamp with time zone", "timestamptz")
    )
