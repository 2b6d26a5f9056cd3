"""Brings checkpoints to a sink, each after the one before, until it has them all."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

from src.common.anchors.leaves import LEAF_OCTETS
from src.common.anchors.records import checkpoint_of
from src.common.anchors.sinks import Sink, SinkTaken, SinkUnavailable
from src.common.anchors.standings import Standing, look_at, note_standing
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.anchor_checkpoint import AnchorCheckpoint
from src.common.models.anchor_part import AnchorPart
from src.common.models.anchor_sink import SinkProblem
from src.common.models.anchored_user import AnchoredUser


def bring(
    sessions: sessionmaker[Session], sink: Sink, standing: Standing
) -> Generator[int, None, Standing]:
    """Append to a sink whatever it lacks, in order; yields each number once it is there.

    How the sink stands afterwards is noted, and returned. An empty one begins at the newest
    checkpoint that all leaves came with. To one with a problem nothing is appended.
    """
    if standing.problem is not None:
        return standing
    while standing.problem is None:
        with sessions() as session:
            following = _following(session, standing.number)
            if following is None:
                break
            note, is_whole = following.note, _has_parts(session, following)
        if not is_whole:
            standing = replace(
                standing,
                problem=SinkProblem.GAP,
                explanation=f"The leaves of checkpoint {following.number} are no longer kept.",
            )
            break
        try:
            sink.append(note, _parts(sessions, following.number))
        except SinkTaken as taken:
            found = look_at(sessions, sink)  # of another worker, or of nobody we know
            standing = _away(standing, taken) if found == standing else found
        except SinkUnavailable as error:
            standing = _away(standing, error)
        else:
            standing = replace(standing, number=following.number)
            with sessions.begin() as session:
                note_standing(session, standing)
        yield following.number
    with sessions.begin() as session:
        note_standing(session, standing)
    return standing


def _away(standing: Standing, error: ExceptionWithErrorType) -> Standing:
    return replace(standing, problem=SinkProblem.UNAVAILABLE, explanation=error.message)


def can_begin(session: Session) -> bool:
    """Whether there is a checkpoint at which an empty sink can begin."""
    return _following(session, None) is not None


def forget_parts(session: Session, standings: Sequence[Standing]) -> None:
    """Delete the leaves that no sink needs any more."""
    start = _following(session, None)
    needed = [
        (start.number if start else 0) if standing.number is None else standing.number + 1
        for standing in standings
        if standing.problem is not SinkProblem.GAP  # which cannot be closed any more
    ]
    session.execute(
        delete(AnchorPart)
        .where(AnchorPart.number < min(needed, default=0))
        .execution_options(synchronize_session=False)
    )


def _following(session: Session, number: int | None) -> AnchorCheckpoint | None:
    """The checkpoint after this one; of a sink that has none, the one at which it begins."""
    closed = select(AnchorCheckpoint)
    if number is not None:
        return session.scalars(closed.where(AnchorCheckpoint.number == number + 1)).one_or_none()
    complete = closed.where(AnchorCheckpoint.is_complete)
    newest = session.scalars(complete.order_by(AnchorCheckpoint.number.desc()).limit(1))
    found = newest.one_or_none()
    return found if found is not None and _keeps_all_since(session, found) else None


def _keeps_all_since(session: Session, complete: AnchorCheckpoint) -> bool:
    """Whether the leaves of a complete checkpoint, and so of all after it, are still kept.

    One over nobody has none that could be missing: then nobody may have come since.
    """
    if checkpoint_of(complete.note).leaves:
        return _has_parts(session, complete)
    return session.scalars(select(AnchoredUser.user_id).limit(1)).one_or_none() is None


def _has_parts(session: Session, checkpoint: AnchorCheckpoint) -> bool:
    mine = AnchorPart.number == checkpoint.number
    octets = select(func.coalesce(func.sum(func.octet_length(AnchorPart.leaves)), 0)).where(mine)
    expected = checkpoint_of(checkpoint.note).leaves * LEAF_OCTETS
    return int(session.scalars(octets).one()) == expected


def _parts(sessions: sessionmaker[Session], number: int) -> Iterator[bytes]:
    """A checkpoint's leaves, a part at a time.

    Each is read in a database transaction of its own, so that a slow sink holds none open.
    """
    part = 0
    while True:
        with sessions() as session:
            leaves = session.scalars(
                select(AnchorPart.leaves).where(
                    AnchorPart.number == number, AnchorPart.part == part
                )
            ).one_or_none()
        if leaves is None:
            return
        yield leaves
        part += 1
