"""The check of anchors: whether history fits them, and whether checkpoints reach every sink."""

from src.common.anchors.queries import AnchorState, anchor_state
from src.common.doctor.checks import (
    Check,
    Finding,
    Needs,
    count,
    duration,
    fail,
    ok,
    sentence,
    skipped,
    warn,
)
from src.common.doctor.context import Context

_LATE_SECONDS = 600.0
"""How late a checkpoint may be."""


def _anchors(context: Context) -> Finding:
    """Whether entries are what was anchored, and whether every sink has the newest checkpoint."""
    settings = context.settings
    with context.looking() as session:
        state = anchor_state(session)
    if state.contradictions:
        return _contradicted(state)
    if not settings.has_anchors:
        return skipped("ANCHOR_SINKS is not set, or ANCHOR_INTERVAL_SECONDS is 0.")
    if state.newest is None or state.age_seconds is None:
        return warn("No checkpoint has been closed yet.", "flashslides anchors close")
    seen = f"Checkpoint {state.newest} is {duration(state.age_seconds)} old"
    if state.age_seconds > settings.anchor_interval_seconds + _LATE_SECONDS:
        return warn(f"{seen}; the next one is late.", "flashslides anchors close")
    for sink in state.sinks:
        if sink.missing:
            said = sentence(sink.explanation or "It has none yet, and begins with the next one")
            lacking = count(sink.missing, "checkpoint")
            return warn(f"{sink.sink} lacks {lacking}: {said}", "flashslides anchors close")
    return ok(f"{seen}; {count(len(state.sinks), 'sink has', 'sinks have')} it.")


def _contradicted(state: AnchorState) -> Finding:
    for sink in state.sinks:
        if sink.contradicts:
            said = sentence(sink.explanation or "")
            return fail(
                f"{sink.sink}: {said} Nothing is appended to it.",
                f"flashslides verify --anchors {sink.sink}",
            )
    return fail(
        f"{sentence(state.contradiction or '')} No checkpoint is closed.",
        "flashslides verify --anchors, with a sink of ANCHOR_SINKS",
    )


CHECKS = (
    Check(
        "anchors",
        _anchors,
        Needs.TABLES,
        "Without anchors outside the database nobody can tell that history was rewritten.",
    ),
)
