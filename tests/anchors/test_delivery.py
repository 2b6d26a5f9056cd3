"""Checkpoints reach every sink, each after the one before; none goes to what contradicts."""

import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select, text

from src.common.anchors.configuration import open_sink
from src.common.anchors.queries import anchor_state
from src.common.anchors.run import run_round
from src.common.anchors.sinks import Sink, SinkUnavailable
from src.common.anchors.standings import someone_waits
from src.common.database import SessionLocal
from src.common.models import AnchorPart, AnchorSink
from src.common.models.anchor_sink import SinkProblem
from src.common.settings import load_settings
from src.local_postgres import ConnectionParameters
from tests.anchors.anchoring import (
    compared,
    file_sink,
    numbers,
    rows,
    run,
    some_users,
    spend,
)
from tests.anchors.conftest import TOKEN
from tests.anchors.made import KEY
from tests.anchors.receiving import receiver
from tests.credits.verification.test_verify import corrupt
from tests.fixtures.databases import Server, forget_engines, point_to

pytestmark = pytest.mark.usefixtures("fresh_database")


class Broken(Exception):
    """The process ends here."""


class CutOff:
    """A file at whose append the process is killed, before or after it is there."""

    def __init__(self, sink: Sink, *, after: bool) -> None:
        self._sink = sink
        self._after = after
        self.name = sink.name
        self.newest = sink.newest
        self.records = sink.records

    def append(self, note: str, leaves: Iterable[bytes]) -> None:
        """End."""
        if self._after:
            self._sink.append(note, leaves)
        raise Broken


def problems() -> list[SinkProblem | None]:
    """What is wrong with each sink, in the order of their names."""
    with SessionLocal() as session:
        return [each.problem for each in anchor_state(session).sinks]


def parts() -> list[int]:
    """Of which checkpoints leaves are kept."""
    with SessionLocal() as session:
        found = select(AnchorPart.number).distinct().order_by(AnchorPart.number)
        return list(session.scalars(found))


def test_every_sink_gets_every_checkpoint(tmp_path: Path, bucket: str) -> None:
    """A file, S3 and an endpoint side by side; leaves are kept no longer than that takes."""
    people = some_users()
    settings = load_settings(anchor_http_token=TOKEN)
    with receiver(TOKEN) as receiving:
        sinks = [
            file_sink(tmp_path / "anchors"),
            open_sink(f"s3://{bucket}", settings),
            open_sink(receiving.url, settings),
        ]
        for _ in range(3):
            spend(*people)
            result = run(*sinks)
            assert [each.problem for each in result.standings] == [None] * 3
        for sink in sinks:
            assert numbers(sink) == [1, 2, 3]
            assert compared(sink).findings == 0
    assert parts() == []


def test_a_sink_that_was_down_catches_up_in_order(tmp_path: Path) -> None:
    """The others do not wait for it, and nothing is skipped."""
    people = some_users()
    settings = load_settings(anchor_http_token=TOKEN)
    with receiver(TOKEN) as receiving:
        file, away = file_sink(tmp_path / "anchors"), open_sink(receiving.url, settings)
        run(file, away)
        receiving.fails = True
        for _ in range(3):
            spend(*people)
            run(file, away)
        assert (numbers(file), len(receiving.kept)) == ([1, 2, 3, 4], 1)
        assert (problems(), parts()) == ([SinkProblem.UNAVAILABLE, None][::-1], [2, 3, 4])
        with SessionLocal() as session:
            assert not someone_waits(session, [file, away])  # later: it was just asked
            session.execute(text("UPDATE anchor_sinks SET next_attempt_at = now()"))
            assert someone_waits(session, [file, away])
        receiving.fails = False
        run(file, away, closes=False)
        assert list(receiving.kept) == [1, 2, 3, 4]
        assert (problems(), parts(), compared(away).findings) == ([None, None], [], 0)


