"""What a superuser changes with triggers off is found by comparing entries with anchors.

So also where every hash was made anew, so that the database by itself fits.
"""

import uuid
from pathlib import Path

import pytest

from src.common.anchors.notes import new_signing_key
from src.common.anchors.snapshot import AnchorContradiction
from src.common.credits.domain.commands import Grant, OpenHold
from src.common.database import SessionLocal
from tests.anchors.anchoring import (
    compared,
    drain,
    file_sink,
    make_hashes_anew,
    run,
    some_users,
    spend,
)
from tests.anchors.made import KEY
from tests.credits.ledger import do
from tests.credits.verification.test_verify import corrupt

pytestmark = pytest.mark.usefixtures("fresh_database")

FORGERIES = {
    "an amount": "UPDATE credit_entries SET amount = 101 WHERE user_id = :user_id AND seq = 1",
    "a posting": "UPDATE credit_postings SET amount = -31 WHERE user_id = :user_id AND seq = 2",
    "a posting removed": "DELETE FROM credit_postings WHERE user_id = :user_id AND seq = 2",
    "a key": "UPDATE credit_entries SET idempotency_key = 'x' WHERE user_id = :user_id AND seq = 2",
    "an actor": "UPDATE credit_entries SET actor = 'key:x' WHERE user_id = :user_id AND seq = 2",
    "a time": (
        "UPDATE credit_entries SET created_at = created_at - interval '1 us'"
        " WHERE user_id = :user_id AND seq = 1"
    ),
    "a lot": "UPDATE credit_lots SET granted = 101 WHERE user_id = :user_id AND seq = 1",
    "a hold": "UPDATE credit_holds SET amount = 6 WHERE user_id = :user_id AND seq = 3",
    "two exchanged": (
        "UPDATE credit_entries SET seq = 9 WHERE user_id = :user_id AND seq = 1;"
        "UPDATE credit_entries SET seq = 1 WHERE user_id = :user_id AND seq = 2;"
        "UPDATE credit_entries SET seq = 2 WHERE user_id = :user_id AND seq = 9"
    ),
    "an entry removed": ("DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 2"),
}
FIRST = {"an amount": 1, "a time": 1, "a lot": 1, "two exchanged": 1, "a hold": 3}
"""The entry that is named; 2 for the others."""


def anchor(tmp_path: Path, count: int) -> list[uuid.UUID]:
    """So many users: at the first checkpoint with three entries each, at the second with four."""
    people = some_users(count)
    sink = file_sink(tmp_path / "anchors")
    with SessionLocal.begin() as session:
        for user_id in people:
            do(session, OpenHold, user_id, 1, amount=5, expires_in_seconds=10**6)
    run(sink)
    with SessionLocal.begin() as session:
        for user_id in people:
            do(session, Grant, user_id, 2, amount=7)
    run(sink)
    assert compared(sink).findings == 0
    return people


@pytest.fixture
def anchored(tmp_path: Path) -> list[uuid.UUID]:
    """Three of them."""
    return anchor(tmp_path, 3)


def test_every_changed_entry_is_named(tmp_path: Path) -> None:
    """The entry, the user, and the first checkpoint that it does not fit; nobody else.

    Where all hashes are made anew then, one of the first three entries is.
    """
    bystander, *people = anchor(tmp_path, 1 + len(FORGERIES))
    sink = file_sink(tmp_path / "anchors")
    of = dict(zip(FORGERIES, people, strict=True))
    for name, statements in FORGERIES.items():
        corrupt(statements, of[name])
    expected = {
        of[name]: ("ENTRY_MISSING" if "entry" in name else "ENTRY_CHANGED", FIRST.get(name, 2), 1)
        for name in FORGERIES
    }
    report = compared(sink)
    found = {it.user_id: (it.kind, it.seq, it.checkpoint) for it in report.first}
    assert (found, report.findings, report.users) == (expected, len(people), 1 + len(people))
    for user_id in people:
        make_hashes_anew(user_id)
    found = {it.user_id: (it.kind, it.seq, it.checkpoint) for it in compared(sink).first}
    assert found == {
        user_id: (kind, seq if kind == "ENTRY_MISSING" else 1, 1)
        for user_id, (kind, seq, _) in expected.items()
    }
    assert compared(sink, user_ids=[bystander]).findings == 0


