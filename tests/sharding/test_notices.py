"""Notices of everybody, over groups that number their own: listed, watched, sent again."""

import json
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from src.cli import notices
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.notices.everybodys import read_places
from src.common.notices.queries import Tail
from src.common.postgres.routes import current_route, routed_to_schema
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.common.sharding.creation import create_groups
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.credits.books import grant
from tests.notices.outbox import add_endpoint
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

__all__ = ["data_folder", "run_command"]


@pytest.fixture
def people(groups: ConnectionParameters) -> list[uuid.UUID]:
    """Users of three groups, and an endpoint that is told what they are given."""
    assert groups
    with SessionLocal.begin() as session:
        add_endpoint(session, NoticeType.GRANTED)
    return [user_of(group) for group in GROUPS[:3]]


def give(user_ids: Sequence[uuid.UUID]) -> list[str]:
    """A credit each, one after the other; their ids, in that order."""
    for user_id in user_ids:
        with routed_to(user_id), SessionLocal.begin() as session:
            execute(session, [grant(user_id, 1)])
    return [str(each) for each in user_ids]


def whose(items: Sequence[dict[str, Any]]) -> list[str]:
    """Of whom notices are."""
    return [each["user_id"] for each in items]


def test_pages_have_the_newest_of_all_groups_first(
    people: list[uuid.UUID], run_command: RunCommand
) -> None:
    """Each notice once, whatever is written meanwhile, and however uneven the groups are."""
    ada, bob, cleo = people
    given = give([ada, ada, bob, ada, cleo, bob, ada, ada])
    shown: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        options = () if cursor is None else ("--cursor", cursor)
        page = run_command("notices", "list", "--limit", "3", *options, "--json").json
        shown += whose(page["items"])
        cursor, pages = page["next_cursor"], pages + 1
        give([cleo, bob])
    assert shown == given[::-1]
    assert pages == 3
    of_bob = run_command("notices", "list", "--user", str(bob), "--json").json
    assert set(whose(of_bob["items"])) == {str(bob)}
    assert run_command("notices", "list", "--cursor", "g0001:x").exit_code == 2
    assert read_places("g0001:7,g0002:1") == {"g0001": "7", "g0002": "1"}


def test_those_of_every_group_are_sent_again(
    people: list[uuid.UUID], run_command: RunCommand
) -> None:
    """What the options choose, in each group."""
    give([*people, people[0]])
    sent = {"status": "delivered", "next_attempt_at": None, "finished_at": CreditNotice.created_at}
    for group in GROUPS[:3]:
        with routed_to_schema(group), SessionLocal.begin() as session:
            session.execute(update(CreditNotice).values(sent))
    again = run_command("notices", "replay", "--type", "credits.granted", "--json")
    assert again.json == {"replayed": 4}
    items = run_command("notices", "list", "--status", "pending", "--json").json["items"]
    assert len(items) == 4


def test_what_is_committed_in_any_group_is_watched(
    people: list[uuid.UUID], run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line each, in the order in which it happened; not what was there before."""
    give(people)
    given: list[str] = []
    look = Tail.look

    def look_after_all(self: Tail, session: Any) -> Sequence[CreditNotice]:
        came = look(self, session)
        if current_route() == GROUPS[-1] and not given:
            given.extend(give([people[2], people[0], people[1]]))
        return came

    monkeypatch.setattr(Tail, "look", look_after_all)
    watched = run_command("notices", "tail", "--limit", "3", "--json")
    lines = [json.loads(line) for line in watched.out.splitlines()]
    assert [each["data"]["user_id"] for each in lines] == given


def test_a_group_that_is_made_meanwhile_is_watched_from_its_first_notice(
    people: list[uuid.UUID], run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was written there before anybody looked at it."""
    give(people)
    given: list[str] = []

    def make_one(_seconds: float) -> None:
        assert not given
        [made] = create_groups(get_settings(), 1)
        assert made not in GROUPS
        newcomer = user_of(made)
        given.extend(give([newcomer, people[0], newcomer]))

    monkeypatch.setattr(notices, "time", SimpleNamespace(sleep=make_one))
    watched = run_command("notices", "tail", "--limit", "3", "--json")
    assert watched.exit_code == 0, watched.err
    lines = [json.loads(line) for line in watched.out.splitlines()]
    assert [each["data"]["user_id"] for each in lines] == given
