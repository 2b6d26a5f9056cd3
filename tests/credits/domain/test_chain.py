"""The hash of an entry: every part of it counts, and no two entries are encoded alike."""

import datetime as dt
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.credits.domain import chain
from src.common.models.credit_entry import EntryKind

WHO = uuid.UUID("6f1c2c7e-5f0d-4a52-9c43-0d5f6b8f2a11")
LEDGER = uuid.UUID("0d5f6b8f-2a11-4a52-9c43-6f1c2c7e5f0d").bytes
THEN = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
ROW: tuple[Any, ...] = (
    *(WHO, 2, "spend", -10, 90, 90, None, None, None),
    *("key", bytes(range(32)), "deck", "key:slides", THEN, THEN),
)
COLUMNS = (
    *("user_id", "seq", "kind", "amount", "balance_after", "result_balance", "captured"),
    *("related_seq", "hold_expires_at", "idempotency_key", "request_digest", "reference", "actor"),
    *("effective_at", "created_at"),
)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LINE = chain.line_octets(1, -10, 90)


def test_the_encoding_is_what_it_was() -> None:
    """Hashes that are stored, and anchored elsewhere, are of this encoding: it never changes."""
    assert chain.VERSION == 1
    first = chain.entry_hash(LEDGER, ROW, LINE, chain.MADE_NOTHING)
    assert first.hex() == "77df796433e846a2b77529373f8b231aa3334ed8be46e82e2566012048bde175"
    bought = chain.lot_octets("purchase", WHO, 100, 500, THEN)
    assert (
        chain.entry_hash(first, ROW, LINE, bought).hex()
        == "34cd1222a0f175a3cd5e0f39401f91842defc4e72edef8b008e1bf6f104acfca"
    )


def test_instants_of_the_hour_that_comes_twice_differ() -> None:
    """Python takes two of the same zone for equal there; nobody's instant hides the next one's."""
    zone = ZoneInfo("Europe/Berlin")
    first = dt.datetime(2026, 10, 25, 2, 30, tzinfo=zone)
    second = first.replace(fold=1)
    assert first == second
    hashes = [
        chain.entry_hash(LEDGER, (*ROW[:-2], THEN, instant), LINE, b"")
        for instant in (first, second)
    ]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_counts(column: str) -> None:
    """Another value of one is another hash; where it may be missing, that too."""
    place = COLUMNS.index(column)
    before = chain.entry_hash(LEDGER, ROW, LINE, b"")
    others: dict[type, list[Any]] = {
        int: [-11, 7],
        str: ["", "keydeck", "k\u00e9y"],
        bytes: [bytes(32)],
        uuid.UUID: [uuid.UUID(int=1)],
        dt.datetime: [THEN + dt.timedelta(microseconds=1), THEN - dt.timedelta(days=1)],
        type(None): [0, 1] if column != "hold_expires_at" else [THEN, EPOCH],
    }
    values = others[type(ROW[place])] + ([None] if column == "reference" else [])
    hashes = {
        chain.entry_hash(LEDGER, (*ROW[:place], value, *ROW[place + 1 :]), LINE, b"")
        for value in values
    }
    assert len(hashes) == len(values)
    assert before not in hashes


def test_all_that_is_no_column_counts() -> None:
    """What came before, the postings, and what of a lot, a hold or a debt never changes."""
    hashes = {
        chain.entry_hash(previous, ROW, lines, made)
        for previous in (LEDGER, bytes(16), bytes(32))
        for lines in (b"", LINE, chain.line_octets(2, -10, 90), LINE + LINE)
        for made in (
            chain.MADE_NOTHING,
            chain.hold_octets(5),
            chain.opening_debt_octets(5),
            chain.lot_octets("promo", None, 10, 5, None),
            chain.lot_octets("adjustment", None, 10, 5, None),
            chain.lot_octets("promo", WHO, 10, 5, None),
            chain.lot_octets("promo", None, 11, 5, None),
            chain.lot_octets("promo", None, 10, 6, None),
            chain.lot_octets("promo", None, 10, 5, THEN),
        )
    }
    assert len(hashes) == 3 * 4 * 9


def test_the_zone_of_an_instant_makes_no_difference() -> None:
    """The same instant is the same hash, whichever session reads it; also in years to come."""
    for instant in (THEN, dt.datetime(9999, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)):
        zone = dt.timezone(-dt.timedelta(hours=9, minutes=30))
        row = (*ROW[:8], instant, *ROW[9:])
        elsewhere = tuple(
            each.astimezone(zone) if isinstance(each, dt.datetime) else each for each in row
        )
        assert chain.entry_hash(LEDGER, row, LINE, b"") == chain.entry_hash(
            LEDGER, elsewhere, LINE, b""
        )


TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
PARTS = st.tuples(
    st.sampled_from(EntryKind), NUMBERS, st.none() | NUMBERS, TEXTS, st.none() | TEXTS, TEXTS
)


@given(PARTS, PARTS)
def test_no_two_entries_are_encoded_alike(one: Any, other: Any) -> None:
    """However their texts run into each other."""

    def hashed(kind: str, amount: int, captured: int | None, *texts: str | None) -> bytes:
        key, reference, actor = texts
        row = (
            *(WHO, 2, kind, amount, 0, 0, captured, None, None),
            *(key, bytes(32), reference, actor, THEN, THEN),
        )
        return chain.entry_hash(LEDGER, row, b"", b"")

    assert (hashed(*one) == hashed(*other)) == (one == other)
