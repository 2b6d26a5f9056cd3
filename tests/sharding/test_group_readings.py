"""What reads one group after the other passes on what befalls its connection."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.orm import Session

from src.common.anchors.snapshot import groups_to_read, seeing
from src.common.database import get_engine, read_from_database
from src.common.doctor.catalogue import named
from src.common.doctor.checks import Status
from src.common.doctor.context import Context
from src.common.doctor.examination import examine
from src.common.models import User
from src.common.postgres.errors import RetryableDatabaseError
from src.common.postgres.routes import route_of
from src.common.reports.snapshots import begin_report, take_snapshot
from src.local_postgres import ConnectionParameters
from tests.sharding.divided import connect

LOST_IN = "g0002"


@pytest.fixture
def losing(groups: ConnectionParameters) -> Generator[Callable[..., None]]:
    """Ends whoever looks into tables of one group; to be called before each statement."""
    with connect(groups) as administrator:
        administrator.commit()
        administrator.autocommit = True

        def lose(connection: Connection, *_others: object) -> None:
            if route_of(connection) == LOST_IN:
                raw: Any = connection.connection.driver_connection
                administrator.execute(
                    "SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid]
                )

        yield lose


def read_for_a_report(session: Session) -> None:
    """As every report begins."""
    begin_report(session)
    take_snapshot(session)


def read_for_a_checkpoint(session: Session) -> None:
    """As it reads its leaves."""
    for group in groups_to_read(session):
        with seeing(session, group):
            session.scalars(select(User.user_id)).all()


@pytest.mark.parametrize("reading", [read_for_a_report, read_for_a_checkpoint])
def test_a_connection_that_is_lost_within_a_group_is_a_passing_condition(
    losing: Callable[..., None], reading: Callable[[Session], None]
) -> None:
    """So it is answered with 503, tried again, or asked of the primary."""
    engine = get_engine()
    event.listen(engine, "before_cursor_execute", losing)
    try:
        with pytest.raises(RetryableDatabaseError):
            read_from_database(reading)
    finally:
        event.remove(engine, "before_cursor_execute", losing)
    read_from_database(reading)


def test_the_doctor_says_that_it_lost_the_database_within_a_group(
    losing: Callable[..., None],
) -> None:
    """What it found before stays said; whatever it would look at next is out of reach."""
    context = Context()
    try:
        engine = context.session.connection().engine
        context.session.rollback()
        event.listen(engine, "before_cursor_execute", losing)
        lost, next_one = examine(named(["vacuum-lag", "unbookable-users"]), context)
    finally:
        context.close()
    assert lost.status is Status.UNKNOWN
    assert f"{LOST_IN}: The database did not answer this (" in lost.seen
    assert "g0003: Not looked at: the database is out of reach." in lost.seen
    assert next_one.not_looked_at_because == "the database is out of reach"
