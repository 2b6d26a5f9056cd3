"""Opening balances of users from before the ledger, whose groups have schemas."""

import uuid

import pytest
from sqlalchemy import text

from src.cli import exit_codes
from src.common.credits.opening import opening_import
from src.common.credits.opening.opening import write_openings
from src.common.database import SessionLocal
from src.common.routing import routed_to
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.sharding.conftest import GROUPS
from tests.sharding.people import balance_of, user_of
from tests.sharding.service import count_entries

__all__ = ["data_folder", "run_command"]
BALANCES = (70, 0, 40, 5)


@pytest.fixture
def adopted(groups: ConnectionParameters) -> list[uuid.UUID]:
    """Users of three groups who have a balance and no entry."""
    assert groups
    people = [user_of(GROUPS[place % 3]) for place in range(len(BALANCES))]
    for user_id, balance in zip(people, BALANCES, strict=True):
        with routed_to(user_id), SessionLocal.begin() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(
                text("UPDATE users SET credits_balance = :balance WHERE user_id = :user_id"),
                {"balance": balance, "user_id": user_id},
            )
    return people


def test_everybody_is_opened_once_and_compared(
    adopted: list[uuid.UUID], run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As foretold, group after group; cut off in one, the next run goes on there."""
    import_ = ("credits", "import-opening-balances", "--batch-size", "1", "--json")
    foretold = run_command(*import_, "--dry-run").json
    assert (foretold["opened"], foretold["credits"]) == (3, sum(BALANCES))
    assert sum(map(count_entries, adopted)) == 0
    written = 0

    def die_at_the_second(*arguments: object) -> object:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        return write_openings(*arguments)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(opening_import, "write_openings", die_at_the_second)
    assert run_command(*import_).exit_code != exit_codes.DONE
    assert sum(map(count_entries, adopted)) == 1
    done = run_command(*import_)
    assert done.exit_code == exit_codes.DONE, done.err
    assert (done.json["opened"], done.json["compared"]) == (2, len(BALANCES))
    assert (done.json["differences"], done.json["not_opened"]) == (0, 0)
    assert [balance_of(each) for each in adopted] == list(BALANCES)
    assert run_command(*import_).json["opened"] == 0
    assert run_command("verify").exit_code == exit_codes.DONE
