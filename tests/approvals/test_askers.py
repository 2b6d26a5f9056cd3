"""What was asked for is done only while whoever asked may ask for it still."""

import uuid
from functools import partial

import pytest
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import Scope
from src.common.approvals import operations
from src.common.approvals.askers import MAY_ASK
from src.common.approvals.keys import AskedKey, create_or_ask
from src.common.approvals.queries import find_approval, preview
from src.common.models.approval import Approval, ApprovalOperation
from src.console import sessions
from src.console.permissions import MATRIX, Permission, Role
from tests.approvals.requests import (
    GRACE,
    LIMITS,
    NOTHING_ALONE,
    a_grant,
    asked,
    refused,
)
from tests.credits.books import booked_balance, make_user

PERSON = sessions.person_id_of("https://id.test", "ada")
ACTOR = f"user:{PERSON}"
PERMISSIONS = {
    ApprovalOperation.GRANT: Permission.CREDITS_GIVE,
    ApprovalOperation.ADJUSTMENT: Permission.CREDITS_TAKE,
    ApprovalOperation.REVERSAL: Permission.CREDITS_REVERSE,
    ApprovalOperation.RELEASE: Permission.HOLDS_RELEASE,
    ApprovalOperation.REFUND: Permission.PAYMENTS_REFUND,
    ApprovalOperation.PAYMENT: Permission.UNMATCHED_SETTLE,
    ApprovalOperation.API_KEY: Permission.KEYS_CHANGE,
}


def come(db: Session, *roles: Role) -> str:
    """The person signs in, as the provider says with these roles; the session's secret."""
    return sessions.begin(
        db, sessions.Identity("https://id.test", "ada", "ada", frozenset(roles), PERSON)
    )


def ask_for_key(db: Session) -> Approval:
    """A key that can move credits."""
    made = create_or_ask(
        db,
        service_name="shop",
        scopes=[Scope.CREDITS_GRANT],
        expires_at=None,
        requester=ACTOR,
        reason="gifts",
        request_key="k",
        limits=LIMITS,
    )
    assert isinstance(made, AskedKey)
    return made.asked.approval


def test_who_may_ask_is_as_the_console_has_it() -> None:
    """The roles of each operation are those that the matrix permits it."""
    assert {
        operation: {role for role in Role if permission in MATRIX[role]}
        for operation, permission in PERMISSIONS.items()
    } == {operation: set(map(Role, MAY_ASK[operation])) for operation in ApprovalOperation}


def test_who_works_here_no_more_makes_no_key(db: Session) -> None:
    """Nor has credits given; consent is refused in words, and refusing it is possible."""
    user_id = make_user(db).user_id
    secret = come(db, Role.ADMIN)
    key = ask_for_key(db)
    gift = asked(db, a_grant(user_id, 500, actor=ACTOR), NOTHING_ALONE).approval
    sessions.end_all(db, PERSON)
    assert sessions.find(db, secret) is None
    for approval in (key, gift):
        consent = partial(operations.consent, db, approval.approval_id, decider=GRACE)
        assert refused(consent) == "APPROVAL_ASKER_LEFT"
        foresee = partial(preview, db, find_approval(db, approval.approval_id))
        assert refused(foresee) == "APPROVAL_ASKER_LEFT"
    assert booked_balance(db, user_id) == 0
    assert operations.refuse(db, key.approval_id, decider=GRACE).status == "refused"
    come(db, Role.SUPPORT)
    assert operations.consent(db, gift.approval_id, decider=GRACE).status == "consented"
    assert booked_balance(db, user_id) == 500


@pytest.mark.parametrize("role", Role)
def test_another_role_will_do_where_it_may_ask_the_same(db: Session, role: Role) -> None:
    """Whoever asked as an administrator and is of support now makes no key, but still gives."""
    user_id = make_user(db).user_id
    secret = come(db, Role.ADMIN)
    key = ask_for_key(db)
    gift = asked(db, a_grant(user_id, 500, actor=ACTOR), NOTHING_ALONE).approval
    identity = sessions.Identity("https://id.test", "ada", "ada", frozenset({role}), PERSON)
    assert sessions.confirm(db, secret, identity)
    for approval, may in (
        (key, role is Role.ADMIN),
        (gift, role in {Role.ADMIN, Role.SUPPORT}),
    ):
        consent = partial(operations.consent, db, approval.approval_id, decider=GRACE)
        if may:
            assert consent().status == "consented"
        else:
            assert refused(consent) == "APPROVAL_ASKER_LEFT"


def test_whoever_has_gone_home_has_a_role_still(db: Session) -> None:
    """A session that ended says nothing about the role; nor does nobody's, of a command."""
    user_id = make_user(db).user_id
    sessions.end(db, come(db, Role.SUPPORT))
    for actor in (ACTOR, "system:cli:ada", f"user:{uuid.uuid4()}"):
        gift = asked(db, a_grant(user_id, 500, actor=actor, key=actor), NOTHING_ALONE).approval
        assert operations.consent(db, gift.approval_id, decider=GRACE).status == "consented"
