"""A checkpoint: what a signed note says of all users at one instant, in one canonical text.

```
flashslides-anchor 1
ledger 6f6c2c3e-…          which ledger: `credit_ledgers.ledger_id`
number 42                  1, 2, 3 … without a gap
closed_at 2026-12-01T02:22:46.123456Z
users 1000000
entries 4000000            of all users together
root …                     of the tree over all leaves (`tree.py`), in base64
leaves changed 7 …         which leaves come with it: how many, SHA-256 over their octets
previous …                 SHA-256 over the text of the checkpoint before; of the first one `none`
```
"""

import base64
import binascii
import datetime as dt
import hashlib
import re
import uuid
from dataclasses import dataclass

from src.common.exceptions import Inconsistent

_FIRST_LINE = "flashslides-anchor 1"
_HASH_OCTETS = 32
_TEXT = re.compile(
    rf"{_FIRST_LINE}\n"
    r"ledger (?P<ledger>\S+)\nnumber (?P<number>[0-9]{1,18})\nclosed_at (?P<closed_at>\S+)\n"
    r"users (?P<users>[0-9]{1,18})\nentries (?P<entries>[0-9]{1,18})\nroot (?P<root>\S+)\n"
    r"leaves (?P<which>all|changed) (?P<leaves>[0-9]{1,18}) (?P<leaves_hash>\S+)\n"
    r"previous (?P<previous>\S+)\n"
)
_NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All users at one instant."""

    ledger_id: uuid.UUID
    number: int
    """1, 2, 3 … without a gap."""
    closed_at: dt.datetime
    """When the snapshot was taken, by the database's clock, in UTC. Versions say what is in it: an
    entry that was committed later is not, whatever instant it has."""
    users: int
    entries: int
    """Of all users together."""
    root: bytes
    """Of the tree over all users' leaves."""
    is_complete: bool
    """Whether all leaves come with it, or only those that are not as at the checkpoint before."""
    leaves: int
    """How many come with it."""
    leaves_hash: bytes
    """SHA-256 over their octets, in the order of user ids."""
    previous: bytes | None
    """The hash of the checkpoint before; None of the first."""

    @property
    def text(self) -> str:
        """What is signed."""
        which = "all" if self.is_complete else "changed"
        previous = _NONE if self.previous is None else _encoded(self.previous)
        return (
            f"{_FIRST_LINE}\nledger {self.ledger_id}\nnumber {self.number}\n"
            f"closed_at {_instant(self.closed_at)}\nusers {self.users}\nentries {self.entries}\n"
            f"root {_encoded(self.root)}\n"
            f"leaves {which} {self.leaves} {_encoded(self.leaves_hash)}\nprevious {previous}\n"
        )

    @property
    def hash(self) -> bytes:
        """What the next one names it by: SHA-256 over its text, whoever has signed that."""
        return hashlib.sha256(self.text.encode()).digest()


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text.

    Raises:
        Inconsistent: ANCHOR_UNREADABLE, it is none, or not written as `Checkpoint.text` writes it.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise _unreadable()
    try:
        previous = found["previous"]
        checkpoint = Checkpoint(
            ledger_id=uuid.UUID(found["ledger"]),
            number=int(found["number"]),
            closed_at=dt.datetime.fromisoformat(found["closed_at"]).astimezone(dt.UTC),
            users=int(found["users"]),
            entries=int(found["entries"]),
            root=_hash(found["root"]),
            is_complete=found["which"] == "all",
            leaves=int(found["leaves"]),
            leaves_hash=_hash(found["leaves_hash"]),
            previous=None if previous == _NONE else _hash(previous),
        )
    except (ValueError, OverflowError):
        raise _unreadable() from None
    if checkpoint.text != text or checkpoint.number < 1:
        raise _unreadable()
    return checkpoint


def _unreadable() -> Inconsistent:
    return Inconsistent("This is no checkpoint of version 1", "ANCHOR_UNREADABLE")


def _instant(instant: dt.datetime) -> str:
    return instant.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _hash(encoded: str) -> bytes:
    try:
        octets = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(encoded) from error
    if len(octets) != _HASH_OCTETS:
        raise ValueError(encoded)
    return octets
