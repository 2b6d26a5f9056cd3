"""The document's "Alembic Conflicts": each state is made, and the doctor's next step mends it."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic import command
from alembic.config import CommandLine
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.database import SessionLocal, dispose_db
from src.common.doctor import migrations
from src.common.postgres.migrations import alembic_config, head_revisions
from tests.doctor.system import asked
from tests.fixtures.commands import forked_commands
from tests.migrations.commands import REPOSITORY, copy_of_repository

CHECKS = ("migrations", "schema-drift")
[HEAD] = head_revisions()
OLDER = "72f5a0d9be34"
"""One with no constraint that waits to be validated: Alembic's comparison warns of such."""


class State(NamedTuple):
    """How a database stands with its revisions, and what is said of that."""

    database: str
    """The fixture of the one it is made of."""
    make: Callable[[], object]
    check: str
    """Which of the checks fails."""
    says: str


def _behind() -> None:
    command.downgrade(alembic_config(), OLDER)


def _stamped_only() -> None:
    command.stamp(alembic_config(), "head")


def _stamped_too_high() -> None:
    _behind()
    _stamped_only()


def _at_two_revisions() -> None:
    with SessionLocal.begin() as session:
        session.execute(text("INSERT INTO alembic_version VALUES (:older)"), {"older": OLDER})
    dispose_db()


STATES = {
    "behind": State("fresh_database", _behind, "migrations", "this release expects"),
    "stamped and not migrated": State(
        "empty_database", _stamped_only, "schema-drift", "no table anchor_checkpoints, no table"
    ),
    "stamped higher than migrated": State(
        "fresh_database", _stamped_too_high, "schema-drift", "Stamped"
    ),
    "at two revisions": State(
        "fresh_database", _at_two_revisions, "migrations", "several revisions at once"
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_the_next_step_mends_the_database(request: pytest.FixtureRequest, name: str) -> None:
    """Run as it is printed; then both checks are right."""
    state = STATES[name]
    assert request.getfixturevalue(state.database)
    state.make()
    found = asked(state.check)
    assert (found.status, state.says in found.seen) == ("fail", True), found.seen
    step = str(found.next)
    if "REVISION for" in step:  # which a person finds out
        first, _, rest = step.partition(", then ")
        assert first == "flashslides db check"
        assert "flashslides db upgrade" in rest
        step = f"alembic stamp {OLDER} && flashslides db upgrade"
    done = subprocess.run(
        ["/bin/bash", "-euc", step],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": f"{forked_commands()}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    dispose_db()
    answers = {check: asked(check) for check in CHECKS}
    assert {each.status for each in answers.values()} == {"ok"}, answers


def test_two_heads_are_merged_by_the_next_step(
    tmp_path: Path, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the repository: two branches each added a migration; then there is one head."""
    assert db
    monkeypatch.chdir(copy_of_repository(tmp_path))
    for name in ("ours", "theirs"):
        alembic("revision", "--splice", "--head", HEAD, "--rev-id", name, "-m", name)
    monkeypatch.setattr(migrations, "head_revisions", lambda: frozenset({"ours", "theirs"}))
    found = asked("migrations")
    assert found.status == "fail"
    program, *words = shlex.split(str(found.next))
    assert program == "alembic"
    alembic(*words)
    scripts = ScriptDirectory(tmp_path / "alembic")
    [head] = scripts.get_heads()
    assert set(scripts.get_revision(head).down_revision or ()) == {"ours", "theirs"}


def alembic(*words: str) -> None:
    """A command as people type it, in this process: these look at files only."""
    CommandLine().main(words)
