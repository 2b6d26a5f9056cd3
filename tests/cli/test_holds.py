"""`flashslides credits holds …`: one user's holds, everybody's open ones, and giving one up."""

import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.api.src.schemas.credits import EntryOut, HoldOut
from src.common.credits import ledger
from src.common.credits.domain.commands import Capture, Command, Grant, OpenHold
from src.common.credits.operations import execute
from src.common.models.credit_entry import CreditEntry
from tests.cli.conftest import Result, RunCommand, after
from tests.credits.ledger import someone

ADA = "ada@example.com"


@pytest.fixture
def ada(db: Session) -> uuid.UUID:
    """A user with three holds of an hour ago: captured, expired but not booked so yet, and open."""
    user_id = someone(db, email=ADA)
    given: dict[str, Any] = {"user_id": user_id, "actor": "system:tests"}
    commands: list[Command] = [Grant(**given, key="start", amount=100)]
    for seq, seconds in ((2, 60), (3, 60), (4, 86_400)):
        hold: dict[str, Any] = {
            "amount": 10 * seq,
            "expires_in_seconds": seconds,
            "reference": f"deck {seq}",
        }
        commands.append(OpenHold(**given, **hold, key=f"hold {seq}"))
    commands.append(Capture(**given, key="capture", hold_seq=2, amount=20))
    execute(db, commands, now=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    db.commit()
    return user_id


def items(result: Result) -> list[dict[str, Any]]:
    """What a command listed."""
    assert result.exit_code == 0, result.err
    found: list[dict[str, Any]] = result.json["items"]
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [(4, "open"), (3, "expired"), (2, "captured")]),
        (["--status", "open"], [(4, "open")]),
        (["--status", "expired"], [(3, "expired")]),
        (["--status", "captured"], [(2, "captured")]),
        (["--status", "released"], []),
    ],
)
def test_a_users_holds_are_listed_as_they_are_now(
    flashslides: RunCommand, ada: uuid.UUID, options: list[str], expected: list[tuple[int, str]]
) -> None:
    """Newest first, of any status or of one; what has expired has, booked or not."""
    assert ada
    found = items(flashslides("credits", "holds", "list", ADA, "--json", *options))
    assert [(each["seq"], each["status"]) for each in found] == expected
    for_people = flashslides("credits", "holds", "list", ADA, *options)
    assert for_people.exit_code == 0
    assert ("No hold is as asked for." in for_people.out) is (expected == [])
    if expected:
        assert f"deck {expected[0][0]}" in for_people.out


def test_everybodys_open_holds_are_listed_page_by_page(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """Each once, those that stay open the longest first; what has expired is not among them."""
    eve = someone(db, email="eve@example.com")
    ledger.grant(db, eve, 100, key="start")
    for number in range(3):
        execute(
            db,
            [
                OpenHold(
                    user_id=eve,
                    key=f"hold {number}",
                    actor="system:tests",
                    amount=1,
                    expires_in_seconds=172_800,
                )
            ],
        )
    db.commit()
    seen: list[tuple[str, int]] = []
    following: str | None = None
    for _ in range(4):
        page = flashslides(
            "credits", "holds", "list", "--all", "--json", "--limit", "1", *after(following)
        )
        seen += [(each["user_id"], each["seq"]) for each in items(page)]
        following = page.json["next_cursor"]
    assert following is None
    assert seen == [(str(eve), 4), (str(eve), 3), (str(eve), 2), (str(ada), 4)]


def test_a_hold_has_one_shape_wherever_it_is_listed(
    flashslides: RunCommand, ada: uuid.UUID
) -> None:
    """A user's, everybody's, and in the explanation: its fields, and the entry that opened it."""
    [of_user] = items(flashslides("credits", "holds", "list", ADA, "--status", "open", "--json"))
    [of_everybody] = items(flashslides("credits", "holds", "list", "--all", "--json"))
    [explained] = flashslides("credits", "explain", ADA, "--json").json["holds"]
    assert of_everybody == {"user_id": str(ada)} | of_user
    assert explained == of_user
    assert of_user.keys() == HoldOut.model_fields.keys()
    assert of_user["entry"].keys() == EntryOut.model_fields.keys()


@pytest.mark.parametrize(
    "arguments", [[], [ADA, "--all"], ["--all", "--status", "captured"], ["--all", "--cursor", "x"]]
)
def test_what_is_not_clear_is_bad_input(
    flashslides: RunCommand, ada: uuid.UUID, arguments: list[str]
) -> None:
    """A user or everybody; of everybody the open ones; a cursor of ours."""
    assert ada
    assert flashslides("credits", "holds", "list", *arguments).exit_code == 2


def test_a_hold_is_released_once_for_its_key(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """Its credits are back, the reason is in the journal, the same again answers the same."""
    arguments = (
        "credits",
        "holds",
        "release",
        ADA,
        "4",
        "--reason",
        "stuck",
        "--key",
        "r",
        "--json",
    )
    first, again = flashslides(*arguments), flashslides(*arguments)
    assert first.exit_code == 0, first.err
    assert (first.json["amount"], first.json["replayed"]) == (40, False)
    assert again.json == first.json | {"replayed": True}
    statement = select(CreditEntry.reference).where(
        CreditEntry.user_id == ada, CreditEntry.kind == "release"
    )
    assert db.scalars(statement).all() == ["stuck"]
    other = flashslides("credits", "holds", "release", ADA, "4")
    assert (other.exit_code, other.out) == (4, "")
    assert "HOLD_CLOSED" in other.err


def test_a_dry_run_releases_nothing(flashslides: RunCommand, db: Session, ada: uuid.UUID) -> None:
    """It says what would go back."""
    result = flashslides("credits", "holds", "release", ADA, "4", "--dry-run", "--json")
    assert (result.exit_code, result.json["amount"]) == (0, 40)
    released = select(func.count()).where(CreditEntry.user_id == ada, CreditEntry.kind == "release")
    assert db.scalars(released).one() == 0


@pytest.mark.parametrize("arguments", [[ADA, "9"], ["nobody@example.com", "4"]])
def test_an_unknown_hold_is_not_found(
    flashslides: RunCommand, ada: uuid.UUID, arguments: list[str]
) -> None:
    """Exit code 3: a hold that the user does not have, or nobody's."""
    assert ada
    result = flashslides("credits", "holds", "release", *arguments)
    assert (result.exit_code, result.out) == (3, "")
