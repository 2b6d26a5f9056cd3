"""`docs/how-to/change-the-schema.md`, done step by step in a copy of the repository."""

import re
import shlex
from io import StringIO
from pathlib import Path
from textwrap import dedent

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Inspector, inspect, text, update
from sqlalchemy.exc import IntegrityError

from src.common.database import SessionLocal, get_engine
from src.common.models import User
from src.common.postgres.migrations import head_revision
from tests.migrations.commands import REPOSITORY, alembic, copy_of_repository, start_alembic
from tests.migrations.test_rules import squawk
from tests.models.examples import a_user

HOW_TO = (REPOSITORY / "docs/how-to/change-the-schema.md").read_text(encoding="utf-8")
INDEX = ("Index users by their last sign-in.",)
CONSTRAINT = ("Bound the length of a time zone's name.", "Make sure that old rows keep")
HEADER = '''"""A recipe of the how-to.

Revision ID: {revision}
Revises: {down_revision}
"""

import sqlalchemy as sa
from alembic import op

from src.common.postgres.migrations import Loss

revision = "{revision}"
down_revision = "{down_revision}"
LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()


'''


def blocks(language: str) -> list[str]:
    """The how-to's fenced blocks of one language, indented ones too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", HOW_TO, re.MULTILINE | re.DOTALL)
    return [dedent(block) for _, block in found]


def recipe(text_: str) -> str:
    """The one block of Python that contains this text."""
    [block] = [block for block in blocks("python") if text_ in block]
    return block


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository to change."""
    return copy_of_repository(tmp_path / "repository")


def add_migrations(copy: Path, titles: tuple[str, ...]) -> Config:
    """Make recipes the newest migrations of the copy; the copy's configuration."""
    below = head_revision()
    for number, title in enumerate(titles):
        revision = f"recipe_{number}"
        header = HEADER.format(revision=revision, down_revision=below)
        file = copy / "alembic" / "versions" / f"{revision}.py"
        file.write_text(header + recipe(title), encoding="utf-8")
        below = revision
    return Config(copy / "alembic.ini")


def is_validated() -> object:
    """Whether PostgreSQL has validated the recipe's constraint; None where there is none."""
    statement = "SELECT convalidated FROM pg_constraint WHERE conname = 'ck_users_timezone_length'"
    with get_engine().connect() as connection:
        return connection.scalar(text(statement))


def users_now() -> Inspector:
    """The schema as it is now."""
    return inspect(get_engine())


@pytest.mark.usefixtures("fresh_database")
def test_the_example_adds_a_bio(copy: Path) -> None:
    """Each line of the example, run as it stands, gives the migration that the page shows."""
    model = copy / "src/common/models/user.py"
    [new_column] = [block for block in blocks("python") if block.startswith("bio:")]
    phone = "    phone: Mapped[str | None] = mapped_column(String)\n"
    source = model.read_text(encoding="utf-8")
    assert phone in source
    model.write_text(source.replace(phone, f"{phone}    {new_column}"), encoding="utf-8")
    [generate, up_and_down] = blocks("bash")
    before = set((copy / "alembic/versions").glob("*.py"))
    alembic(*shlex.split(generate)[1:], root=copy)
    [migration] = set((copy / "alembic/versions").glob("*.py")) - before
    assert migration.name.endswith("-add_user_bio_field.py")
    generated = migration.read_text("utf-8")
    assert recipe('op.add_column("users", sa.Column("bio"') in generated
    nothing_lost = "LOST_BY_DOWNGRADE: tuple[Loss, ...] = ()\n"
    assert nothing_lost in generated
    migration.write_text(generated.replace(nothing_lost, recipe("LOST_BY_DOWNGRADE")), "utf-8")
    for line in up_and_down.splitlines():
        alembic(*shlex.split(line)[1:], root=copy)
    columns = {column["name"]: column for column in users_now().get_columns("users")}
    assert columns["bio"]["nullable"]
    with SessionLocal.begin() as db:
        db.add(a_user())
        db.flush()
        db.execute(text("UPDATE users SET bio = 'Wrote the first program.'"))
    refused = start_alembic("downgrade", "-1", root=copy)
    assert "would lose bio of users" in "".join(refused.communicate(timeout=600))


@pytest.mark.usefixtures("fresh_database")
def test_an_index_is_made_and_removed_concurrently(copy: Path) -> None:
    """The recipe's index is there after the upgrade, and gone after the downgrade."""
    config = add_migrations(copy, INDEX)
    command.upgrade(config, "head")
    assert "ix_users_last_login_at" in {it["name"] for it in users_now().get_indexes("users")}
    command.downgrade(config, "-1")
    assert "ix_users_last_login_at" not in {it["name"] for it in users_now().get_indexes("users")}


@pytest.mark.usefixtures("fresh_database")
def test_a_constraint_is_added_and_then_validated(copy: Path) -> None:
    """The first migration leaves old rows alone, the second validates them, the way down works."""
    config = add_migrations(copy, CONSTRAINT)
    with SessionLocal.begin() as db:
        db.add(a_user(timezone="x" * 65))
    command.upgrade(config, "recipe_0")
    assert is_validated() is False
    with pytest.raises(IntegrityError, match="ck_users_timezone_length"):
        command.upgrade(config, "head")
    with SessionLocal.begin() as db:
        db.execute(update(User).values(timezone=None))
    command.upgrade(config, "head")
    assert is_validated() is True
    command.downgrade(config, head_revision())
    assert is_validated() is None


@pytest.mark.parametrize("recipes", [INDEX, CONSTRAINT], ids=["index", "constraint"])
def test_squawk_agrees_with_the_recipes(
    copy: Path, tmp_path: Path, recipes: tuple[str, ...]
) -> None:
    """The recipes are what squawk asks for."""
    config = add_migrations(copy, recipes)
    config.output_buffer = StringIO()
    command.upgrade(config, f"{head_revision()}:head", sql=True)
    assert squawk(config.output_buffer.getvalue(), tmp_path) == ""


@pytest.mark.usefixtures("fresh_database")
def test_the_backfill_reaches_every_row_in_batches() -> None:
    """Repeated until it changes nothing, the page's statement fills all rows, some at a time."""
    [statement] = blocks("sql")
    with SessionLocal.begin() as db:
        db.execute(text("ALTER TABLE users ADD COLUMN bio varchar"))
        db.add_all(a_user() for _ in range(25))
    changed: list[int] = []
    while not changed or changed[-1]:
        with get_engine().begin() as connection:
            batch = statement.replace("LIMIT 1000", "LIMIT 10")
            changed.append(connection.execute(text(batch)).rowcount)
    assert changed == [10, 10, 5, 0]
