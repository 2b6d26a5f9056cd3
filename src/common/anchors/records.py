r"""A checkpoint as sinks keep it: a line with the note, then lines with leaves.

```
{"checkpoint": "flashslides-anchor 1\nledger …"}
{"leaves": "…"}              leaves, one after the other, in base64
```

A record is whole once it has as many leaves as its note says. One that a crash cut off is none, and
neither is a line of any other form: whatever comes after begins with a note again.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from src.common.anchors.checkpoints import Checkpoint, parse_checkpoint
from src.common.anchors.leaves import LEAF_OCTETS
from src.common.anchors.notes import text_of
from src.common.exceptions import Inconsistent

LEAVES_A_LINE = 1_024
"""At most; a line is read as a whole."""
LINE_OCTETS_MAX = 131_072

_CHECKPOINT, _LEAVES, _END = b'{"checkpoint": "', b'{"leaves": "', b'"}\n'


class Record(NamedTuple):
    """One checkpoint, as it was read; nothing of it has been verified."""

    note: str
    checkpoint: Checkpoint
    leaves: Iterator[bytes]
    """In pieces; to be read before the next record.

    Raises:
        Inconsistent: ANCHOR_UNREADABLE, they end too soon, or are none.
    """


def lines_of(note: str, leaves: Iterable[bytes]) -> Iterator[bytes]:
    """A record's lines. Each piece of leaves is a line: at most `LEAVES_A_LINE`."""
    yield json.dumps({"checkpoint": note}).encode() + b"\n"
    for piece in leaves:
        yield _LEAVES + base64.b64encode(piece) + _END


def checkpoint_of(note: str) -> Checkpoint:
    """What a note says, whoever has signed it.

    Raises:
        Inconsistent: ANCHOR_SIGNATURE_INVALID or ANCHOR_UNREADABLE.
    """
    return parse_checkpoint(text_of(note))


def note_in(line: bytes) -> str | None:
    """The note in a line; None where there is none."""
    if not (line.startswith(_CHECKPOINT) and line.endswith(_END)):
        return None
    try:
        note = json.loads(line)["checkpoint"]
        checkpoint_of(note)
    except (ValueError, KeyError, TypeError, Inconsistent):
        return None
    return str(note)


def leaves_in(line: bytes) -> int | None:
    """How many leaves a line has, by its length; None where it has none."""
    if not (line.startswith(_LEAVES) and line.endswith(_END)):
        return None
    encoded = line[len(_LEAVES) : -len(_END)]
    padding = len(encoded) - len(encoded.rstrip(b"="))
    leaves, rest = divmod(len(encoded) // 4 * 3 - padding, LEAF_OCTETS)
    return None if rest or not leaves else leaves


def read_record(lines: Iterable[bytes]) -> Record:
    """The record that these lines begin with.

    Raises:
        Inconsistent: ANCHOR_UNREADABLE, the first has no note.
    """
    remaining = iter(lines)
    note = note_in(next(remaining, b""))
    if note is None:
        raise unreadable("it does not begin with a note")
    checkpoint = checkpoint_of(note)
    return Record(note, checkpoint, read_leaves(remaining, checkpoint.leaves))


def read_leaves(lines: Iterator[bytes], expected: int) -> Iterator[bytes]:
    """So many leaves, a piece a line.

    Raises:
        Inconsistent: ANCHOR_UNREADABLE.
    """
    found = 0
    while found < expected:
        line = next(lines, b"")
        count = leaves_in(line)
        if count is None or found + count > expected:
            raise unreadable(f"it has {found} of {expected} leaves")
        try:
            yield base64.b64decode(line[len(_LEAVES) : -len(_END)], validate=True)
        except binascii.Error:
            raise unreadable("a line of leaves is damaged") from None
        found += count


def unreadable(why: str) -> Inconsistent:
    """The error of what is no whole record."""
    return Inconsistent(f"A checkpoint cannot be read: {why}", "ANCHOR_UNREADABLE")