def test_nothing_is_closed_while_no_sink_answers(tmp_path: Path) -> None:
    """One that nobody outside has would anchor nothing."""
    some_users()
    result = run(file_sink(tmp_path / "missing" / "anchors"))
    assert result.checkpoint is not None  # a file that is not there yet can be asked
    assert problems() == [SinkProblem.UNAVAILABLE]
    (tmp_path / "folder").mkdir()
    assert run(file_sink(tmp_path / "folder")).checkpoint is None
    with pytest.raises(SinkUnavailable):
        file_sink(tmp_path / "folder").newest(None)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_between_sinks_repairs_itself(tmp_path: Path, place: int, *, after: bool) -> None:
    """Before and after it is appended, to the first or the second."""
    people = some_users()
    sinks = [file_sink(tmp_path / "a"), file_sink(tmp_path / "b")]
    run(*sinks)
    spend(*people)
    broken: list[Sink] = list(sinks)
    broken[place] = CutOff(sinks[place], after=after)
    with pytest.raises(Broken):
        run(*broken)
    run(*sinks, closes=False)
    assert [numbers(sink) for sink in sinks] == [[1, 2], [1, 2]]
    assert (problems(), parts()) == ([None, None], [])
    assert {compared(sink).findings for sink in sinks} == {0}


def test_a_new_sink_begins_with_all_leaves(tmp_path: Path) -> None:
    """At the next checkpoint; what came before is in the others."""
    people = some_users()
    first, second = file_sink(tmp_path / "a"), file_sink(tmp_path / "b")
    run(first)
    spend(people[0])
    run(first)
    run(first, second, closes=False)
    assert second.newest(None) is None
    run(first, second)
    assert (numbers(first), numbers(second)) == ([1, 2, 3], [3])
    spend(people[1])
    run(first, second)
    assert (compared(first).findings, compared(second).findings) == (0, 0)
    assert compared(second).first_checkpoint == 3


def test_a_new_sink_begins_where_the_first_checkpoint_was_over_nobody(tmp_path: Path) -> None:
    """With all leaves: those of the checkpoints after that one are no longer kept."""
    first, second = file_sink(tmp_path / "a"), file_sink(tmp_path / "b")
    run(first)
    people = some_users()
    run(first)
    spend(*people)
    run(first, second)
    assert (numbers(second), problems()) == ([3], [None, None])
    assert (compared(first).findings, compared(second).findings) == (0, 0)


def test_a_file_that_was_shortened_is_left_as_it_is(tmp_path: Path) -> None:
    """It is said, again and again, and the other sinks go on."""
    people = some_users()
    sinks = [file_sink(tmp_path / "a"), file_sink(tmp_path / "b")]
    run(*sinks)
    whole = (tmp_path / "a").read_bytes()
    spend(*people)
    run(*sinks)
    for left in (whole, b""):
        (tmp_path / "a").write_bytes(left)
        result = run(*sinks)
        assert result.checkpoint is not None
        assert (problems(), (tmp_path / "a").read_bytes()) == ([SinkProblem.SHORTENED, None], left)
        with SessionLocal() as session:
            assert anchor_state(session).contradictions == 1
    assert numbers(sinks[1]) == [1, 2, 3, 4]


def test_a_sink_that_needs_what_is_no_longer_kept_is_told(tmp_path: Path) -> None:
    """It was not used for a while: nothing is skipped, so it is begun anew elsewhere."""
    people = some_users()
    first, second = file_sink(tmp_path / "a"), file_sink(tmp_path / "b")
    run(first, second)
    for _ in range(2):
        spend(*people)
        run(first)
    spend(*people)
    run(first, second)
    assert problems() == [None, SinkProblem.GAP]
    assert (numbers(first), numbers(second)) == ([1, 2, 3, 4], [1])
    assert parts() == []  # nothing is kept for what it can never be given


