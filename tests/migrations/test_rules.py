"""What holds for every single migration: time-outs first, and nothing squawk objects to."""

import re
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script

from src.common.postgres.migrations import ALEMBIC_INI
from tests.migrations.commands import PROGRAMS, REPOSITORY, revisions

TIMEOUTS = ["lock_timeout", "statement_timeout"]
UNSAFE = "CREATE INDEX ix_users_phone ON users (phone);"
EVERY_MIGRATION = pytest.mark.parametrize("migration", revisions(), ids=lambda it: it.revision)


def sql_of(migration: Script, direction: str) -> str:
    """What `alembic upgrade A:B --sql` (or downgrade) prints, Alembic's own table left out."""
    written = StringIO()
    config = Config(ALEMBIC_INI, output_buffer=written)
    below = str(migration.down_revision or "base")
    if direction == "upgrade":
        command.upgrade(config, f"{below}:{migration.revision}", sql=True)
    else:
        command.downgrade(config, f"{migration.revision}:{below}", sql=True)
    return written.getvalue()


def squawk(sql: str, folder: Path) -> str:
    """What squawk has to say about some SQL, with our configuration; nothing when it is clean."""
    file = folder / "migration.sql"
    file.write_text(sql, encoding="utf-8")
    config = str(REPOSITORY / ".squawk.toml")
    finished = subprocess.run(
        [str(PROGRAMS / "squawk"), "--config", config, "--reporter", "gcc", str(file)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode in {0, 1}, finished.stderr
    return finished.stdout if finished.returncode else ""


@EVERY_MIGRATION
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_every_migration_begins_with_its_time_outs(migration: Script, direction: str) -> None:
    """Before it touches anything, a migration says how long it may wait and how long it may run."""
    steps = sql_of(migration, direction).partition(f"-- Running {direction}")[2]
    # A concurrent index is made outside a database transaction: there `COMMIT` comes first.
    body = steps.partition("\n")[2].strip().removeprefix("COMMIT;")
    statements = [part.strip() for part in body.split(";")]
    assert [re.findall(r"^SET (?:LOCAL )?(\w+) = ", it) for it in statements[:2]] == [
        [name] for name in TIMEOUTS
    ]


@EVERY_MIGRATION
def test_squawk_finds_nothing(migration: Script, tmp_path: Path) -> None:
    """No migration keeps a running system waiting, as far as squawk can tell."""
    assert squawk(sql_of(migration, "upgrade"), tmp_path) == ""


def test_squawk_finds_what_is_unsafe(tmp_path: Path) -> None:
    """The configuration leaves squawk its teeth: an index that is not concurrent is refused."""
    assert "require-concurrent-index-creation" in squawk(UNSAFE, tmp_path)


@EVERY_MIGRATION
def test_no_column_of_ours_bounds_a_text_by_its_type(migration: Script) -> None:
    """Lengths are CHECK constraints, which can be changed: squawk's rule, for our tables only."""
    steps = sql_of(migration, "upgrade").partition("-- Running upgrade")[2]
    assert not re.search(r"CHAR(ACTER VARYING)?\(\d", steps, re.IGNORECASE)
