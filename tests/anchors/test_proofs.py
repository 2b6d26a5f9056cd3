"""A proof convinces whoever has the public key, and nothing that was changed in it does."""

import json
import uuid
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from src.common.anchors.notes import new_signing_key
from src.common.anchors.proofs import check_proof
from src.common.anchors.proving import prove
from src.common.database import SessionLocal
from src.common.exceptions import Conflict, ExceptionWithErrorType, NotFound
from tests.anchors.anchoring import file_sink, run, some_users, spend
from tests.anchors.made import KEY
from tests.credits.verification.test_verify import a_life, corrupt

pytestmark = pytest.mark.usefixtures("fresh_database")


def proof_of(user_id: uuid.UUID, seq: int) -> bytes:
    """As it is printed."""
    with SessionLocal() as session:
        return msgspec.json.encode(prove(session, user_id, seq))


def test_every_entry_of_a_life_is_proven(tmp_path: Path) -> None:
    """Of every kind: with lots, holds, references; the answer is what the entry says."""
    some_users(5)
    with SessionLocal.begin() as session:
        user_id = a_life(session)
    closed = run(file_sink(tmp_path / "anchors")).checkpoint
    assert closed is not None
    with SessionLocal() as session:
        entries = session.execute(
            text(
                "SELECT seq, kind, amount, balance_after, actor, created_at FROM credit_entries"
                " WHERE user_id = :user_id ORDER BY seq"
            ),
            {"user_id": user_id},
        ).all()
    assert len(entries) > 10
    for seq, kind, amount, balance, actor, created_at in entries:
        proven = check_proof(proof_of(user_id, seq), [KEY.public])
        assert (proven.seq, proven.kind, proven.amount) == (seq, kind, amount)
        assert (proven.balance_after, proven.actor) == (balance, actor)
        assert proven.created_at == created_at
        assert (proven.checkpoint, proven.closed_at) == (1, closed.closed_at)
        assert (proven.user_id, proven.ledger_id) == (user_id, closed.ledger_id)


def test_a_proof_stays_true(tmp_path: Path) -> None:
    """Whatever is written later; and a key of somebody else's proves nothing."""
    [user_id] = some_users(1)
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    old = proof_of(user_id, 1)
    spend(user_id)
    run(sink)
    assert check_proof(old, [KEY.public]).checkpoint == 1
    assert check_proof(proof_of(user_id, 1), [KEY.public]).checkpoint == 2
    with pytest.raises(ExceptionWithErrorType) as refused:
        check_proof(old, [new_signing_key("flashslides").public])
    assert refused.value.error_type == "ANCHOR_SIGNATURE_INVALID"


def test_only_what_a_checkpoint_has_is_proven(tmp_path: Path) -> None:
    """Before it, later entries, and none that is not there."""
    people = some_users(2)
    with pytest.raises(Conflict) as early:
        proof_of(people[0], 1)
    run(file_sink(tmp_path / "anchors"))
    spend(people[0])
    with pytest.raises(Conflict) as late:
        proof_of(people[0], 3)
    assert {early.value.error_type, late.value.error_type} == {"ANCHOR_NOT_YET"}
    for user_id, seq in ((people[0], 4), (people[0], 0), (uuid.uuid4(), 1)):
        with pytest.raises(NotFound):
            proof_of(user_id, seq)


def test_a_forged_entry_has_no_proof(tmp_path: Path) -> None:
    """Nor has one that it follows, or that is removed; nor anybody once leaves were changed."""
    people = some_users(3)
    run(file_sink(tmp_path / "anchors"))
    right = proof_of(people[0], 2)
    corrupt("UPDATE credit_entries SET amount = 99 WHERE user_id = :user_id AND seq = 1", people[0])
    assert proof_of(people[0], 2) == right  # the entry before is not in it, but its hash
    corrupt("DELETE FROM credit_entries WHERE user_id = :user_id AND seq = 2", people[1])
    for user_id, seq in ((people[0], 1), (people[1], 1), (people[1], 2)):
        with pytest.raises(ExceptionWithErrorType) as refused:
            proof_of(user_id, seq)
        assert refused.value.error_type == "ANCHOR_CONTRADICTION"
    corrupt("UPDATE anchored_users SET version = 9 WHERE user_id = :user_id", people[1])
    with pytest.raises(ExceptionWithErrorType) as contradicted:
        proof_of(people[0], 2)
    assert contradicted.value.error_type == "ANCHOR_CONTRADICTION"


@pytest.mark.parametrize("seq", [1, 2])
def test_what_cannot_be_read_is_not_proven(tmp_path: Path, seq: int) -> None:
    """Neither an entry nor one that follows a damaged one."""
    [user_id] = some_users(1)
    run(file_sink(tmp_path / "anchors"))
    corrupt("UPDATE credit_entries SET created_at = 'infinity' WHERE user_id = :user_id", user_id)
    with pytest.raises(ExceptionWithErrorType) as contradicted:
        proof_of(user_id, seq)
    assert contradicted.value.error_type == "ANCHOR_CONTRADICTION"


CHANGES: dict[str, Any] = {
    "amount": 1,
    "balance_after": 1,
    "kind": "grant2",
    "actor": "key:x",
    "idempotency_key": "x",
    "seq": 9,
    "created_at": "2020-01-01T00:00:00.000001Z",
    "reference": "x",
    "lines": [],
    "made": "AAAA",
    "captured": 0,
}


def test_no_field_of_an_entry_can_be_changed(tmp_path: Path) -> None:
    """Of the proven one, or of one that follows."""
    [user_id, *_] = some_users(2)
    run(file_sink(tmp_path / "anchors"))
    right = proof_of(user_id, 1)
    for place, name in product((0, 1), CHANGES):
        proof = json.loads(right)
        proof["entries"][place][name] = CHANGES[name]
        with pytest.raises(ExceptionWithErrorType) as refused:
            check_proof(json.dumps(proof).encode(), [KEY.public])
        assert refused.value.error_type == "ANCHOR_PROOF_DOES_NOT_FIT", name


def test_no_octet_of_a_proof_can_be_changed(tmp_path: Path) -> None:
    """It is unreadable then, or proves nothing, or says the same: as in a blank."""
    people = some_users(8)
    run(file_sink(tmp_path / "anchors"))
    proof = proof_of(people[3], 2)
    said = check_proof(proof, [KEY.public])

    @given(st.integers(0, len(proof) - 1), st.integers(1, 255))
    def change(place: int, flip: int) -> None:
        changed = bytearray(proof)
        changed[place] ^= flip
        try:
            found = check_proof(bytes(changed), [KEY.public])
        except ExceptionWithErrorType:
            return
        assert found == said

    change()


@pytest.mark.parametrize("octets", [b"", b"{}", b"[]", b"\xff", b'{"version": 1}', b"x" * 100])
def test_what_is_no_proof_is_refused_in_words(octets: bytes) -> None:
    """By an error, and no traceback."""
    with pytest.raises(ExceptionWithErrorType) as refused:
        check_proof(octets, [KEY.public])
    assert refused.value.error_type == "ANCHOR_PROOF_UNREADABLE"
