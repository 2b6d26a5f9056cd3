"""Closing a checkpoint: everybody at one instant, nobody held up, nothing ever left out."""

import hashlib
import uuid
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from src.common.anchors.closing import close_checkpoint
from src.common.anchors.leaves import NO_ENTRY, Leaf, leaf_of, split
from src.common.anchors.queries import anchor_state
from src.common.anchors.run import run_round
from src.common.anchors.snapshot import PAGE_USERS, AnchorContradiction
from src.common.anchors.tree import root_of
from src.common.anchors.turns import is_due, note_attempt, take_turn
from src.common.credits.domain.commands import Spend
from src.common.database import SessionLocal
from src.common.exceptions import Conflict, InProgress
from src.common.models import AnchorCheckpoint, AnchoredUser, AnchorTurn, CreditEntry, User
from tests.anchors.anchoring import (
    compared,
    drain,
    file_sink,
    make_hashes_anew,
    numbers,
    rows,
    run,
    some_users,
    spend,
)
from tests.anchors.made import KEY
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt

pytestmark = pytest.mark.usefixtures("fresh_database")


def leaves_now() -> list[bytes]:
    """Everybody's leaf, as the tables say."""
    with SessionLocal() as session:
        found = session.execute(
            select(User.user_id, User.credits_version, CreditEntry.entry_hash)
            .outerjoin(
                CreditEntry,
                (CreditEntry.user_id == User.user_id) & (CreditEntry.seq == User.credits_version),
            )
            .order_by(User.user_id)
        )
        return [Leaf(who, version, hashed or NO_ENTRY).octets for who, version, hashed in found]


def test_a_checkpoint_is_over_everybody(tmp_path: Path) -> None:
    """Users without an entry too; their number, that of the entries, and the root."""
    some_users(3)
    with SessionLocal.begin() as session:
        someone(session)
    sink = file_sink(tmp_path / "anchors")
    closed = run(sink).checkpoint
    assert closed is not None
    everybody = leaves_now()
    assert (closed.number, closed.users, closed.entries, closed.previous) == (1, 4, 6, None)
    assert closed.root == root_of(everybody)
    for record in sink.records():
        assert list(split(b"".join(record.leaves))) == everybody
        assert record.checkpoint == closed


def test_later_ones_bring_what_changed(tmp_path: Path) -> None:
    """Each names the one before, and its root is over everybody all the same."""
    people = some_users(3)
    sink = file_sink(tmp_path / "anchors")
    first = run(sink).checkpoint
    spend(people[1])
    second = run(sink).checkpoint
    third = run(sink).checkpoint
    assert first is not None
    assert second is not None
    assert third is not None
    assert (second.previous, third.previous) == (first.hash, second.hash)
    assert second.root == third.root == root_of(leaves_now()) != first.root
    came = [[leaf_of(leaf).user_id for leaf in split(b"".join(it.leaves))] for it in sink.records()]
    assert came == [people, [people[1]], []]
    assert compared(sink).findings == 0


def test_the_first_and_the_last_id_are_read(tmp_path: Path) -> None:
    """Whoever has them."""
    with SessionLocal.begin() as session:
        for number in (0, 2**128 - 1):
            someone(session, user_id=uuid.UUID(int=number))
    closed = run(file_sink(tmp_path / "anchors")).checkpoint
    assert closed is not None
    assert (closed.users, closed.root) == (2, root_of(leaves_now()))


def test_more_users_than_a_page(tmp_path: Path) -> None:
    """None is left out between two pages."""
    with SessionLocal.begin() as session:
        session.execute(
            text(
                "INSERT INTO users (user_id, email, password_hash) SELECT md5(n::text)::uuid,"
                " n || '@example.com', 'managed_externally' FROM generate_series(1, :count) AS n"
            ),
            {"count": 2 * PAGE_USERS + 1},
        )
    closed = run(file_sink(tmp_path / "anchors")).checkpoint
    assert closed is not None
    assert (closed.users, closed.root) == (2 * PAGE_USERS + 1, root_of(leaves_now()))


