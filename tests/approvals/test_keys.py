"""API keys that can move money take two persons; all others are one person's."""

import datetime as dt
from functools import partial

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.accounts.api_keys import IssuedKey, Scope, find_valid_api_key
from src.common.approvals import operations
from src.common.approvals.forms import KeyForm
from src.common.approvals.keys import AskedKey, create_or_ask
from src.common.approvals.queries import find_approval, preview
from src.common.approvals.rules import Limits
from src.common.exceptions import Invalid
from src.common.models.api_key import ApiKey
from tests.approvals.requests import ADA, GRACE, LIMITS, refused


def make(
    db: Session,
    *scopes: Scope,
    limits: Limits | None = LIMITS,
    reason: str | None = "gifts by the shop",
    expires_at: dt.datetime | None = None,
    service_name: str = "shop",
) -> IssuedKey | AskedKey:
    """A key of Ada's."""
    return create_or_ask(
        db,
        service_name=service_name,
        scopes=scopes,
        expires_at=expires_at,
        requester=ADA,
        reason=reason,
        request_key="k",
        limits=limits,
    )


@pytest.mark.parametrize("scope", Scope)
def test_a_key_that_moves_money_works_once_another_has_consented(db: Session, scope: Scope) -> None:
    """Not before, and not by its maker's consent; a second consent makes no second key.

    A key that may spend undoes all spends of its service: of any service that it is named after.
    """
    made = make(db, Scope.USERS_READ, scope)
    if scope not in {Scope.CREDITS_GRANT, Scope.CREDITS_SPEND, Scope.PAYMENTS_REFUND}:
        assert isinstance(made, IssuedKey)
        assert find_valid_api_key(db, made.key) is made.record
        return
    assert isinstance(made, AskedKey)
    request_id = made.asked.approval.approval_id
    assert find_valid_api_key(db, made.key) is None
    own = partial(operations.consent, db, request_id, decider=ADA)
    assert refused(own) == "APPROVAL_IS_OWN"
    assert find_valid_api_key(db, made.key) is None
    for _ in range(2):
        operations.consent(db, request_id, decider=GRACE)
    record = find_valid_api_key(db, made.key)
    assert record is not None
    assert (record.service_name, record.last_four) == ("shop", made.key[-4:])
    assert record.scopes == sorted({Scope.USERS_READ, scope})
    assert db.scalars(select(func.count()).select_from(ApiKey)).one() == 1


def test_what_is_refused_never_works(db: Session) -> None:
    """Nor what was withdrawn."""
    made = make(db, Scope.CREDITS_GRANT)
    assert isinstance(made, AskedKey)
    operations.refuse(db, made.asked.approval.approval_id, decider=GRACE)
    assert find_valid_api_key(db, made.key) is None
    assert db.scalars(select(func.count()).select_from(ApiKey)).one() == 0


def test_whoever_decides_sees_what_the_key_may(db: Session) -> None:
    """Service, scopes and expiry; nowhere the key itself, in clear."""
    made = make(db, Scope.CREDITS_GRANT)
    assert isinstance(made, AskedKey)
    state = find_approval(db, made.asked.approval.approval_id)
    form = preview(db, state)
    assert isinstance(form, KeyForm)
    assert (form.service_name, form.scopes, form.expires_at) == ("shop", ("credits:grant",), None)
    assert made.key not in f"{state} {form} {made}"
    assert state.approval.user_id is None


def test_a_request_for_a_key_has_a_reason_and_a_key_a_scope(db: Session) -> None:
    """What would be refused is not asked for."""
    with pytest.raises(Invalid, match="what it is for"):
        make(db, Scope.CREDITS_GRANT, reason=None)
    with pytest.raises(Invalid, match="at least one"):
        make(db)


@pytest.mark.parametrize("reason", ["", "x" * 256, "\x00"])
def test_a_reason_that_no_request_can_keep_is_refused_in_words(db: Session, reason: str) -> None:
    """Not by the table."""
    with pytest.raises(Invalid, match="reason: must be 1 to 255"):
        make(db, Scope.CREDITS_GRANT, reason=reason)


@pytest.mark.parametrize("name", ["ada@example.com", "x" * 201, " "])
@pytest.mark.parametrize("scope", [Scope.USERS_READ, Scope.CREDITS_GRANT])
def test_a_service_has_a_name_that_journal_and_trail_keep(
    db: Session, name: str, scope: Scope
) -> None:
    """The journal takes no longer actor, and the audit trail no address."""
    with pytest.raises(Invalid, match="service: needs a name"):
        make(db, scope, service_name=name)


def test_without_limits_one_person_makes_any_key(db: Session) -> None:
    """A developer alone has nobody to ask."""
    made = make(db, Scope.CREDITS_GRANT, limits=None, reason=None)
    assert isinstance(made, IssuedKey)
