"""A command loads what it needs and no more."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from src.cli import choices
from src.common.accounts.api_keys import Scope
from src.common.credits.domain import commands
from src.common.credits.opening import opening_import
from src.common.models.credit_hold import HoldStatus
from src.common.models.stripe_event import STRIPE_EVENT_STATUSES
from src.common.models.user import UserType
from src.common.purchases.queries import PurchaseState
from src.common.reports.catalogue import ReportName
from src.common.reports.formats import Format
from src.common.reports.periods import By
from src.console.permissions import Role
from src.local_postgres import ConnectionParameters
from src.offline_stripe import DEFAULT_PORT
from tests.cli.processes import PATIENCE_SECONDS, Program
from tests.fixtures.databases import environment_of

ROOT = Path(__file__).parents[2]
HEAVY = {
    *(
        "alembic",
        "asyncpg",
        "fastapi",
        "httpx",
        "jwt",
        "matplotlib",
        "msgspec",
        "psycopg",
        "xlsxwriter",
    ),
    *("pydantic_settings", "sqlalchemy", "starlette", "stripe", "structlog", "uvicorn"),
    *("src.api", "src.common.database", "src.common.models", "src.local_postgres"),
    "src.offline_stripe",
}
OF_NO_BALANCE = {
    *("alembic", "asyncpg", "fastapi", "httpx", "jwt", "matplotlib", "starlette", "stripe"),
    *("uvicorn", "src.api", "src.offline_stripe", "src.common.purchases.money_back"),
    "src.local_postgres",
    *(f"src.common.models.{name}" for name in ("approval", "console_session", "stripe_event")),
}
PRINT_LOADED = """
import atexit, sys
atexit.register(lambda: print("\\nLOADED", *sys.modules))
from src.cli.main import main
main()
"""


def loaded_by(*arguments: str, folder: Path, **environment: str) -> set[str]:
    """The modules that a command had loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_LOADED, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        timeout=PATIENCE_SECONDS,
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("credits", "--help"), ("stripe", "reconcile", "--help"), ("serve", "--help")],
)
def test_help_loads_nothing_that_commands_work_with(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Of everything, of a group, of a command."""
    assert loaded_by(*arguments, folder=tmp_path) & HEAVY == set()


@pytest.mark.parametrize(("typed", "offered"), [("cred", "credits"), ("credits sh", "show")])
def test_completion_loads_nothing_that_commands_work_with(
    tmp_path: Path, typed: str, offered: str
) -> None:
    """Whoever types waits for it."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_LOADED],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "__C_COMPLETE": "complete_bash",
            "COMP_WORDS": f"flashslides {typed}",
            "COMP_CWORD": str(len(typed.split())),
        },
        timeout=PATIENCE_SECONDS,
    )
    answer, _, loaded = done.stdout.partition("\nLOADED ")
    assert answer.split() == [offered]
    assert set(loaded.split()) & HEAVY == set()


def test_a_balance_is_shown_without_what_others_need(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """Neither HTTP, Stripe nor migrations, nor the tables of others."""
    program = Program(tmp_path, environment_of(fresh_database) | {"ENV": "local"})
    user_id = program.run_json("user", "create", "start-up@example.com")["user_id"]
    loaded = loaded_by(*("credits", "show", user_id), folder=tmp_path, **dict(program.environment))
    assert "src.common.credits.queries" in loaded
    assert loaded & OF_NO_BALANCE == set()


def test_the_collector_comes_late_and_then_as_ever() -> None:
    """A command that goes on keeps no garbage; what it imported is not looked at again."""
    code = """
import gc
from src.cli.main import COLLECTED_FROM, collect_late
usual = gc.get_threshold()
collect_late()
assert gc.get_threshold()[0] == COLLECTED_FROM
kept = [[] for _ in range(COLLECTED_FROM + 1_000)]
assert gc.get_threshold() == usual
assert gc.get_freeze_count() > COLLECTED_FROM
assert not gc.callbacks
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=PATIENCE_SECONDS)


def test_what_the_command_line_offers_is_what_there_is() -> None:
    """Each choice and limit that is said again, beside what decides it."""
    assert get_args(choices.UserTypeName) == tuple(UserType)
    assert get_args(choices.PurchaseStateName) == tuple(PurchaseState)
    assert get_args(choices.HoldStatusName) == tuple(HoldStatus)
    assert get_args(choices.ConsoleRoleName) == tuple(Role)
    assert tuple(Scope) == choices.SCOPES
    assert get_args(choices.ReportNameName) == tuple(ReportName)
    assert set(get_args(choices.ReportFormatName)) == {"table", *Format}
    assert get_args(choices.ReportByName) == tuple(By)
    assert choices.STRIPE_EVENT_STATUSES == STRIPE_EVENT_STATUSES
    assert choices.AMOUNT_MAX == commands.AMOUNT_MAX
    assert choices.OPENINGS_BATCH_SIZE == opening_import.BATCH_SIZE
    assert choices.OFFLINE_STRIPE_PORT == DEFAULT_PORT