def test_a_late_commit_is_in_the_next_one(tmp_path: Path) -> None:
    """Whatever instant its entry has: the version decides, and never the time."""
    [user_id] = some_users(1)
    sink = file_sink(tmp_path / "anchors")
    with SessionLocal.begin() as late:
        do(late, Spend, user_id, amount=1)
        first = run(sink).checkpoint
    second = run(sink).checkpoint
    assert first is not None
    assert second is not None
    with SessionLocal() as session:
        created_at = session.scalars(select(CreditEntry.created_at).where(CreditEntry.seq == 3))
        assert created_at.one() < first.closed_at
    assert (first.entries, second.entries) == (2, 3)
    assert compared(sink).findings == 0


def test_writers_go_on_while_it_is_read(tmp_path: Path) -> None:
    """No row and no table is locked; what they write is in the next one."""
    people = some_users(3)
    sink = file_sink(tmp_path / "anchors")
    steps = run_round(SessionLocal, [sink], KEY, closes=True)
    next(steps)
    next(steps)
    assert rows("SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL") != [(1,)]
    with SessionLocal.begin() as session:
        session.execute(text("SET LOCAL lock_timeout = '1s'"))
        session.execute(text("LOCK TABLE users, credit_entries IN ROW EXCLUSIVE MODE"))
        do(session, Spend, people[0], amount=1)
    drain(steps)
    [record] = sink.records()
    assert record.checkpoint.entries == 6
    second = run(sink).checkpoint
    assert second is not None
    assert second.entries == 7


def test_one_at_a_time(tmp_path: Path) -> None:
    """Another is told; one that was killed has the turn for two minutes, and then it is free."""
    some_users(1)
    sink = file_sink(tmp_path / "anchors")
    with SessionLocal.begin() as session:
        assert take_turn(session, uuid.uuid4())
    with pytest.raises(InProgress):
        run(sink)
    with SessionLocal.begin() as session:
        session.execute(
            update(AnchorTurn).values(expires_at=AnchorTurn.expires_at - text("'2min'::interval"))
        )
    assert run(sink).checkpoint is not None


def test_of_two_that_close_the_same_one_the_first_has_closed_it() -> None:
    """The other is told, and nothing of it is there."""
    people = some_users(2)
    slow = close_checkpoint(SessionLocal, KEY, is_complete=True)
    next(slow)
    drain(close_checkpoint(SessionLocal, KEY, is_complete=True))
    spend(*people)
    with pytest.raises(Conflict) as told:
        drain(slow)
    assert told.value.error_type == "ANCHOR_CLOSED_ALREADY"
    assert rows("SELECT number, count(*) FROM anchor_parts GROUP BY 1") == [(1, 1)]


def test_an_interrupted_one_leaves_nothing(tmp_path: Path) -> None:
    """Wherever it was ended: the turn is free, and the next one is number 1."""
    some_users(2)
    sink = file_sink(tmp_path / "anchors")
    steps = run_round(SessionLocal, [sink], KEY, closes=True)
    count = sum(1 for _ in steps)
    corrupt("DELETE FROM anchor_parts; DELETE FROM anchor_checkpoints; DELETE FROM anchor_sinks;"
            "DELETE FROM anchored_users", uuid.UUID(int=0))  # fmt: skip
    (tmp_path / "anchors").unlink()
    closed_by_then = False
    for place in range(1, count):
        steps = run_round(SessionLocal, [sink], KEY, closes=True)
        for _ in range(place):
            next(steps)
        closed_by_then = bool(rows("SELECT 1 FROM anchor_checkpoints"))
        steps.close()
        if closed_by_then:
            break
        assert rows("SELECT count(*) FROM anchored_users") == [(0,)]
    assert run(sink, closes=not closed_by_then).standings[0].number == 1
    assert numbers(sink) == [1]


def test_it_is_due_once_an_interval() -> None:
    """Whatever came of the last one; but soon, where a sink was in the way."""
    with SessionLocal.begin() as session:
        assert is_due(session, 60)
        take_turn(session, uuid.uuid4())
        assert is_due(session, 60)
        session.execute(
            update(AnchorTurn).values(attempted_at=text("clock_timestamp() - '59 s'::interval"))
        )
        assert not is_due(session, 60)
        assert is_due(session, 59)
        note_attempt(session, was_blocked=True)
        assert not is_due(session, 3_600)
        minute_ago = text("clock_timestamp() - '60 s'::interval")
        session.execute(update(AnchorTurn).values(attempted_at=minute_ago))
        assert is_due(session, 3_600)


