"""Copies of a `User` that come back: only what their holder changed counts (rule 10)."""

import pickle
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session, make_transient, make_transient_to_detached
from sqlalchemy.orm.exc import DetachedInstanceError
from structlog.testing import capture_logs

from src.common.credits.operations import execute
from src.common.exceptions import Conflict, Invalid
from src.common.models.user import User
from tests.credits.books import (
    InSession,
    booked_balance,
    check_books,
    grant,
    journal,
    make_user,
    spend,
)


def pickled(user: User) -> User:
    """A copy as a cache keeps it."""
    copy = pickle.loads(pickle.dumps(user))  # noqa: S301  just pickled here
    assert isinstance(copy, User)
    return copy


def expunged(user: User) -> User:
    """The very object, without its session."""
    session = inspect(user).session
    assert session is not None
    session.expunge(user)
    return user


def constructed(user: User) -> User:
    """A user built anew from what a cache of plain values has."""
    names = ("user_id", "email", "password_hash", "credits_balance", "credits_version")
    return User(**{name: getattr(user, name) for name in names})


def transient(user: User) -> User:
    """A pickled copy that has forgotten where it came from."""
    copy = pickled(user)
    make_transient(copy)
    return copy


def made_detached(user: User) -> User:
    """The same, posing as loaded."""
    copy = transient(user)
    make_transient_to_detached(copy)
    return copy


COPIES: list[Callable[[User], User]] = [pickled, expunged, constructed, transient, made_detached]
copies = pytest.mark.parametrize("copied", COPIES, ids=lambda copied: copied.__name__)
with_history = pytest.mark.parametrize(
    "copied", [pickled, expunged, transient, made_detached], ids=lambda copied: copied.__name__
)


@copies
@pytest.mark.parametrize("meanwhile", [-40, 20])
@pytest.mark.parametrize("is_loaded", [False, True])
async def test_a_merged_stale_copy_saves_the_profile_alone(
    in_session: InSession, *, copied: Callable[[User], User], meanwhile: int, is_loaded: bool
) -> None:
    """The balance of then is nobody's wish: the name is saved, credits stay as booked."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        who, version = user.user_id, user.credits_version
        copy = copied(user)
        execute(session, [spend(who, 40) if meanwhile < 0 else grant(who, meanwhile)])
        session.commit()
        if not is_loaded:
            session.expunge_all()
        copy.first_name = "Grace"
        merged = session.merge(copy)
        assert merged.credits_balance == 100 + meanwhile
        session.commit()
        assert (merged.first_name, merged.credits_balance) == ("Grace", 100 + meanwhile)
        assert merged.credits_version == version + 1
        assert len(journal(session, who)) == 2
        check_books(session)

    await in_session(work)


@with_history
@pytest.mark.parametrize("meanwhile", [0, 40])
async def test_what_the_holder_of_a_copy_added_is_added(
    in_session: InSession, copied: Callable[[User], User], meanwhile: int
) -> None:
    """The copy knows what it was loaded with: the difference is booked on what is there now."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        who = user.user_id
        copy = copied(user)
        if meanwhile:
            execute(session, [spend(who, meanwhile)])
            session.commit()
        copy.credits_balance += 7
        merged = session.merge(copy)
        session.commit()
        assert merged.credits_balance == booked_balance(session, who) == 107 - meanwhile
        assert journal(session, who)[-1] == ("adjustment", 7)
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_merge_adds_to_what_was_assigned_already(
    in_session: InSession, *, flushed: bool
) -> None:
    """Both changes count, that of the loaded user and that of the copy."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        copy = pickled(user)
        copy.credits_balance -= 2
        with session.no_autoflush:
            user.credits_balance += 5
            if flushed:
                session.flush()
            session.merge(copy)
        session.commit()
        session.merge(pickled(user))  # unchanged: nothing more
        session.commit()
        assert user.credits_balance == 103
        assert journal(session, user.user_id) == [("grant", 100), ("adjustment", 3)]
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("then", ["committed", "rolled back"])
@pytest.mark.parametrize("later", [0, 2])
async def test_a_copy_of_an_unflushed_change_makes_it_once(
    in_session: InSession, then: str, later: int
) -> None:
    """The session that was to flush it did, or did not; what the holder added since counts."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        user.credits_balance += 5
        copy = pickled(user)
        if then == "committed":
            session.commit()
        else:
            session.rollback()
        copy.credits_balance += later
        copy.first_name = "Grace"
        session.merge(copy)
        session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 105 + later
        check_books(session)

    await in_session(work)


