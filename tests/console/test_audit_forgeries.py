"""What the database refuses of the audit trail, to the service's role and to the owner.

docs/reference/what-the-database-refuses.md lists it.
"""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.postgres.errors import sqlstate_of
from src.common.postgres.runtime_role import grant_runtime

ROLE = "service_of_audit"
BY = {"P0001": "trigger", "42501": "privilege", "23514": "CHECK", "23505": "unique key"}
_INSERT = "INSERT INTO console_actions (actor, action{}) VALUES ({})"
_KEY = "'00000000-0000-0000-0000-000000000001'"
FORGERIES = {
    "another reason of an action": ("UPDATE console_actions SET reason = 'better'", "privilege"),
    "another actor of an action": ("UPDATE console_actions SET actor = 'user:2'", "privilege"),
    "DELETE of actions": ("DELETE FROM console_actions", "privilege"),
    "TRUNCATE of actions": ("TRUNCATE console_actions", "privilege"),
    "an action of nobody": (_INSERT.format("", "'system:cli:ada', 'credits.give'"), "CHECK"),
    "an action that names an address": (
        _INSERT.format(", reason", "'user:1', 'credits.give', 'for ada@example.com'"),
        "CHECK",
    ),
    "an action without a name": (_INSERT.format("", "'user:1', ''"), "CHECK"),
    "a form recorded twice": (
        _INSERT.format(", form_key", f"'user:1', 'credits.give', {_KEY}"),
        "unique key",
    ),
}
"""By name: the statement, and what refuses it to the service's role."""
EVERY_FORGERY = pytest.mark.parametrize("name", FORGERIES)


@pytest.fixture(autouse=True)
def recorded(db: Session) -> None:
    """An action, and a role like the service's."""
    grant_runtime(db.connection(), ROLE)
    db.execute(text(_INSERT.format(", form_key, reason", f"'user:1', 'seen', {_KEY}, 'why'")))


def refused_by(db: Session, name: str) -> str:
    """What refuses a statement."""
    with pytest.raises(DBAPIError) as caught, db.begin_nested():
        db.execute(text(FORGERIES[name][0]))
    return BY[sqlstate_of(caught.value) or ""]


@EVERY_FORGERY
def test_the_service_s_role_is_refused(db: Session, name: str) -> None:
    """As the page of what the database refuses says."""
    db.execute(text(f"SET LOCAL ROLE {ROLE}"))
    assert refused_by(db, name) == FORGERIES[name][1]


@EVERY_FORGERY
def test_the_owner_is_refused_as_well(db: Session, name: str) -> None:
    """By the trigger where the role lacks the privilege."""
    assert refused_by(db, name) == FORGERIES[name][1].replace("privilege", "trigger")