REWRITTEN = {
    "the last entry is removed": (
        """DELETE FROM credit_postings WHERE user_id = :user_id AND seq = 2;
        DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 2;
        UPDATE users SET credits_version = 1 WHERE user_id = :user_id""",
        "Entry 2 of user {user}, the newest at the last checkpoint, is missing, or is another",
    ),
    "the user is removed": (
        "DELETE FROM users WHERE user_id = :user_id",
        "User {user}, who was there at the last checkpoint, is missing",
    ),
    "an amount is changed, and all hashes": (
        "UPDATE credit_entries SET amount = 99 WHERE user_id = :user_id AND seq = 1",
        "Entry 2 of user {user}, the newest at the last checkpoint, is missing, or is another",
    ),
}


@pytest.mark.parametrize("change", REWRITTEN)
def test_nothing_is_signed_over_a_history_that_was_rewritten(tmp_path: Path, change: str) -> None:
    """It is noted, until history fits again."""
    people = some_users(3)
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    statements, said = REWRITTEN[change]
    corrupt(statements, people[1])
    if "hashes" in change:
        spend(people[1])
        make_hashes_anew(people[1])
    with pytest.raises(AnchorContradiction) as told:
        run(sink)
    assert said.format(user=people[1]) in told.value.message
    with SessionLocal() as session:
        state = anchor_state(session)
        assert (state.contradiction, state.contradictions) == (told.value.message, 1)
        assert session.scalars(select(AnchorCheckpoint.number)).all() == [1]
    assert numbers(sink) == [1]


def test_what_was_signed_of_a_user_who_did_nothing_since_is_signed_again(tmp_path: Path) -> None:
    """Whoever rewrites their last entry does not have that signed; the next entry brings it up."""
    [user_id] = some_users(1)
    sink = file_sink(tmp_path / "anchors")
    first = run(sink).checkpoint
    corrupt("UPDATE credit_entries SET amount = -99 WHERE user_id = :user_id AND seq = 2", user_id)
    make_hashes_anew(user_id)
    second = run(sink).checkpoint
    assert first is not None
    assert second is not None
    assert (second.root, second.leaves) == (first.root, 0)
    assert [it.kind for it in compared(sink).first] == ["ENTRY_CHANGED"]
    spend(user_id)
    with pytest.raises(AnchorContradiction):
        run(sink)


def test_a_new_entry_without_its_hash_is_not_signed(tmp_path: Path) -> None:
    """Nor is a version that no entry has."""
    [user_id] = some_users(1)
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    spend(user_id)
    corrupt("DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 3", user_id)
    with pytest.raises(AnchorContradiction, match="Entry 3, the newest of user"):
        run(sink)


def test_entries_without_a_hash_are_chained_first() -> None:
    """A ledger from before the chain says so."""
    corrupt("UPDATE credit_ledgers SET chained_at = NULL", uuid.UUID(int=0))
    with pytest.raises(Conflict) as told:
        drain(close_checkpoint(SessionLocal, KEY, is_complete=True))
    assert told.value.error_type == "ANCHOR_NOT_CHAINED"


def test_what_was_anchored_is_noted_for_each_user(tmp_path: Path) -> None:
    """As the leaves say, also of later changes."""
    people = some_users(3)
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    spend(people[2])
    run(sink)
    with SessionLocal() as session:
        noted = session.execute(
            select(AnchoredUser.user_id, AnchoredUser.version, AnchoredUser.last_hash).order_by(
                AnchoredUser.user_id
            )
        )
        assert [Leaf(*row).octets for row in noted] == leaves_now()
        [_, note] = session.scalars(select(AnchorCheckpoint).order_by(AnchorCheckpoint.number))
    assert (
        note.checkpoint_hash
        == hashlib.sha256(note.note.partition("\n\n")[0].encode() + b"\n").digest()
    )
