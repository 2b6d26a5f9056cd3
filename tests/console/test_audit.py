"""The audit trail: append-only, whole with what it tells of, once a form, and nobody's address."""

import uuid

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from src.common.models.console_action import ConsoleAction
from src.console.audit import record
from src.console.people import Person
from src.console.permissions import Role

ADA = Person(f"user:{uuid.UUID(int=1)}", "Ada", frozenset({Role.SUPPORT}))


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
    row = db.scalars(select(ConsoleAction)).one()
    assert (row.reason, row.before, row.after) == ("promised", {"balance": 1}, None)


def test_a_form_is_recorded_once(db: Session) -> None:
    """Sent again it says so, and writes nothing; a page seen has no form and is noted each time."""
    key = uuid.uuid4()
    assert record(db, ADA, "credits.give", key=key)
    assert not record(db, ADA, "credits.give", key=key)
    assert record(db, ADA, "users.see")
    assert record(db, ADA, "users.see")
    assert db.scalars(select(func.count()).select_from(ConsoleAction)).one() == 3


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
