"""What the database refuses of the audit trail, to the service's role and to the owner.

docs/reference/what-the-database-refuses.md lists it.
"""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.postgres.errors import sqlstate_of
from src.common.postgres.runtime_role import grant_runtime
from src.console import sessions

ROLE = "service_of_audit"
BY = {"P0001": "trigger", "42501": "privilege", "23514": "CHECK", "23505": "unique key"}
_INSERT = "INSERT INTO console_actions (actor, action{}) VALUES ({})"
_KEY = "'00000000-0000-0000-0000-000000000001'"
_ADA, _GRACE = f"'user:{uuid.UUID(int=1)}'", f"'user:{uuid.UUID(int=2)}'"
"""Ada is signed in, Grace is not."""
_BEGUN = f"""
WITH begun AS (
    INSERT INTO console_sessions (secret_hash, person_id, roles, is_link, confirmed_at, expires_at)
    VALUES (decode(repeat('ab', 32), 'hex'), '{uuid.UUID(int=2)}', '{{admin}}', false, now(),
        now() + interval '1 hour')
)
"""  # noqa: S608  our own
_NUMBERED = (
    "INSERT INTO console_actions (action_id, actor, action) OVERRIDING SYSTEM VALUE VALUES"  # noqa: S608  our own
    f" (1000, {_ADA}, 'credits.give')"
)
FORGERIES = {
    "another reason of an action": ("UPDATE console_actions SET reason = 'better'", "privilege"),
    "another actor of an action": ("UPDATE console_actions SET actor = 'user:2'", "privilege"),
    "DELETE of actions": ("DELETE FROM console_actions", "privilege"),
    "TRUNCATE of actions": ("TRUNCATE console_actions", "privilege"),
    "an action of somebody who is not signed in": (
        _INSERT.format("", f"{_GRACE}, 'credits.give'"),
        "trigger",
    ),
    "a sign-in of somebody who is not signed in": (
        _INSERT.format("", f"{_GRACE}, 'sign_in'"),
        "trigger",
    ),
    "an action of a session whose sign-in is not noted": (
        _BEGUN + _INSERT.format("", f"{_GRACE}, 'credits.give'"),
        "trigger",
    ),
    "an action dated back": (
        _INSERT.format(", created_at", f"{_ADA}, 'credits.give', now() - interval '1 day'"),
        "privilege",
    ),
    "a number of an action": (
        _NUMBERED,
        "privilege",
    ),
    "an action of nobody": (_INSERT.format("", "'system:cli:ada', 'credits.give'"), "CHECK"),
    "an action that names an address": (
        _INSERT.format(", reason", f"{_ADA}, 'credits.give', 'for ada@example.com'"),
        "CHECK",
    ),
    "an action without a name": (_INSERT.format("", f"{_ADA}, ''"), "CHECK"),
    "a form recorded twice": (
        _INSERT.format(", form_key", f"{_ADA}, 'credits.give', {_KEY}"),
        "unique key",
    ),
}
"""By name: the statement, and what refuses it to the service's role."""
OWNERS_TO_SAY = {"an action dated back", "a number of an action"}
"""The owner may say when it was, as whoever restores a backup does."""
EVERY_FORGERY = pytest.mark.parametrize("name", FORGERIES)


@pytest.fixture(autouse=True)
def recorded(db: Session) -> None:
    """An action, and a role like the service's."""
    grant_runtime(db.connection(), ROLE)
    identity = replace(sessions.local_identity("Ada"), person_id=uuid.UUID(int=1))
    sessions.begin(db, identity)
    for action, key in (("sign_in", "NULL"), ("seen", _KEY)):
        facts = f"{_ADA}, '{action}', {key}, 'why'"
        db.execute(text(_INSERT.format(", form_key, reason", facts)))


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


@pytest.mark.parametrize("name", sorted(FORGERIES.keys() - OWNERS_TO_SAY))
def test_the_owner_is_refused_as_well(db: Session, name: str) -> None:
    """By the trigger where the role lacks the privilege."""
    assert refused_by(db, name) == FORGERIES[name][1].replace("privilege", "trigger")
