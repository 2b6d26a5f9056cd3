"""What does not fit when anchors are compared with a database."""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum

FIRST_MAX = 20
"""How many findings are kept; the others are counted."""


class FindingKind(StrEnum):
    """What a finding is."""

    ANCHOR_UNREADABLE = "ANCHOR_UNREADABLE"
    """A checkpoint is damaged; those after it are not read."""
    ANCHOR_SIGNATURE_INVALID = "ANCHOR_SIGNATURE_INVALID"
    """Nobody whose signatures are believed has signed it; those after it are not read."""
    ANCHOR_OF_ANOTHER_LEDGER = "ANCHOR_OF_ANOTHER_LEDGER"
    """It is of another ledger than the database's; those after it are not read."""
    ANCHOR_CHAIN_BROKEN = "ANCHOR_CHAIN_BROKEN"
    """It does not follow the one before; those after it are not read."""
    ANCHOR_LEAVES_DO_NOT_FIT = "ANCHOR_LEAVES_DO_NOT_FIT"
    """What came with it does not make its root: somebody changed `anchored_users`."""
    ANCHOR_IS_ANOTHER = "ANCHOR_IS_ANOTHER"
    """The database closed another checkpoint of that number."""
    ANCHORS_SHORTENED = "ANCHORS_SHORTENED"
    """There were more checkpoints than there are."""
    ANCHORS_MISSING = "ANCHORS_MISSING"
    """There is none at all, so that nothing was compared."""
    DATABASE_SET_BACK = "DATABASE_SET_BACK"
    """There are checkpoints that the database does not know any more."""
    USER_MISSING = "USER_MISSING"
    ENTRY_MISSING = "ENTRY_MISSING"
    ENTRY_CHANGED = "ENTRY_CHANGED"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that does not fit."""

    checkpoint: int | None
    """The first that it does not fit."""
    kind: FindingKind
    user_id: uuid.UUID | None = None
    seq: int | None = None
    """The first entry that is not what it was, or is missing."""
    explanation: str


@dataclass(kw_only=True)
class AnchorReport:
    """What was compared, and what does not fit."""

    checkpoints: int = 0
    """Read and found to be signed, each after the one before."""
    first_checkpoint: int | None = None
    last_checkpoint: int | None = None
    newest_in_database: int | None = None
    users: int = 0
    """Compared with what the checkpoints say of them."""
    findings: int = 0
    first: list[Finding] = field(default_factory=list[Finding])
    """Those of the lowest checkpoints."""

    def add(self, finding: Finding) -> None:
        """Count one."""
        self.findings += 1
        self.first = sorted([*self.first, finding], key=_order)[:FIRST_MAX]


def _order(finding: Finding) -> tuple[int, bytes, int]:
    """Where a finding stands."""
    who = finding.user_id.bytes if finding.user_id else b""
    return finding.checkpoint or 0, who, finding.seq or 0
