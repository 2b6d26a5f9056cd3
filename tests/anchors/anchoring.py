"""A database that is anchored: closing checkpoints, comparing with them, and forging."""

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import text

from src.common.anchors.comparison import AnchorVerification
from src.common.anchors.configuration import open_sink
from src.common.anchors.findings import AnchorReport
from src.common.anchors.notes import PublicKey
from src.common.anchors.run import Round, run_round
from src.common.anchors.sinks import Sink
from src.common.credits.domain.commands import Grant, Spend
from src.common.credits.verification.chained import recompute_chain
from src.common.database import SessionLocal
from src.common.settings import load_settings
from tests.anchors.made import KEY
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt


def file_sink(path: Path) -> Sink:
    """An append-only file."""
    return open_sink(str(path), load_settings())


def run(*sinks: Sink, closes: bool = True) -> Round:
    """One round, to its end."""
    steps = run_round(SessionLocal, sinks, KEY, closes=closes)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: Round = ended.value
            return result


def compared(
    sink: Sink,
    keys: Sequence[PublicKey] = (KEY.public,),
    user_ids: Sequence[uuid.UUID] | None = None,
) -> AnchorReport:
    """What a sink's checkpoints say of the database."""
    verification = AnchorVerification(SessionLocal, sink, keys)
    for _ in verification.run(user_ids):
        pass
    return verification.report


def numbers(sink: Sink) -> list[int]:
    """Which checkpoints a sink has."""
    return [record.checkpoint.number for record in sink.records()]


def some_users(count: int = 3) -> list[uuid.UUID]:
    """Committed users with two entries each, in the order of their ids."""
    with SessionLocal.begin() as session:
        people = sorted(someone(session) for _ in range(count))
        for user_id in people:
            do(session, Grant, user_id, amount=100)
            do(session, Spend, user_id, amount=30)
    return people


def spend(*people: uuid.UUID, amount: int = 1) -> None:
    """Each of them spends, in a database transaction of their own."""
    for user_id in people:
        with SessionLocal.begin() as session:
            do(session, Spend, user_id, amount=amount)


def make_hashes_anew(user_id: uuid.UUID) -> None:
    """As somebody would who knows how they are made: the whole chain fits again."""
    with SessionLocal() as session:
        links = list(recompute_chain(session, user_id))
    for seq, stored, computed in links:
        if stored != computed:
            corrupt(
                f"UPDATE credit_entries SET entry_hash = '\\x{computed.hex()}'"  # noqa: S608  ours
                f" WHERE user_id = :user_id AND seq = {seq}",
                user_id,
            )


def rows(statement: str) -> list[tuple[object, ...]]:
    """What a statement finds."""
    with SessionLocal() as session:
        return [tuple(row) for row in session.execute(text(statement))]


def drain(steps: Iterable[object]) -> None:
    """Do all steps."""
    for _ in steps:
        pass
