"""The ledger's triggers, as the doctor sees them and has them made again."""

import shlex
import subprocess
import sys

import pytest

from src.common.database_settings import LedgerTriggers
from src.common.doctor import money
from src.common.models.ledger_triggers import CREATE_FUNCTIONS
from src.common.postgres.ledger_triggers_form import put_in_place
from tests.doctor.system import System, asked


def test_the_next_step_makes_the_triggers_that_are_missing(system: System) -> None:
    """All of them; then the check is right again."""
    system.run("DROP TRIGGER users_kept ON users")
    system.run("DROP TRIGGER credit_lots_made ON credit_lots")
    system.run("DROP TRIGGER console_actions_append_only ON console_actions")
    before, _, rest = str(asked("triggers").next).partition('"')
    statements, _, after = rest.partition('"')
    assert (before, after) == ("flashslides db psql -c ", " && flashslides verify")
    for statement in statements.split(";"):
        system.run(statement)
    assert asked("triggers").status == "ok"


def test_every_function_is_compared(system: System) -> None:
    """With the text that the migrations made, where all is right; the others' seven as well."""
    assert len(money.FUNCTIONS) == len(CREATE_FUNCTIONS) + 7
    found = asked("triggers")
    assert (found.status, found.seen) == ("ok", found.seen)
    assert system


@pytest.mark.parametrize(
    "name",
    [
        "credit_users_balanced",
        "credit_ledger_append_only",
        "approvals_guarded",
        "console_actions_kept",
        "credit_entries_told",
    ],
)
def test_an_emptied_function_is_named_and_made_again(system: System, name: str) -> None:
    """Its trigger is there and enabled, and would let everything pass."""
    system.run(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN RETURN NULL; END$$"
    )
    found = asked("triggers")
    assert found.status == "fail"
    assert f"the functions {name}." in found.seen
    printing, _, rest = str(found.next).partition(" | ")
    assert rest == "flashslides db psql && flashslides verify"
    printing = printing.replace("python", shlex.quote(sys.executable), 1)
    printed = subprocess.run(
        ["/bin/bash", "-euc", printing], capture_output=True, text=True, check=True
    ).stdout
    system.db.connection().exec_driver_sql(printed.replace("%", "%%"))
    system.db.commit()
    assert asked("triggers").status == "ok"


def test_the_form_that_the_settings_name_is_to_be_in_place(system: System) -> None:
    """The other one is a trouble, and so is half of it."""
    system.set(DATABASE_LEDGER_TRIGGERS="commit")
    found = asked("triggers")
    assert (found.status, found.next) == ("fail", "flashslides db upgrade && flashslides verify")
    put_in_place(system.db.connection(), LedgerTriggers.COMMIT)
    system.db.commit()
    found = asked("triggers")
    assert (found.status, "look at each commit" in found.seen) == ("ok", True)
    system.run("ALTER TABLE users DISABLE TRIGGER users_at_commit")
    assert asked("triggers").status == "fail"
    put_in_place(system.db.connection(), LedgerTriggers.COMMIT)
    system.set(DATABASE_LEDGER_TRIGGERS="statement")
    assert asked("triggers").status == "fail"


def test_a_newer_release_s_functions_are_its_own(system: System) -> None:
    """This release cannot say what they are to be."""
    system.run(
        "CREATE OR REPLACE FUNCTION credit_users_balanced() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN RETURN NULL; END$$"
    )
    system.run("UPDATE alembic_version SET version_num = 'newer'")
    assert asked("triggers").status == "ok"