def test_a_forgery_after_the_first_checkpoint_is_named_at_the_second(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """What fits the first is not suspected, even where all hashes were made anew."""
    corrupt(
        "UPDATE credit_entries SET amount = 8 WHERE user_id = :user_id AND seq = 4", anchored[0]
    )
    make_hashes_anew(anchored[0])
    [found] = compared(file_sink(tmp_path / "anchors")).first
    assert (found.kind, found.seq, found.checkpoint) == ("ENTRY_CHANGED", 4, 2)


def test_a_removed_last_entry_is_named(anchored: list[uuid.UUID], tmp_path: Path) -> None:
    """With all that refers to it, so that the database by itself fits."""
    corrupt(
        "DELETE FROM credit_postings WHERE user_id = :user_id AND seq = 4;"
        "DELETE FROM credit_lots WHERE user_id = :user_id AND seq = 4;"
        "DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 4;"
        "UPDATE users SET credits_version = 3, credits_balance = credits_balance - 7"
        " WHERE user_id = :user_id",
        anchored[2],
    )
    [found] = compared(file_sink(tmp_path / "anchors")).first
    assert (found.kind, found.user_id, found.seq, found.checkpoint) == (
        "ENTRY_MISSING",
        anchored[2],
        4,
        2,
    )


def test_a_removed_user_is_named(anchored: list[uuid.UUID], tmp_path: Path) -> None:
    """With everything of theirs."""
    corrupt(
        "DELETE FROM credit_postings WHERE user_id = :user_id;"
        "DELETE FROM credit_holds WHERE user_id = :user_id;"
        "DELETE FROM credit_lots WHERE user_id = :user_id;"
        "DELETE FROM credit_entries WHERE user_id = :user_id;"
        "DELETE FROM users WHERE user_id = :user_id;"
        "DELETE FROM anchored_users WHERE user_id = :user_id",
        anchored[0],
    )
    report = compared(file_sink(tmp_path / "anchors"))
    assert [(it.kind, it.user_id, it.checkpoint) for it in report.first] == [
        ("USER_MISSING", anchored[0], 1)
    ]


def test_a_chain_made_anew_for_everybody_is_named(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """Each user, and each from the first checkpoint on."""
    for user_id in anchored:
        corrupt("UPDATE credit_entries SET actor = 'key:x' WHERE user_id = :user_id", user_id)
        make_hashes_anew(user_id)
    report = compared(file_sink(tmp_path / "anchors"))
    assert [(it.kind, it.user_id, it.checkpoint) for it in report.first] == [
        ("ENTRY_CHANGED", user_id, 1) for user_id in anchored
    ]


def test_what_was_anchored_cannot_be_adjusted_to_a_forgery(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """Whoever changes `anchored_users` too has the next root not fit the leaves that came."""
    user_id = anchored[1]
    corrupt("UPDATE credit_entries SET amount = 8 WHERE user_id = :user_id AND seq = 4", user_id)
    make_hashes_anew(user_id)
    corrupt(
        "UPDATE anchored_users SET last_hash = (SELECT entry_hash FROM credit_entries"
        " WHERE user_id = :user_id AND seq = 4) WHERE user_id = :user_id",
        user_id,
    )
    sink = file_sink(tmp_path / "anchors")
    spend(anchored[0])
    run(sink)
    found = {(it.kind, it.checkpoint, it.user_id) for it in compared(sink).first}
    assert found == {
        ("ANCHOR_LEAVES_DO_NOT_FIT", 3, None),
        ("ENTRY_CHANGED", 2, user_id),
    }


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM credit_ledgers", "UPDATE credit_ledgers SET ledger_id = gen_random_uuid()"],
)
def test_a_ledger_of_another_id_is_named_and_not_anchored(
    anchored: list[uuid.UUID], tmp_path: Path, statement: str
) -> None:
    """Its row may be removed or exchanged: nothing is signed that would go on as another ledger."""
    corrupt(statement, anchored[0])
    sink = file_sink(tmp_path / "anchors")
    with pytest.raises(AnchorContradiction, match="ledger"):
        run(sink)
    [found] = compared(sink).first
    assert (found.kind, found.checkpoint) == ("ANCHOR_OF_ANOTHER_LEDGER", 1)


def test_entries_are_not_hashed_anew_under_anchors(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """`flashslides db chain` would give a forged entry a hash that fits."""
    corrupt(
        "UPDATE credit_entries SET entry_hash = NULL, amount = 8 WHERE user_id = :user_id AND"
        " seq = 4; UPDATE credit_ledgers SET chained_at = NULL",
        anchored[0],
    )
    with pytest.raises(AnchorContradiction, match="at checkpoint 2"):
        run(file_sink(tmp_path / "anchors"))


@pytest.mark.parametrize("count", [1, 2])
def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path, count: int) -> None:
    """Of one user, read as their chain is made again, or of several, read together."""
    user_id, *_ = anchor(tmp_path, count)
    corrupt("UPDATE credit_entries SET created_at = 'infinity' WHERE user_id = :user_id", user_id)
    [found] = compared(file_sink(tmp_path / "anchors")).first
    assert (found.kind, found.user_id) == ("ENTRY_CHANGED", user_id)


def test_a_shortened_file_is_named(anchored: list[uuid.UUID], tmp_path: Path) -> None:
    """The checkpoints that it lacks are those the database knows that it had."""
    assert anchored
    file = tmp_path / "anchors"
    begins = file.read_bytes().index(b'{"checkpoint"', 1)
    for left in (begins, begins + 500):
        file.write_bytes(file.read_bytes()[:left])
        [found] = compared(file_sink(file)).first
        assert (found.kind, found.checkpoint) == ("ANCHORS_SHORTENED", 2)


@pytest.mark.parametrize("written", [b"", b"No checkpoint at all\n", b'{"checkpoint": "flash'])
def test_what_has_no_checkpoint_does_not_fit(
    anchored: list[uuid.UUID], tmp_path: Path, written: bytes
) -> None:
    """An emptied copy, another file, the beginning of one: the database knows nothing of it."""
    assert anchored
    file = tmp_path / "copy"
    file.write_bytes(written)
    [found] = compared(file_sink(file)).first
    assert (found.kind, found.checkpoint, found.user_id) == ("ANCHORS_MISSING", None, None)


def test_a_file_without_its_beginning_is_named(anchored: list[uuid.UUID], tmp_path: Path) -> None:
    """The first checkpoint has all leaves."""
    assert anchored
    file = tmp_path / "anchors"
    file.write_bytes(file.read_bytes()[file.read_bytes().index(b'{"checkpoint"', 1) :])
    [found] = compared(file_sink(file)).first
    assert (found.kind, found.checkpoint) == ("ANCHOR_CHAIN_BROKEN", 2)


def test_a_checkpoint_taken_out_of_the_middle_is_named(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """The next one names another before it."""
    sink = file_sink(tmp_path / "anchors")
    spend(anchored[0])
    run(sink)
    content = (tmp_path / "anchors").read_bytes()
    second = content.index(b'{"checkpoint"', 1)
    third = content.index(b'{"checkpoint"', second + 1)
    (tmp_path / "anchors").write_bytes(content[:second] + content[third:])
    report = compared(sink)
    assert [(it.kind, it.checkpoint) for it in report.first] == [("ANCHOR_CHAIN_BROKEN", 3)]
    assert report.last_checkpoint == 1


def test_a_foreign_key_s_checkpoint_is_named(anchored: list[uuid.UUID], tmp_path: Path) -> None:
    """Nothing that it says is believed; a key that was rotated in is."""
    from src.common.anchors.run import run_round

    other = new_signing_key("flashslides")
    sink = file_sink(tmp_path / "anchors")
    spend(anchored[0])
    drain(run_round(SessionLocal, [sink], other, closes=True))
    report = compared(sink)
    assert [(it.kind, it.checkpoint) for it in report.first] == [("ANCHOR_SIGNATURE_INVALID", 3)]
    assert (report.last_checkpoint, compared(sink, [other.public]).first[0].checkpoint) == (2, 1)
    assert compared(sink, [KEY.public, other.public]).findings == 0


def test_leaves_that_were_changed_in_a_file_are_named(
    anchored: list[uuid.UUID], tmp_path: Path
) -> None:
    """Their hash is signed."""
    assert anchored
    file = tmp_path / "anchors"
    content = bytearray(file.read_bytes())
    place = content.rindex(b'{"leaves": "') + 40
    content[place] = ord("A") if content[place] != ord("A") else ord("B")
    file.write_bytes(content)
    [found] = compared(file_sink(file)).first
    assert (found.kind, found.checkpoint) == ("ANCHOR_UNREADABLE", 2)
