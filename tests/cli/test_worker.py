"""`flashslides worker`: books what is due, verifies a slice of the books, and ends when told to."""

import threading

import pytest
from sqlalchemy import select

from src.common.credits.domain.commands import Grant
from src.common.credits.verification.drift import drift
from src.common.database import SessionLocal
from src.common.models import CreditVerification
from src.common.settings import Settings, get_settings
from tests.cli.conftest import RunCommand
from tests.cli.test_credits import booked
from tests.credits.ledger import at, do, someone
from tests.credits.verification.test_verify import corrupt

pytestmark = pytest.mark.usefixtures("fresh_database")

LONG_AGO = -10 * 365 * 86_400
"""Seconds before the tests' start of time."""


def test_once_books_what_is_due_and_verifies_a_slice(run_command: RunCommand) -> None:
    """Then it ends; nothing differs, and nothing is said of it."""
    with SessionLocal.begin() as db:
        user_id = someone(db)
        do(db, Grant, user_id, LONG_AGO, amount=10, expires_at=at(LONG_AGO + 1))
    done = run_command("worker", "--once")
    with SessionLocal.begin() as db:
        assert (done.exit_code, booked(db, user_id)) == (0, 0)
        assert db.scalars(select(CreditVerification.last_pass_users)).one() == 1
        assert drift(db).users == 0
    assert "differ" not in done.err


def test_a_difference_is_an_error_in_the_log(run_command: RunCommand) -> None:
    """It names the first user and row, and the command that tells more."""
    with SessionLocal.begin() as db:
        user_id = someone(db)
        do(db, Grant, user_id, amount=10)
    corrupt("UPDATE users SET credits_balance = 11 WHERE user_id = :user_id", user_id)
    done = run_command("worker", "--once")
    assert done.exit_code == 0
    with SessionLocal.begin() as db:
        assert drift(db).users == 1
    for word in ("flashslides verify", str(user_id), "users.credits_balance"):
        assert word in done.err


def test_an_interval_of_0_verifies_nothing(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs `flashslides verify` by a timer of their own can switch it off."""
    monkeypatch.setenv("CREDITS_VERIFY_INTERVAL_SECONDS", "0")
    get_settings.cache_clear()
    assert run_command("worker", "--once").exit_code == 0
    get_settings.cache_clear()
    with SessionLocal.begin() as db:
        assert db.scalars(select(CreditVerification)).all() == []


def test_a_start_looks_at_what_the_stripe_key_may_do(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread of its own, which `--once` waits for."""
    looked_at: list[Settings] = []

    def tell(settings: Settings) -> threading.Thread:
        thread = threading.Thread(target=looked_at.append, args=[settings])
        thread.start()
        return thread

    monkeypatch.setattr("src.cli.worker.tell_of_missing_permissions", tell)
    assert run_command("worker", "--once").exit_code == 0
    assert len(looked_at) == 1