@pytest_asyncio.fixture
async def yesterday(
    server: Server,
    fresh_database: ConnectionParameters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[list[uuid.UUID]]:
    """A database that was set back: after two checkpoints as it was after the first; its users."""
    people = some_users()
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    await forget_engines()
    backup = f"{fresh_database.database}_backup"[-60:]
    server.execute("CREATE DATABASE {} TEMPLATE {}", backup, fresh_database.database)
    spend(*people)
    run(sink)
    await forget_engines()
    with monkeypatch.context() as patch:
        point_to(patch, replace(fresh_database, database=backup))
        yield people
        await forget_engines()
    server.drop(backup)


def test_nothing_is_appended_over_what_a_database_forgot(
    yesterday: list[uuid.UUID], tmp_path: Path
) -> None:
    """Nor is anything closed, whatever is written meanwhile; it is said which one that is."""
    spend(yesterday[0])
    sink = file_sink(tmp_path / "anchors")
    other = file_sink(tmp_path / "other")
    before = (tmp_path / "anchors").read_bytes()
    result = run(sink, other)
    assert result.checkpoint is None
    assert result.standings[0].problem is SinkProblem.UNKNOWN_CHECKPOINT
    assert "checkpoint 2 of " in (result.standings[0].explanation or "")
    assert (tmp_path / "anchors").read_bytes() == before
    with SessionLocal() as session:
        assert anchor_state(session).contradictions == 1
    report = compared(sink)
    kinds = {(it.kind, it.checkpoint, it.seq, it.user_id) for it in report.first}
    assert ("DATABASE_SET_BACK", 2, None, None) in kinds
    assert {("ENTRY_MISSING", 2, 3, who) for who in yesterday[1:]} <= kinds


def test_a_new_place_takes_over_once_somebody_has_looked(
    yesterday: list[uuid.UUID], tmp_path: Path
) -> None:
    """The old one stays as it is, to show what was lost."""
    spend(yesterday[0])
    new = file_sink(tmp_path / "new")
    assert run(new).checkpoint is not None
    assert (numbers(new), compared(new).findings) == ([2], 0)


def test_a_sink_of_another_database_is_not_appended_to(tmp_path: Path) -> None:
    """Whoever mistypes an address does no harm."""
    some_users()
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    before = (tmp_path / "anchors").read_bytes()
    corrupt("DELETE FROM anchor_parts; DELETE FROM anchor_checkpoints; DELETE FROM anchored_users;"
            "DELETE FROM anchor_sinks", uuid.UUID(int=0))  # fmt: skip
    assert run(sink).checkpoint is None
    assert (problems(), (tmp_path / "anchors").read_bytes()) == (
        [SinkProblem.UNKNOWN_CHECKPOINT],
        before,
    )


def test_a_sink_that_is_down_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    """From a minute up to an hour."""
    some_users()
    (tmp_path / "folder").mkdir()
    sink = file_sink(tmp_path / "folder")
    waits: list[int] = []
    for _ in range(9):
        run(sink)
        waits += [
            int(str(row[0]))
            for row in rows(
                "SELECT round(extract(epoch FROM next_attempt_at - looked_at)) FROM anchor_sinks"
            )
        ]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    with SessionLocal() as session:
        assert session.scalars(select(AnchorSink.failures)).one() == 9


def test_a_sink_that_answers_and_takes_nothing_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    """That it can be read does not begin the waiting anew."""
    some_users()
    sink = file_sink(tmp_path / "missing" / "anchors")
    for _ in range(3):
        run(sink)
    assert rows("SELECT failures, problem FROM anchor_sinks") == [(3, "unavailable")]


def test_an_endpoint_that_contradicts_itself_is_taken_for_down(tmp_path: Path) -> None:
    """It says that it lacks a checkpoint, and refuses it as one that it has."""
    people = some_users()
    settings = load_settings(anchor_http_token=TOKEN)
    with receiver(TOKEN) as receiving:
        file, sink = file_sink(tmp_path / "a"), open_sink(receiving.url, settings)
        run(file, sink)
        receiving.lies = True
        spend(*people)
        run(file, sink)
        assert (numbers(file), problems()) == ([1, 2], [None, SinkProblem.UNAVAILABLE])


def test_a_lost_turn_ends_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that slept too long does nothing more once another has it."""
    some_users()
    monkeypatch.setattr("src.common.anchors.run.RENEWED_AFTER_SECONDS", 0.0)
    steps = run_round(SessionLocal, [file_sink(tmp_path / "a")], KEY, closes=True)
    next(steps)
    corrupt("UPDATE anchor_turns SET holder = gen_random_uuid()", uuid.UUID(int=0))
    with pytest.raises(Exception, match="Another worker took the turn"):
        list(steps)
    assert rows("SELECT 1 FROM anchor_checkpoints") == []
