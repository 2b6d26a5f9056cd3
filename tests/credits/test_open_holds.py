"""Everybody's open holds: as each user's own list has them, in as many statements for many."""

from sqlalchemy.orm import Session

from src.common.credits import queries
from src.common.credits.open_holds import open_holds
from src.common.credits.operations import execute
from tests.credits.books import make_user, open_hold
from tests.credits.test_balance_history import statements_of


def test_a_page_is_read_at_once_however_many_users_it_is_of(db: Session) -> None:
    """With the lots of each and what its caller noted; a user may have several."""
    users = [make_user(db, 10).user_id for _ in range(4)]
    for number, user_id in enumerate([*users, users[0]]):
        noted = {"deck": number} if number % 2 else None
        execute(db, [open_hold(user_id, 2, seconds=600 + number, metadata=noted)])
    db.commit()
    page = open_holds(db, cursor=None, limit=9)
    assert [each.user_id for each in page.items] == [users[0], *reversed(users)]
    for user_id in users:
        own = {hold.hold.seq: hold for hold in queries.holds(db, user_id, limit=9).items}
        found = {it.state.hold.seq: it.state for it in page.items if it.user_id == user_id}
        assert {seq: each.entry for seq, each in found.items()} == {
            seq: each.entry for seq, each in own.items()
        }
    assert statements_of(db, lambda: open_holds(db, cursor=None, limit=9)) == 3
    assert statements_of(db, lambda: open_holds(db, cursor=None, limit=1)) == 3
