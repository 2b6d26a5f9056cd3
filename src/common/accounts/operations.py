"""What can be done to users, on the caller's open session.

Every function may flush and never commits: the edge owns the database transaction (decision 0003).
Rows that will change are locked first, `FOR NO KEY UPDATE`.
"""

import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from src.common.accounts import rules
from src.common.accounts.erasure import forget_elsewhere
from src.common.exceptions import Conflict, Forbidden, Invalid, NotFound
from src.common.models.user import EMAIL_CONSTRAINTS, MANAGED_EXTERNALLY, User
from src.common.postgres.errors import violated_constraint
from src.common.postgres.routes import is_sharded
from src.common.sharding import directory
from src.common.sharding.refusals import refuse_other_groups


@dataclass(frozen=True)
class Identity:
    """Who a verified token says is signing in."""

    user_id: uuid.UUID
    email: str
    full_name: str | None = None
    marketing_consent: bool | None = None


@dataclass(frozen=True)
class SignIn:
    """A user who has signed in; `is_new` where this was the first time."""

    user: User
    is_new: bool


def lock_user(session: Session, user_id: uuid.UUID) -> User | None:
    """Lock the user's row until the database transaction ends, and read it as it is now.

    The lock is `FOR NO KEY UPDATE`: it holds up other writers of the row, not readers and not the
    foreign-key checks of rows that refer to it, with which `FOR UPDATE` deadlocks.
    """
    return session.scalars(
        select(User)
        .where(User.user_id == user_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()


def lock_active_user(session: Session, user_id: uuid.UUID) -> User:
    """Lock the row of a user who may act, so that nobody is deactivated or erased meanwhile.

    Raises:
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
    """
    user = _locked(session, user_id)
    if not user.is_active:
        raise Forbidden("This account is deactivated", "USER_INACTIVE")
    return user


def create_user(
    session: Session,
    *,
    email: str,
    user_id: uuid.UUID | None = None,
    first_name: str | None = None,
    last_name: str | None = None,
    preferences: Mapping[str, Any] | None = None,
    user_type: str = "individual",
) -> User:
    """A new user, whose password another system keeps.

    Raises:
        Conflict: EMAIL_TAKEN.
        Invalid: VALIDATION_ERROR, the address is reserved for the erased.
    """
    _refuse_reserved(email)
    user = User(
        user_id=user_id or uuid.uuid4(),
        email=email,
        password_hash=MANAGED_EXTERNALLY,
        first_name=first_name,
        last_name=last_name,
        preferences=dict(preferences or {}),
        user_type=user_type,
    )
    with _email_taken_on_conflict(session):
        session.add(user)
    return user


def sign_in(session: Session, identity: Identity) -> SignIn:
    """The user of a verified token, created at the first sign-in.

    Notes when that was, and a changed e-mail.

    Identity is the token's `sub` alone: accounts are never linked by e-mail, or whoever controls an
    address could take over the account of its former owner.

    Raises:
        Conflict: EMAIL_TAKEN, another account has this e-mail.
        Forbidden: USER_INACTIVE.
        Invalid: VALIDATION_ERROR, the address is reserved for the erased.
    """
    _refuse_reserved(identity.email)
    is_new = _insert_at_first_sight(session, identity)
    user = lock_user(session, identity.user_id)
    if user is None:  # the insert met another account with this e-mail
        raise Conflict("Another account has this e-mail", "EMAIL_TAKEN")
    if not user.is_active:
        raise Forbidden("This account is deactivated", "USER_INACTIVE")
    with _email_taken_on_conflict(session):
        if user.email != identity.email:
            user.email = identity.email
        user.last_login_at = func.statement_timestamp()
    session.refresh(user, ["last_login_at"])
    return SignIn(user, is_new)


def update_profile(session: Session, user_id: uuid.UUID, changes: Mapping[str, Any]) -> User:
    """Change what `changes` names, of `first_name`, `last_name`, `avatar_url`, `company`.

    None clears. `company` lives in the preferences and leaves the others as they are.

    Raises:
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE.
    """
    user = lock_active_user(session, user_id)
    if "first_name" in changes:
        user.first_name = changes["first_name"]
    if "last_name" in changes:
        user.last_name = changes["last_name"]
    if "avatar_url" in changes:
        user.profile_image_url = changes["avatar_url"]
    if "company" in changes:
        user.preferences = rules.merged_preferences(
            user.preferences, {"company": changes["company"]}
        )
    session.flush()
    return user


def set_user_type(session: Session, user_id: uuid.UUID, user_type: str) -> User:
    """Change what the user may do; `admin` has every scope.

    Raises:
        NotFound: USER_NOT_FOUND.
    """
    user = _locked(session, user_id)
    user.user_type = user_type
    session.flush()
    return user


def set_active(session: Session, user_id: uuid.UUID, *, is_active: bool) -> User:
    """Let the user sign in and spend, or not. Paid purchases are credited either way.

    Raises:
        NotFound: USER_NOT_FOUND.
        Conflict: USER_ERASED, an erased account stays inactive.
    """
    user = _locked(session, user_id)
    if is_active and user.erased_at is not None:
        raise Conflict("This account was erased and cannot be activated again", "USER_ERASED")
    user.is_active = is_active
    session.flush()
    return user


def keep_stripe_customer(
    session: Session, user_id: uuid.UUID, customer_id: str, *, replaces: str | None = None
) -> str:
    """Note the user's customer at Stripe, unless one is noted already.

    `replaces` names one that Stripe no longer has: it is replaced.

    Returns:
        The customer that is noted now.

    Raises:
        NotFound: USER_NOT_FOUND.
        Forbidden: USER_INACTIVE, the user was erased while Stripe was asked.
    """
    user = _locked(session, user_id)
    if user.erased_at is not None:
        raise Forbidden("This account is deactivated", "USER_INACTIVE")
    if user.stripe_customer_id in (None, replaces):
        user.stripe_customer_id = customer_id
        session.flush()
    return user.stripe_customer_id


def erase_user(session: Session, user_id: uuid.UUID) -> User:
    """Erase the person's data and keep the account (rule 11).

    `models/personal_data.py` says what is erased. Credits stay. Doing it again changes nothing.

    Raises:
        NotFound: USER_NOT_FOUND.
        Conflict: EMAIL_TAKEN, application code gave another account the address of the erased one.
    """
    user = _locked(session, user_id)
    if user.erased_at is None:
        names = {user.email, user.email.lower(), user.stripe_customer_id or user.email}
        with _email_taken_on_conflict(session):
            user.email = rules.erased_email(user)
        user.password_hash = MANAGED_EXTERNALLY
        user.first_name = user.last_name = user.profile_image_url = user.phone = None
        user.timezone = user.language_preference = user.stripe_customer_id = None
        user.last_login_at = None
        user.preferences = {}
        user.is_active = False
        user.erased_at = func.statement_timestamp()
        session.flush()
        session.refresh(user, ["erased_at"])
        forget_elsewhere(session, user_id, names)
    return user


def _refuse_reserved(email: str) -> None:
    if rules.is_reserved_email(email):
        raise Invalid("email: this address is reserved", "VALIDATION_ERROR", field="email")


def _locked(session: Session, user_id: uuid.UUID) -> User:
    user = lock_user(session, user_id)
    if user is None:
        refuse_other_groups(session.connection(), [user_id])
        raise NotFound("User not found", "USER_NOT_FOUND")
    return user


def _insert_at_first_sight(session: Session, identity: Identity) -> bool:
    """Insert the user unless it, or its e-mail, is there; two first sights at once make one user.

    `ON CONFLICT` names no index: were it the primary key alone, a first sight that meets its twin
    in the middle of the insert could fail on the e-mail's index instead.
    """
    connection = session.connection()
    if is_sharded(connection) and not directory.claim_user(
        connection, identity.user_id, identity.email
    ):
        return False
    first_name, last_name = rules.split_full_name(identity.full_name)
    consent = {"marketing_consent": identity.marketing_consent}
    statement = (
        insert(User)
        .values(
            user_id=identity.user_id,
            email=identity.email,
            password_hash=MANAGED_EXTERNALLY,
            first_name=first_name,
            last_name=last_name,
            preferences=rules.merged_preferences(None, consent),
        )
        .on_conflict_do_nothing()
        .returning(User.user_id)
    )
    return session.execute(statement).one_or_none() is not None


@contextmanager
def _email_taken_on_conflict(session: Session) -> Generator[None]:
    """Run the block in a savepoint; a second user with one e-mail becomes EMAIL_TAKEN."""
    try:
        with session.begin_nested():
            yield
    except IntegrityError as error:
        if violated_constraint(error) not in EMAIL_CONSTRAINTS:
            raise
        raise Conflict("Another account has this e-mail", "EMAIL_TAKEN") from None
