"""What the database refuses of a request, whoever writes it: as the service's role and as owner.

docs/reference/what-the-database-refuses.md lists them.
"""

import uuid
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.approvals import operations
from src.common.postgres.errors import sqlstate_of
from src.common.postgres.runtime_role import grant_runtime
from tests.approvals.requests import GRACE, a_grant, asked
from tests.credits.books import make_user

ROLE = "service_of_approvals"
BY = {"P0001": "trigger", "42501": "privilege", "23514": "CHECK"}
_SET = "UPDATE approvals SET {}"
_CONSENT = "status = 'consented', decider = 'user:grace', decided_at = clock_timestamp()"
_COLUMNS = "user_id, command, reason, requester, request_digest, expires_at"


@dataclass(frozen=True)
class Forged:
    """A statement, and what refuses it to the service's role."""

    statement: str
    by: str
    decided: bool = False
    """Whether somebody has refused the request before."""


def change(columns: str, by: str, *, decided: bool = False) -> Forged:
    """An UPDATE of the request."""
    return Forged(_SET.format(columns), by, decided)


def begun(status: str, decider: str) -> Forged:
    """A request that begins decided."""
    return Forged(
        f"INSERT INTO approvals ({_COLUMNS}, idempotency_key, status, decider, decided_at)"  # noqa: S608  our own
        f" SELECT {_COLUMNS}, 'forged', '{status}', {decider}, clock_timestamp() FROM approvals",
        "trigger",
    )


FORGERIES = {
    "consent of the requester": change(_CONSENT.replace("grace", "ada"), "CHECK"),
    "a refusal by the requester": change(
        _CONSENT.replace("grace", "ada").replace("consented", "refused"), "CHECK"
    ),
    "a withdrawal by another": change(_CONSENT.replace("consented", "withdrawn"), "CHECK"),
    "consent after the expiry": change(
        _CONSENT.replace("clock_timestamp()", "expires_at"), "CHECK"
    ),
    "consent dated back": change(
        _CONSENT.replace("clock_timestamp()", "now() - interval '1 second'"), "trigger"
    ),
    "consent dated ahead": change(
        _CONSENT.replace("clock_timestamp()", "now() + interval '1 hour'"), "trigger"
    ),
    "another reason": change("reason = 'better'", "trigger"),
    "no reason any more while it waits": change("reason = NULL", "trigger"),
    "a second decision": change(_CONSENT.replace("grace", "mary"), "trigger", decided=True),
    "a decided request opened again": change(
        "status = 'open', decider = NULL, decided_at = NULL, note = NULL", "trigger", decided=True
    ),
    "another decider": change("decider = 'user:mary'", "trigger", decided=True),
    "another note": change("note = 'never said'", "trigger", decided=True),
    "a request that begins with consent": begun("consented", "'user:grace'"),
    "a request that begins refused": begun("refused", "'user:grace'"),
    "a request that begins withdrawn": begun("withdrawn", "requester"),
    "a request without a reason": Forged(
        "INSERT INTO approvals (user_id, command, requester, request_digest, expires_at,"
        " idempotency_key) SELECT user_id, command, requester, request_digest, expires_at,"
        " 'forged' FROM approvals",
        "trigger",
    ),
    "another amount": change("command = jsonb_set(command, '{amount}', '5')", "privilege"),
    "another user": change(
        "user_id = (SELECT u.user_id FROM users u WHERE u.user_id <> approvals.user_id)",
        "privilege",
    ),
    "another requester": change("requester = 'user:mary'", "privilege"),
    "a later expiry": change("expires_at = expires_at + interval '1 day'", "privilege"),
    "another key of a request": change("idempotency_key = 'other'", "privilege"),
    "DELETE of requests": Forged("DELETE FROM approvals", "privilege"),
    "TRUNCATE of requests": Forged("TRUNCATE approvals", "privilege"),
}
EVERY_FORGERY = pytest.mark.parametrize("name", FORGERIES)


@pytest.fixture
def request_id(db: Session) -> uuid.UUID:
    """Ada's, open; there is another user, and a role like the service's."""
    grant_runtime(db.connection(), ROLE)
    make_user(db)
    return asked(db, a_grant(make_user(db).user_id)).approval.approval_id


def refused_by(db: Session, request_id: uuid.UUID, forged: Forged) -> str:
    """What refuses a statement."""
    if forged.decided:
        operations.refuse(db, request_id, decider=GRACE, note="no")
    with pytest.raises(DBAPIError) as caught, db.begin_nested():
        db.execute(text(forged.statement))
    return BY[sqlstate_of(caught.value) or ""]


@EVERY_FORGERY
def test_the_service_s_role_is_refused(db: Session, request_id: uuid.UUID, name: str) -> None:
    """As the page of what the database refuses says."""
    db.execute(text(f"SET LOCAL ROLE {ROLE}"))
    assert refused_by(db, request_id, FORGERIES[name]) == FORGERIES[name].by


@EVERY_FORGERY
def test_the_owner_is_refused_as_well(db: Session, request_id: uuid.UUID, name: str) -> None:
    """By a trigger where the role lacks the privilege."""
    expected = FORGERIES[name].by.replace("privilege", "trigger")
    assert refused_by(db, request_id, FORGERIES[name]) == expected


def test_the_texts_of_what_was_decided_can_be_emptied(db: Session, request_id: uuid.UUID) -> None:
    """As an erasure does."""
    operations.refuse(db, request_id, decider=GRACE, note="no")
    db.execute(text("UPDATE approvals SET reason = NULL, note = NULL"))
