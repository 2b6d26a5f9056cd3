"""`flashslides credits …`: what they do, print and refuse."""

import re
import uuid
from typing import get_args

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from src.cli.moves import GrantSource
from src.common.credits.domain.commands import Grant, OpenHold
from src.common.credits.operations import execute
from src.common.models.credit_entry import CreditEntry
from src.common.models.user import User
from tests.cli.conftest import RunAs, RunCommand
from tests.credits.ledger import ask, someone

ADA = "ada@example.com"


@pytest.fixture
def ada(db: Session) -> uuid.UUID:
    """A user without credits."""
    user_id = someone(db, email=ADA)
    db.commit()
    return user_id


def booked(db: Session, user_id: uuid.UUID) -> int:
    """The balance as the database has it."""
    statement = select(User.credits_balance).where(User.user_id == user_id)
    balance: int = db.scalars(statement).one()
    return balance


def corrupt(db: Session, statement: str) -> None:
    """Change rows behind the ledger's back."""
    db.execute(text("SET session_replication_role = replica"))
    db.execute(text(statement))
    db.execute(text("SET session_replication_role = origin"))
    db.commit()


def test_credits_are_granted_spent_and_adjusted(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """By e-mail or id; each prints its result, and the balance follows."""
    steps: list[tuple[list[str], int, int]] = [
        (["grant", ADA, "100"], 100, 100),
        (["spend", str(ada), "30", "--reference", "deck 1"], -30, 70),
        (["adjust", ADA, "5", "--reason", "goodwill"], 5, 75),
        (["adjust", ADA, "-15", "--reason", "counted twice"], -15, 60),
    ]
    for seq, (arguments, amount, balance) in enumerate(steps, start=1):
        done = flashslides("credits", *arguments, "--json")
        assert (done.exit_code, done.json["seq"]) == (0, seq)
        assert (done.json["amount"], done.json["balance"]) == (amount, balance)
        assert booked(db, ada) == balance
    references = db.scalars(select(CreditEntry.reference).order_by(CreditEntry.seq)).all()
    assert references == [None, "deck 1", "goodwill", "counted twice"]


def test_a_grant_has_the_lot_that_was_asked_for(flashslides: RunCommand, ada: uuid.UUID) -> None:
    """Source, priority and expiry are the options'."""
    options = ("--source", "subscription", "--priority", "7", "--expires-at", "2099-01-31T12:00Z")
    assert flashslides("credits", "grant", str(ada), "9", *options).exit_code == 0
    [lot] = flashslides("credits", "show", ADA, "--json").json["lots"]
    assert (lot["source"], lot["priority"], lot["remaining"]) == ("subscription", 7, 9)
    assert lot["expires_at"] == "2099-01-31T12:00:00Z"


def test_the_journal_names_the_account_that_ran_the_command(
    flashslides: RunCommand,
    db: Session,
    ada: uuid.UUID,
    run_as: RunAs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`system:cli:` and the process's account, whatever variables say; or `unknown`."""
    monkeypatch.setenv("LOGNAME", "somebody-else")
    run_as("operator")
    flashslides("credits", "grant", str(ada), "1")
    run_as(None)
    flashslides("credits", "grant", str(ada), "1")
    actors = db.scalars(select(CreditEntry.actor).order_by(CreditEntry.seq)).all()
    assert actors == ["system:cli:operator", "system:cli:unknown"]


def test_the_same_key_does_it_once(flashslides: RunCommand, db: Session, ada: uuid.UUID) -> None:
    """The second run prints the first result, marked as replayed."""
    first, again = [
        flashslides("credits", "grant", ADA, "10", "--key", "gift-1", "--json").json
        for _ in range(2)
    ]
    assert (first.pop("replayed"), again.pop("replayed")) == (False, True)
    assert first == again
    assert first["idempotency_key"] == "gift-1"
    assert booked(db, ada) == 10


def test_a_key_of_its_own_is_said_before_anything_is_done(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """Whoever was cut off finds it on stderr, and may repeat the command with it."""
    done = flashslides("credits", "grant", ADA, "10", "--json")
    found = re.search(r"--key (\S+)", done.err)
    assert found is not None
    assert done.json["idempotency_key"] == found[1]
    again = flashslides("credits", "grant", ADA, "10", "--key", found[1], "--json")
    assert again.json["replayed"] is True
    assert booked(db, ada) == 10
    refused = flashslides("credits", "spend", ADA, "11")
    assert (refused.exit_code, "--key" in refused.err) == (4, True)


def test_much_at_once_wants_yes(flashslides: RunCommand, db: Session, ada: uuid.UUID) -> None:
    """Above CREDITS_MANUAL_LIMIT nothing is given but with `--yes`; a dry run gives nothing."""
    for arguments in (["grant", ADA, "2000000"], ["adjust", ADA, "100001", "--reason", "x"]):
        before = booked(db, ada)
        refused = flashslides("credits", *arguments)
        assert (refused.exit_code, refused.out) == (2, "")
        assert "amount: more than 100000" in refused.err
        assert "--yes" in refused.err
        assert flashslides("credits", *arguments, "--dry-run").exit_code == 0
        assert booked(db, ada) == before
        assert flashslides("credits", *arguments, "--yes").exit_code == 0
        assert booked(db, ada) > before
    taken = flashslides("credits", "adjust", ADA, "-2000000", "--reason", "a mistake")
    assert taken.exit_code == 0
    undoing = ("credits", "reverse", ADA, "3", "--reason", "no mistake", "--key", "once")
    refused = flashslides(*undoing)
    assert (refused.exit_code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert flashslides(*undoing, "--yes").exit_code == 0
    assert flashslides(*undoing, "--json").json["replayed"]  # and so nothing is given


def test_a_mistaken_grant_is_undone_as_far_as_it_is_there(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """All of it or nothing, unless `--as-far-as-possible`; the answer says what was spent."""
    flashslides("credits", "grant", ADA, "10")
    flashslides("credits", "spend", ADA, "3")
    undoing = ["credits", "reverse", ADA, "1", "--reason", "a mistake"]
    refused = flashslides(*undoing)
    assert (refused.exit_code, refused.out) != (0, "")
    assert "INSUFFICIENT_CREDITS" in refused.err
    assert booked(db, ada) == 7
    done = flashslides(*undoing, "--as-far-as-possible", "--json").json
    assert (done["kind"], done["amount"], done["spent"]) == ("reversal", -7, 3)
    part = flashslides("credits", "reverse", ADA, "2", "--amount", "2", "--reason", "x", "--json")
    assert (part.json["amount"], part.json["balance"]) == (2, 2)


def test_the_help_offers_the_sources_that_are_granted_from() -> None:
    """Neither what was paid for nor what was there before, which a grant refuses."""
    assert set(get_args(GrantSource)) == set(Grant.sources)


def test_a_dry_run_says_what_would_be_done(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """Result and entries with their lots, for programs and people; nothing is written."""
    flashslides("credits", "grant", ADA, "10")
    for arguments in (["spend", ADA, "4"], ["adjust", ADA, "-4", "--reason", "x"]):
        seen = flashslides("credits", *arguments, "--dry-run", "--json").json
        assert (seen["amount"], seen["balance"]) == (-4, 6)
        assert seen["entries"][0]["postings"] == [
            {"lot_seq": 1, "amount": -4, "remaining_after": 6}
        ]
        people = flashslides("credits", *arguments, "--dry-run")
        assert "It would write" in people.out
        assert "--key" not in people.err
    assert booked(db, ada) == 10
    assert flashslides("credits", "spend", ADA, "11", "--dry-run").exit_code == 4


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "nobody's e-mail": (["show", "eve@example.com"], 3, "USER_NOT_FOUND"),
    "nobody's id": (["spend", str(uuid.uuid4()), "1"], 3, "USER_NOT_FOUND"),
    "too much": (["spend", ADA, "1"], 4, "INSUFFICIENT_CREDITS"),
    "an amount of 0": (["grant", ADA, "0"], 2, "VALIDATION_ERROR"),
    "an adjustment of 0": (["adjust", ADA, "0", "--reason", "x"], 2, "VALIDATION_ERROR"),
    "an adjustment without a reason": (["adjust", ADA, "1"], 2, "--reason"),
    "an empty reason": (["adjust", ADA, "1", "--reason", ""], 2, "VALIDATION_ERROR"),
    "half a credit": (["grant", ADA, "1.5"], 2, "amount"),
    "an unknown option": (["adjust", ADA, "1", "--reasn", "x", "--reason", "x"], 2, "--reasn"),
    "a key of ours": (["grant", ADA, "1", "--key", "~opening"], 2, "VALIDATION_ERROR"),
    "an empty key": (["grant", ADA, "1", "--key", ""], 2, "key: must be 1 to 255"),
    "an opening": (["grant", ADA, "1", "--source", "opening"], 2, "--source"),
    "a purchase": (["grant", ADA, "1", "--source", "purchase"], 2, "--source"),
    "all there is": (["grant", ADA, "2147483647"], 2, "takes --yes"),
    "more than there is": (["grant", ADA, "2147483648", "--yes"], 2, "VALIDATION_ERROR"),
    "a key like a purchase's": (["grant", ADA, "1", "--key", "~purchase:cs_1"], 2, "key: must not"),
    "an unknown source": (["grant", ADA, "1", "--source", "gift"], 2, "gift"),
    "no instant": (["grant", ADA, "1", "--expires-at", "tomorrow"], 2, "VALIDATION_ERROR"),
    "no time zone": (
        ["show", ADA, "--as-of", "2020-01-01", "--time-zone", "Mars"],
        2,
        "--time-zone: 'Mars' is no time zone",
    ),
    "the future": (["show", ADA, "--as-of", "2099-01-01T00:00Z"], 2, "VALIDATION_ERROR"),
    "no cursor": (["history", ADA, "--cursor", "x"], 2, "VALIDATION_ERROR"),
}


@pytest.mark.parametrize(("arguments", "code", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_refused(
    flashslides: RunCommand,
    db: Session,
    ada: uuid.UUID,
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    """An exit code, a sentence on stderr that names the problem, and nothing done."""
    assert ada
    result = flashslides("credits", *arguments)
    assert (result.exit_code, result.out) == (code, "")
    assert sentence in result.err
    assert db.scalars(select(func.count()).select_from(CreditEntry)).one() == 0


def test_show_tells_the_balance_now_and_then(flashslides: RunCommand, ada: uuid.UUID) -> None:
    """All figures in JSON; for people a table of lots under the balance."""
    flashslides("credits", "grant", str(ada), "10")
    now = flashslides("credits", "show", ADA, "--json").json
    assert (now["balance"], now["held"], now["debt"], now["version"]) == (10, 0, 0, 1)
    then = flashslides("credits", "show", ADA, "--as-of", "2020-01-01T00:00Z", "--json").json
    assert (then["balance"], then["lots"]) == (0, [])
    people = flashslides("credits", "show", ADA).out
    assert re.search(r"balance +10\b", people)
    assert re.search(r"Lots.*promo", people, re.DOTALL)


def test_history_is_paged_newest_first(flashslides: RunCommand, ada: uuid.UUID) -> None:
    """The cursor on stderr or in the JSON leads on; the last page has none."""
    for amount in ("1", "2", "3"):
        flashslides("credits", "grant", str(ada), amount)
    first = flashslides("credits", "history", ADA, "--limit", "2", "--json").json
    assert [entry["amount"] for entry in first["items"]] == [3, 2]
    people = flashslides("credits", "history", ADA, "--limit", "2")
    assert f"--cursor {first['next_cursor']}" in people.err
    rest = flashslides("credits", "history", ADA, "--cursor", first["next_cursor"], "--json").json
    assert [entry["amount"] for entry in rest["items"]] == [1]
    assert rest["next_cursor"] is None
    assert "--cursor" not in flashslides("credits", "history", ADA).err


def test_an_empty_journal_is_said_to_be_empty(flashslides: RunCommand, ada: uuid.UUID) -> None:
    """A sentence for people, an empty list for programs."""
    assert flashslides("credits", "history", str(ada)).out == "There are no entries yet.\n"
    assert flashslides("credits", "history", str(ada), "--json").json["items"] == []


def test_explain_leads_from_entries_to_the_balance(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """Sums by kind, lots and open holds with what is behind them."""
    flashslides("credits", "grant", ADA, "50", "--reference", "welcome")
    flashslides("credits", "spend", ADA, "5")
    execute(db, [ask(OpenHold, ada, amount=9, expires_in_seconds=600, reference="deck 1")])
    db.commit()
    found = flashslides("credits", "explain", ADA, "--json").json
    assert found["total_by_kind"] == {"grant": 50, "spend": -5, "hold": -9}
    assert (found["agrees"], found["now"]["balance"]) == (True, 36)
    people = flashslides("credits", "explain", ADA).out
    assert re.search(r"sums_agree +yes", people)
    for expected in ("welcome", "deck 1", "All entries", "Open holds"):
        assert expected in people
    for absent in ("Debts", "Due"):
        assert absent not in people


def test_explain_says_when_the_sums_do_not_agree(
    flashslides: RunCommand, db: Session, ada: uuid.UUID
) -> None:
    """And what to run next."""
    flashslides("credits", "grant", str(ada), "50")
    corrupt(db, "UPDATE users SET credits_balance = 51")
    assert "flashslides verify" in flashslides("credits", "explain", ADA).out
