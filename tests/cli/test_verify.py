"""`flashslides verify`: what it prints and refuses, alone and in several processes."""

import uuid

import pytest

from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits.ledger import someone
from tests.credits.verification.test_verify import corrupt

ADA = "ada@example.com"


@pytest.fixture
def ada(fresh_database: ConnectionParameters) -> uuid.UUID:
    """A user without credits."""
    assert fresh_database
    with SessionLocal.begin() as session:
        return someone(session, email=ADA)


def test_verify_finds_sound_books_sound(run_command: RunCommand, ada: uuid.UUID) -> None:
    """Exit 0, a sentence for people, the report for programs; progress on stderr."""
    run_command("credits", "grant", str(ada), "50")
    for selection in (
        [],
        ["--user", ADA],
        ["--user", str(ada)],
        ["--sample", "5"],
        ["--jobs", "2"],
    ):
        result = run_command("verify", *selection, "--json")
        assert result.exit_code == 0
        assert result.json == {
            "users": 1,
            "differing_users": 0,
            "differences": 0,
            "first": [],
            "unbookable": [],
            "without_opening_entry": 0,
            "not_replayed": 0,
        }
        assert "Users verified" in result.err
    assert run_command("verify").out == "All books balance. Users verified: 1.\n"


def test_verify_names_what_differs_and_exits_1(run_command: RunCommand, ada: uuid.UUID) -> None:
    """User, row, expected and found, for people and programs."""
    with SessionLocal.begin() as session:
        someone(session, email="eve@example.com")
    run_command("credits", "grant", ADA, "50")
    corrupt("UPDATE credit_lots SET last_seq = 2 WHERE user_id = :user_id", ada)
    result = run_command("verify", "--json")
    assert (result.exit_code, result.json["users"]) == (1, 2)
    assert result.json["first"] == [
        {"user_id": str(ada), "seq": 1, "kind": kind, "expected": "1", "found": "2"}
        for kind in ("credit_lots.last_seq", "LAST_SEQ_IS_NOT_THE_NEWEST_POSTING")
    ]
    people = run_command("verify", "--user", ADA)
    assert people.exit_code == 1
    assert run_command("verify", "--jobs", "2").out == people.out
    assert "LAST_SEQ_IS_NOT_THE_NEWEST_POSTING" in people.out
    assert "Differences: 2, users: 1;" in people.out
    assert run_command("verify", "--user", "eve@example.com").exit_code == 0


def test_verify_counts_balances_from_before_the_ledger_apart(
    run_command: RunCommand, ada: uuid.UUID
) -> None:
    """NO_OPENING_ENTRY is no difference: exit 0."""
    corrupt("UPDATE users SET credits_balance = 70 WHERE user_id = :user_id", ada)
    people = run_command("verify")
    assert (people.exit_code, "NO_OPENING_ENTRY: 1 users" in people.out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--user", ADA, "--sample", "5"], 2),
        (["--user", "nobody@example.com"], 3),
        (["--sample", "0"], 2),
        (["--jobs", "0"], 2),
    ],
)
def test_verify_refuses_what_it_cannot_select(
    run_command: RunCommand, ada: uuid.UUID, arguments: list[str], code: int
) -> None:
    """One user, a sample or everybody; an unknown user is not a sound one."""
    assert ada
    assert run_command("verify", *arguments).exit_code == code
