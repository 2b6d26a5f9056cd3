"""The hash that every entry carries, over what it says and the hash of the entry before: pure.

Whoever changes, removes or exchanges an entry has to change every later hash of that user. What is
hashed is read from rows that never change. So of any entry, at any time, the tables alone tell it
(rule 14, decision 0061).
"""

import datetime as dt
import hashlib
import struct
import uuid
from collections.abc import Sequence
from typing import Any

VERSION = 1
"""Of the encoding: the first octet of what is hashed."""

MADE_NOTHING = b""
"""What most entries made besides their lines."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# Numbers, big-endian, and how long each value is that follows them: no two entries look alike.
# B version, octets of the hash before, which optional columns are there (1 captured, 2 related_seq,
#   4 hold_expires_at, 8 reference);
# 16s user_id; i seq, amount, balance_after, result_balance, captured, related_seq;
# q hold_expires_at, effective_at, created_at, in microseconds since 1970 in UTC;
# I octets of kind, idempotency_key, request_digest, reference, actor, lines, and what was made.
_pack_entry = struct.Struct(">3B16s6i3q7I").pack
# i lot_seq, amount, remaining_after
_pack_line = struct.Struct(">3i").pack
# c "l"; B octets of source, which optional columns are there (1 transaction_id, 2 expires_at);
# h priority; i granted; q expires_at; 16s transaction_id
_pack_lot = struct.Struct(">c2Bhiq16s").pack
# c "h" and i the hold's amount, or c "d" and i the opening debt
_pack_credits = struct.Struct(">ci").pack


def entry_hash(previous: bytes, row: Sequence[Any], lines: bytes, made: bytes) -> bytes:
    """The hash of one entry, 32 octets.

    Args:
        previous: The hash of the entry before, or the ledger's id where there is none.
        row: The entry's columns from `user_id` to `created_at`, as in `writing.COLUMNS`.
        lines: Its postings in the order of their lots, each as `line_octets`.
        made: `lot_octets`, `hold_octets` or `opening_debt_octets` of what it made, else
            `MADE_NOTHING`.
    """
    # fmt: off
    (
        user_id, seq, kind, amount, balance_after, result_balance, captured, related_seq,
        hold_expires_at, key, digest, reference, actor, effective_at, created_at,
    ) = row
    # fmt: on
    there = expires_us = 0
    if captured is not None:
        there = 1
    if related_seq is not None:
        there |= 2
    if hold_expires_at is not None:
        there |= 4
        expires_us = _microseconds(hold_expires_at)
    noted = b""
    if reference is not None:
        there |= 8
        noted = reference.encode()
    instant, created_us = _Last.instant
    # In another zone than UTC equal ones may be an hour apart, where clocks are turned back.
    if created_at.tzinfo is not dt.UTC or instant != created_at:
        created_us = _microseconds(created_at)
        _Last.instant = created_at, created_us
    kind, key, actor = kind.encode(), key.encode(), actor.encode()
    numbers = _pack_entry(
        VERSION,
        len(previous),
        there,
        user_id.bytes,
        seq,
        amount,
        balance_after,
        result_balance,
        captured or 0,
        related_seq or 0,
        expires_us,
        created_us if effective_at is created_at else _microseconds(effective_at),
        created_us,
        len(kind),
        len(key),
        len(digest),
        len(noted),
        len(actor),
        len(lines),
        len(made),
    )
    values = (numbers, previous, kind, key, digest, noted, actor, lines, made)
    return hashlib.sha256(b"".join(values)).digest()


def line_octets(lot_seq: int, amount: int, remaining_after: int) -> bytes:
    """A posting, as it is hashed."""
    return _pack_line(lot_seq, amount, remaining_after)


def lot_octets(
    source: str,
    transaction_id: uuid.UUID | None,
    priority: int,
    granted: int,
    expires_at: dt.datetime | None,
) -> bytes:
    """What never changes of the lot that an entry made, as it is hashed."""
    encoded = source.encode()
    there = (transaction_id is not None) | (expires_at is not None) << 1
    expires_us = 0 if expires_at is None else _microseconds(expires_at)
    bought = b"" if transaction_id is None else transaction_id.bytes
    return _pack_lot(b"l", len(encoded), there, priority, granted, expires_us, bought) + encoded


def hold_octets(amount: int) -> bytes:
    """What never changes of the hold that an entry opened, as it is hashed."""
    return _pack_credits(b"h", amount)


def opening_debt_octets(opening_debt: int) -> bytes:
    """What was owed when the ledger began, 1 or more, as it is hashed with the opening entry."""
    return _pack_credits(b"d", opening_debt)


class _Last:
    """The instant that was encoded last: that of a whole batch, mostly."""

    instant: tuple[dt.datetime, int] = (_EPOCH, 0)


def _microseconds(instant: dt.datetime) -> int:
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
