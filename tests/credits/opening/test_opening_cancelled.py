"""A balance that was changed and changed back, of a user without any entry."""

import pytest
from sqlalchemy.orm import Session

from tests.credits.books import InSession, check_books, from_before, journal, make_user


@pytest.mark.parametrize(("before", "entries"), [(0, [("opening", 0)]), (30, [("opening", 30)])])
async def test_what_cancels_out_leaves_an_opening_entry(
    in_session: InSession, before: int, entries: list[tuple[str, int]]
) -> None:
    """The database refuses a balance that changed without an entry; the session writes one."""

    def work(session: Session) -> None:
        user = from_before(session, before) if before else make_user(session)
        session.commit()
        for change in (10, -4, -6):
            user.credits_balance += change
            session.flush()
        session.commit()
        assert user.credits_balance == before
        assert journal(session, user.user_id) == entries
        check_books(session)

    await in_session(work)


async def test_what_cancels_out_adds_nothing_to_a_journal(in_session: InSession) -> None:
    """Who has entries already gets no other."""

    def work(session: Session) -> None:
        user = make_user(session, 30)
        session.commit()
        for change in (10, -10):
            user.credits_balance += change
            session.flush()
        session.commit()
        assert journal(session, user.user_id) == [("grant", 30)]
        check_books(session)

    await in_session(work)
