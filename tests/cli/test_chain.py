"""`flashslides db chain`, as its page says."""

import shlex

from sqlalchemy import func, select

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.credit_entry import CreditEntry
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits.books import check_books, forget_hashes, spend
from tests.credits.committed import make_users
from tests.document.test_blocks import blocks

PAGE = "docs/explanation/chain.md"


def lacking() -> int:
    """How many entries have no hash."""
    with SessionLocal() as session:
        return session.scalars(
            select(func.count()).select_from(CreditEntry).where(CreditEntry.entry_hash.is_(None))
        ).one()


def test_what_the_page_says(fresh_database: ConnectionParameters, run_command: RunCommand) -> None:
    """Every entry gets its hash; a second time there is nothing to do, and `verify` agrees."""
    assert fresh_database
    user_ids = make_users(5, 5, 5)
    with SessionLocal.begin() as session:
        execute(session, [spend(user_id, 1) for user_id in user_ids])
        forget_hashes(session)
    assert "Some entries may have no hash" in run_command("doctor", "chain").out
    [block] = blocks(PAGE, "bash")
    _, *command = shlex.split(block)
    done = run_command(*command)
    assert (done.exit_code, lacking()) == (0, 0), done.err
    assert "Every entry has its hash" in done.out
    again = run_command(*command, "--json")
    assert again.json == {
        "users": 3,
        "locked_users": 0,
        "entries": 0,
        "is_complete": True,
    }
    assert "Every entry has its hash, since" in run_command("doctor", "chain").out
    assert run_command("verify").exit_code == 0
    with SessionLocal() as session:
        check_books(session)
