"""`flashslides user list` and `user find`: whom they name, in which order, and nobody else."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.models.user import User
from tests.cli.conftest import Result, RunCommand, after
from tests.models.examples import a_transaction, a_user


@pytest.fixture
def people(db: Session) -> dict[str, User]:
    """Ada, who owes; Bob, who is inactive; Eve, whose names have LIKE's signs."""
    found = {
        "ada": a_user(
            email="Ada@Example.com",
            first_name="Ada",
            last_name="Lovelace",
            preferences={"company": "Analytical Engines"},
            stripe_customer_id="cus_ada",
        ),
        "bob": a_user(email="bob@example.com", is_active=False),
        "eve": a_user(
            email="eve@other.test", first_name="100%", preferences={"company": "under_score"}
        ),
    }
    db.add_all(found.values())
    db.flush()
    for days, person in enumerate(found.values()):
        person.created_at = f"2026-01-0{days + 1}T00:00:00Z"  # type: ignore[assignment]  # SQL reads it
    owing = text("INSERT INTO credit_debts (user_id, seq, outstanding) VALUES (:user, :seq, :owed)")
    db.execute(text("SET session_replication_role = replica"))
    db.add(
        a_transaction(
            user_id=found["ada"].user_id,
            stripe_session_id="cs_ada",
            payment_intent_id="pi_ada",
            invoice_id="in_ada",
            predates_ledger=True,
        )
    )
    db.flush()
    for name, seq, owed in (("ada", 1, 30), ("ada", 2, 12), ("ada", 3, 0), ("eve", 1, 0)):
        db.execute(owing, {"user": found[name].user_id, "seq": seq, "owed": owed})
    hold = (
        "INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)"
        " VALUES (:user, :seq, 1, 0, :status, now())"
    )
    for name, seq, status in (("eve", 2, "open"), ("eve", 3, "open"), ("ada", 4, "released")):
        facts = {"user": found[name].user_id, "seq": seq, "status": status}
        db.execute(text(hold), facts)
    db.execute(text("SET session_replication_role = origin"))
    db.commit()
    return found


def emails(result: Result) -> list[str]:
    """Whom it named, up to the @."""
    assert result.exit_code == 0, result.err
    items: list[dict[str, Any]] = result.json["items"]
    return [str(each["email"]).partition("@")[0].lower() for each in items]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["eve", "bob", "ada"]),
        (["--with-debt"], ["ada"]),
        (["--inactive"], ["bob"]),
        (["--with-debt", "--inactive"], []),
        (["--never-bought"], ["eve", "bob"]),
        (["--never-bought", "--inactive"], ["bob"]),
        (["--with-open-holds"], ["eve"]),
    ],
)
def test_users_are_listed_newest_first(
    flashslides: RunCommand, people: dict[str, User], options: list[str], expected: list[str]
) -> None:
    """All, who owe, hold or never bought, the deactivated; nobody is an empty list and no error."""
    assert people
    assert emails(flashslides("user", "list", "--json", *options)) == expected
    for_people = flashslides("user", "list", *options)
    assert for_people.exit_code == 0
    assert ("No user is as asked for." in for_people.out) is (expected == [])


def test_a_list_says_what_is_owed(flashslides: RunCommand, people: dict[str, User]) -> None:
    """The sum over a user's payments; no hash of a password."""
    assert people
    result = flashslides("user", "list", "--with-debt", "--json")
    [ada] = result.json["items"]
    assert (ada["debt"], ada["name"], ada["company"]) == (42, "Ada Lovelace", "Analytical Engines")
    assert "password" not in result.out


def test_pages_follow_each_other(flashslides: RunCommand, people: dict[str, User]) -> None:
    """Each user once, in order, of a list and of what was found."""
    assert people
    for command in (("list",), ("find", "e")):
        seen: list[str] = []
        following: str | None = None
        for _ in range(3):
            page = flashslides("user", *command, "--json", "--limit", "1", *after(following))
            seen += emails(page)
            following = page.json["next_cursor"]
        assert seen == ["eve", "bob", "ada"]
        assert following is None


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("ADA@exam", ["ada"]),
        ("example.com", ["bob", "ada"]),
        ("lovel", ["ada"]),
        ("ada love", ["ada"]),
        ("engines", ["ada"]),
        ("%", ["eve"]),
        ("r_s", ["eve"]),
        ("_", ["eve"]),
        ("/", []),
        ("\\", []),
        ("cus_ada", ["ada"]),
        ("cs_ada", ["ada"]),
        ("pi_ada", ["ada"]),
        ("in_ada", ["ada"]),
        ("cus_nobody", []),
    ],
)
def test_users_are_found_by_a_part_or_an_id(
    flashslides: RunCommand, people: dict[str, User], part: str, expected: list[str]
) -> None:
    """Of e-mail, name or company, in any case; LIKE's signs are signs like others."""
    assert people
    assert emails(flashslides("user", "find", part, "--json")) == expected


@pytest.mark.parametrize("part", ["", " ", "a\udcff"])
def test_there_must_be_something_to_look_for(flashslides: RunCommand, part: str) -> None:
    """Exit code 2, also for bytes that are no UTF-8."""
    result = flashslides("user", "find", part)
    assert (result.exit_code, result.out) == (2, "")
