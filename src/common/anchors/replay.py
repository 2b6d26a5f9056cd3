"""Reads checkpoints one after the other: signatures, their chain, and every root made again."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from src.common.anchors.expectations import Expectations
from src.common.anchors.findings import AnchorReport, Finding, FindingKind
from src.common.anchors.kept_tree import KeptTree
from src.common.anchors.notes import PublicKey, verified_text
from src.common.anchors.records import Record
from src.common.anchors.sinks import Sink
from src.common.exceptions import Inconsistent

if TYPE_CHECKING:
    from src.common.anchors.checkpoints import Checkpoint


class Replay:
    """All checkpoints of a sink, from the first on."""

    def __init__(
        self, keys: Sequence[PublicKey], ledger_id: bytes, expectations: Expectations
    ) -> None:
        """Believe these keys, expect this ledger's id, and note what users are said to have had."""
        self._keys = keys
        self._ledger_id = ledger_id
        self._expectations = expectations
        self._tree = KeptTree()
        self._is_sound = True
        self._before: Checkpoint | None = None
        self.hashes: dict[int, bytes] = {}
        """Of each checkpoint that was read, by its number."""

    def read(self, sink: Sink, report: AnchorReport) -> Iterator[None]:
        """Read them, up to the first that cannot be believed; yields after each.

        Raises:
            SinkUnavailable: the sink cannot be read.
        """
        number = 1
        try:
            for record in sink.records():
                number = record.checkpoint.number
                finding = self._refusal(record)
                if finding is not None:
                    report.add(finding)
                    return
                self._take(record, report)
                number += 1
                yield
        except Inconsistent as error:
            self._expectations.forget(number)
            report.add(
                Finding(
                    checkpoint=number,
                    kind=FindingKind.ANCHOR_UNREADABLE,
                    explanation=error.message,
                )
            )

    def _refusal(self, record: Record) -> Finding | None:
        """Why nothing of a checkpoint, or of those after it, is to be believed."""
        checkpoint, before = record.checkpoint, self._before
        kind = explanation = None
        try:
            verified_text(record.note, self._keys)
        except Inconsistent as error:
            kind, explanation = FindingKind.ANCHOR_SIGNATURE_INVALID, error.message
        else:
            if checkpoint.ledger_id.bytes != self._ledger_id:
                kind = FindingKind.ANCHOR_OF_ANOTHER_LEDGER
                ours = self._ledger_id.hex() or "that of no ledger: credit_ledgers is empty"
                explanation = (
                    f"It is of ledger {checkpoint.ledger_id.hex}; the database's is {ours}."
                )
            elif before is None:
                if not checkpoint.is_complete:
                    kind = FindingKind.ANCHOR_CHAIN_BROKEN
                    explanation = "The first one has not all leaves: those before it are missing."
            elif checkpoint.number != before.number + 1 or checkpoint.previous != before.hash:
                kind = FindingKind.ANCHOR_CHAIN_BROKEN
                explanation = f"It does not follow checkpoint {before.number}, which comes before."
        if kind is None or explanation is None:
            return None
        return Finding(checkpoint=checkpoint.number, kind=kind, explanation=explanation)

    def _take(self, record: Record, report: AnchorReport) -> None:
        checkpoint = record.checkpoint
        if checkpoint.is_complete:
            self._tree, self._is_sound = KeptTree(), True
        hashed = hashlib.sha256()
        for piece in record.leaves:
            hashed.update(piece)
            self._tree.change(piece)
            self._expectations.add(checkpoint.number, piece)
        if hashed.digest() != checkpoint.leaves_hash:
            # Whoever damaged them could not sign: nothing of them is believed.
            raise Inconsistent("Its leaves are not those that were signed", "ANCHOR_UNREADABLE")
        found = self._tree.root, self._tree.users, self._tree.entries
        if self._is_sound and found != (checkpoint.root, checkpoint.users, checkpoint.entries):
            self._is_sound = False
            report.add(
                Finding(
                    checkpoint=checkpoint.number,
                    kind=FindingKind.ANCHOR_LEAVES_DO_NOT_FIT,
                    explanation="The leaves that came so far make another root than it has.",
                )
            )
        self._before = checkpoint
        self.hashes[checkpoint.number] = checkpoint.hash
        report.checkpoints += 1
        report.first_checkpoint = report.first_checkpoint or checkpoint.number
        report.last_checkpoint = checkpoint.number
