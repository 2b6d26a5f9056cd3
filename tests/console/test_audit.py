"""The audit trail: append-only, whole with what it tells of, once a form, and nobody's address."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from src.common.exceptions import Unauthenticated
from src.common.models.console_action import ConsoleAction
from src.console import sessions
from src.console.audit import record
from src.console.people import Person
from src.console.permissions import Role

ADA = Person(f"user:{uuid.UUID(int=1)}", "Ada", frozenset({Role.SUPPORT}))


@pytest.fixture(autouse=True)
def session_secret(db: Session) -> str:
    """Of Ada's session: she has signed in."""
    identity = replace(sessions.local_identity("Ada", ADA.roles), person_id=uuid.UUID(int=1))
    secret = sessions.begin(db, identity)
    assert record(db, ADA, "sign_in")
    return secret


def test_it_is_only_added_to(db: Session) -> None:
    """UPDATE, DELETE and TRUNCATE are refused to the tables' owner too."""
    assert record(db, ADA, "credits.give", reason="promised", before={"balance": 1})
    for statement in (
        update(ConsoleAction).values(reason="another"),
        delete(ConsoleAction),
        text("TRUNCATE console_actions"),
    ):
        with pytest.raises(DBAPIError, match="AUDIT_TRAIL_KEPT"), db.begin_nested():
            db.execute(statement)
    row = db.scalars(select(ConsoleAction).where(ConsoleAction.action == "credits.give")).one()
    assert (row.reason, row.before, row.after) == ("promised", {"balance": 1}, None)


def test_a_form_is_recorded_once(db: Session) -> None:
    """Sent again it says so, and writes nothing; a page seen has no form and is noted each time."""
    key = uuid.uuid4()
    assert record(db, ADA, "credits.give", key=key)
    assert not record(db, ADA, "credits.give", key=key)
    assert record(db, ADA, "users.see")
    assert record(db, ADA, "users.see")
    assert db.scalars(select(func.count()).select_from(ConsoleAction)).one() == 1 + 3


@pytest.mark.parametrize(
    "facts",
    [
        {"reason": "for ada@example.com"},
        {"target": "ada@example.com"},
        {"before": {"email": "ada@example.com"}},
        {"after": {"deep": [{"email": "ada@example.com"}]}},
    ],
    ids=str,
)
def test_nobody_s_address_is_in_it(db: Session, facts: dict[str, object]) -> None:
    """The database refuses it, whoever writes."""
    with pytest.raises(IntegrityError, match="names_no_address"), db.begin_nested():
        record(db, ADA, "users.change", **facts)  # type: ignore[arg-type]  # one of several


def test_whoever_has_signed_out_did_nothing_any_more(db: Session, session_secret: str) -> None:
    """What is done in a session that ends meanwhile is refused in words, and so not done."""
    sessions.end(db, session_secret)
    with pytest.raises(Unauthenticated, match="has just ended"), db.begin_nested():
        record(db, ADA, "credits.give")


def test_nobody_acts_without_having_come(db: Session) -> None:
    """A session of whose beginning the trail knows nothing, or a link that nobody followed."""
    grace = Person(f"user:{uuid.UUID(int=2)}", "Grace", ADA.roles)
    identity = replace(sessions.local_identity("Grace", ADA.roles), person_id=uuid.UUID(int=2))
    link = sessions.make_link(db, identity)
    for action in ("sign_in", "users.see"):
        with pytest.raises(Unauthenticated), db.begin_nested():
            record(db, grace, action)
    assert sessions.use_link(db, link)
    with pytest.raises(Unauthenticated), db.begin_nested():
        record(db, grace, "users.see")
    assert record(db, grace, "sign_in")
    assert record(db, grace, "users.see")