async def test_a_constructed_user_that_disagrees_is_told_of(in_session: InSession) -> None:
    """Nobody can know what it was made from: the balance is left alone, and a warning says so."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        copy = constructed(user)
        copy.credits_balance = 140
        with capture_logs() as logs:
            session.merge(constructed(user))
            assert logs == []
            session.merge(copy)
        assert [log["user_id"] for log in logs] == [str(user.user_id)]
        session.commit()
        assert user.credits_balance == booked_balance(session, user.user_id) == 100
        check_books(session)

    await in_session(work)


@with_history
async def test_an_added_stale_copy_counts_from_what_it_shows(
    in_session: InSession, copied: Callable[[User], User]
) -> None:
    """`session.add` of a copy, then `+=`: the difference, not the sum of the past."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        who = user.user_id
        copy = copied(user)
        execute(session, [spend(who, 40)])
        session.commit()
        session.expunge_all()
        if inspect(copy).transient:
            make_transient_to_detached(copy)
        session.add(copy)
        copy.first_name = "Grace"
        session.commit()
        assert booked_balance(session, who) == 60
        copy.credits_balance += 10
        session.commit()
        assert copy.credits_balance == booked_balance(session, who) == 70
        assert journal(session, who)[-1] == ("adjustment", 10)
        check_books(session)

    await in_session(work)


async def test_a_merge_without_loading_changes_nothing(in_session: InSession) -> None:
    """`merge(load=False)` brings an old copy into the session; a later `+=` is its difference."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        who = user.user_id
        copy = pickled(user)
        execute(session, [spend(who, 40)])
        session.commit()
        session.expunge_all()
        merged = session.merge(copy, load=False)
        session.commit()
        assert booked_balance(session, who) == 60
        merged.credits_balance += 1
        session.commit()
        assert merged.credits_balance == booked_balance(session, who) == 61
        check_books(session)

    await in_session(work)


async def test_a_merged_newcomer_is_opened(in_session: InSession) -> None:
    """A user the database does not know becomes a new one, as by `add`."""

    def work(session: Session) -> None:
        copy = User(
            user_id=uuid.uuid4(),
            email=f"{uuid.uuid4()}@example.com",
            password_hash="managed_externally",
            credits_balance=40,
        )
        merged = session.merge(copy)
        session.commit()
        assert journal(session, merged.user_id) == [("opening", 40)]
        check_books(session)

    await in_session(work)


@pytest.mark.parametrize("balance", [100, 0])
async def test_a_twin_brings_no_credits_along(in_session: InSession, balance: int) -> None:
    """A copied user under another id has no books yet: credits of another's are refused."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        twin = transient(user)
        twin.user_id, twin.email = uuid.uuid4(), f"{uuid.uuid4()}@example.com"
        twin.credits_balance = balance
        session.add(twin)
        if balance:
            with pytest.raises(Conflict, match="credits_version") as caught:
                session.commit()
            assert caught.value.error_type == "BALANCE_CHANGE_AMBIGUOUS"
            twin.credits_version = 0  # as the sentence says
        session.commit()
        assert journal(session, twin.user_id) == ([("opening", 100)] if balance else [])
        assert (twin.credits_version, user.credits_balance) == (1 if balance else 0, 100)
        check_books(session)

    await in_session(work)


async def test_the_version_is_the_ledgers(in_session: InSession) -> None:
    """An assigned `credits_version` is put back, with the balance's change and without."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        for change in (0, 5):
            user.credits_version = 99
            user.credits_balance += change
            session.commit()
        assert (user.credits_version, user.credits_balance) == (2, 105)
        assert journal(session, user.user_id) == [("grant", 100), ("adjustment", 5)]
        check_books(session)

    await in_session(work)


async def test_a_balance_is_not_assigned_without_having_seen_one(in_session: InSession) -> None:
    """SQLAlchemy loads it first, which outside of a session is refused."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        session.expire(user, ["credits_balance", "credits_version"])
        session.expunge(user)
        for name in ("credits_balance", "credits_version"):
            with pytest.raises(DetachedInstanceError):
                setattr(user, name, 140)

    await in_session(work)


async def test_a_removed_balance_is_refused(in_session: InSession) -> None:
    """`del user.credits_balance` is no number."""

    def work(session: Session) -> None:
        user = make_user(session, 100)
        session.commit()
        del user.credits_balance
        with pytest.raises(Invalid, match="takes an integer"):
            session.flush()
        session.rollback()
        assert user.credits_balance == 100

    await in_session(work)
