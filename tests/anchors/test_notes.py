"""Signed notes and checkpoints: one way to write them, and nothing else is believed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.anchors.checkpoints import parse_checkpoint
from src.common.anchors.notes import (
    new_signing_key,
    parse_public_key,
    parse_signing_key,
    verified_text,
)
from src.common.exceptions import ExceptionWithErrorType, Inconsistent, Invalid
from tests.anchors.made import KEY, checkpoint_over, crowd

CHECKPOINT = checkpoint_over(crowd(3))
NOTE = KEY.sign(CHECKPOINT.text)
# The example of golang.org/x/mod/sumdb/note.
GO_SIGNING_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def test_go_writes_the_same_note() -> None:
    """The format is theirs: the key, the text and the signature of their documentation."""
    key = parse_signing_key(GO_SIGNING_KEY)
    note = f"{GO_TEXT}\n\u2014 PeterNeumann {GO_SIGNATURE}\n"
    assert key.sign(GO_TEXT) == note
    assert verified_text(note, [key.public]) == GO_TEXT


def test_what_was_signed_is_read_back() -> None:
    """The checkpoint, and keys in their lines."""
    assert parse_checkpoint(verified_text(NOTE, [KEY.public])) == CHECKPOINT
    assert parse_signing_key(KEY.written() + "\n").public == KEY.public
    assert parse_public_key(str(KEY.public)) == KEY.public
    assert KEY.written().rpartition("+")[2] not in repr(KEY) + str(KEY.public)


def test_a_foreign_key_s_signature_is_refused() -> None:
    """Also one of the same name."""
    other = new_signing_key(KEY.name)
    for keys in ([other.public], []):
        with pytest.raises(Inconsistent, match="no key that was given") as refused:
            verified_text(NOTE, keys)
        assert refused.value.error_type == "ANCHOR_SIGNATURE_INVALID"


def test_a_rotation_believes_the_old_and_the_new_key() -> None:
    """Whichever has signed; and a note that both have signed is believed by who knows one."""
    new = new_signing_key("flashslides-2027")
    of_new = new.sign(CHECKPOINT.text)
    for note in (NOTE, of_new):
        assert verified_text(note, [KEY.public, new.public]) == CHECKPOINT.text
    both = NOTE + of_new.rpartition("\n\n")[2]
    for key in (KEY, new):
        assert verified_text(both, [key.public]) == CHECKPOINT.text


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="ascii"))
def test_no_changed_character_is_believed(place: int, other: str) -> None:
    """Of the text, the name or the signature."""
    changed = NOTE[:place] + other + NOTE[place + 1 :]
    if changed == NOTE:
        return
    with pytest.raises(Inconsistent) as refused:
        verified_text(changed, [KEY.public])
    assert refused.value.error_type == "ANCHOR_SIGNATURE_INVALID"


@pytest.mark.parametrize("cut", [0, 1, 30, len(NOTE) - 1])
def test_a_shortened_note_is_none(cut: int) -> None:
    """Nor is one that goes on."""
    for note in (NOTE[:cut], NOTE + "x", NOTE + "\n"):
        with pytest.raises(Inconsistent):
            verified_text(note, [KEY.public])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("number 1\n", "number 01\n"),
        ("number 1\n", "number 0\n"),
        ("number 1\n", "number -1\n"),
        ("Z\nusers", "+00:00\nusers"),
        ("users 3", "users  3"),
        ("previous none\n", "previous none\n\n"),
        ("previous none\n", "previous\n"),
        ("flashslides-anchor 1", "flashslides-anchor 2"),
        ("root ", "root A"),
    ],
)
def test_a_checkpoint_is_written_in_one_way(old: str, new: str) -> None:
    """So two texts are two checkpoints."""
    assert old in CHECKPOINT.text
    with pytest.raises(Inconsistent) as refused:
        parse_checkpoint(CHECKPOINT.text.replace(old, new, 1))
    assert refused.value.error_type == "ANCHOR_UNREADABLE"


def test_every_field_is_in_the_hash() -> None:
    """Whatever differs between two checkpoints, the next one names another."""
    others = [
        replace(CHECKPOINT, number=2),
        replace(CHECKPOINT, users=4),
        replace(CHECKPOINT, entries=10),
        replace(CHECKPOINT, root=bytes(32)),
        replace(CHECKPOINT, is_complete=False),
        replace(CHECKPOINT, leaves=2),
        replace(CHECKPOINT, leaves_hash=bytes(32)),
        replace(CHECKPOINT, previous=bytes(32)),
    ]
    assert len({each.hash for each in [CHECKPOINT, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    "line",
    ["", "x", "a+b+c", str(KEY.public)[:-4], KEY.written()[:-4]],
    ids=["nothing", "a letter", "no key", "a cut public key", "a cut secret key"],
)
def test_what_is_no_key_is_refused_without_being_said(line: str) -> None:
    """The sentence never repeats what may be a secret."""
    for parse in (parse_signing_key, parse_public_key):
        with pytest.raises(Invalid) as refused:
            parse(line)
        assert len(line) < 4 or line not in refused.value.message


@pytest.mark.parametrize("name", ["", "a b", "a+b"])
def test_a_key_s_name_has_no_blank_and_no_plus(name: str) -> None:
    """They would end it."""
    with pytest.raises(ExceptionWithErrorType):
        new_signing_key(name)
