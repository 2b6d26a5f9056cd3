"""`flashslides notices …` as somebody types it: endpoints, lists, replays, `tail`; the worker."""

import datetime as dt
import json
import re
import uuid
from collections import defaultdict
from types import SimpleNamespace
from typing import get_args

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from src.cli import choices, work
from src.common import database
from src.common.credits.domain.commands import Grant, Spend
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice, NoticeStatus, NoticeType
from src.common.models.user import User
from src.common.notices import endpoints
from src.common.notices.expiring import Rounds
from src.local_postgres import ConnectionParameters
from tests.cli.conftest import RunCommand
from tests.credits.ledger import at, do, someone
from tests.notices.outbox import EVERYTHING, add_endpoint, notices_of


def test_what_is_offered_is_what_there_is() -> None:
    """Help is made without loading the types."""
    assert get_args(choices.NoticeTypeName) == tuple(NoticeType)
    assert get_args(choices.NoticeStatusName) == tuple(NoticeStatus)


def test_an_endpoint_s_life(flashslides: RunCommand) -> None:
    """Made, listed without its secret, changed, rotated, disabled, enabled, deleted."""
    made = flashslides(
        *("notices", "endpoints", "create", "https://example.com/hook"),
        *("--types", "credits.low, credits.granted", "--low-threshold", "20", "--json"),
    ).json
    assert made["types"] == ["credits.granted", "credits.low"]
    assert made["secret"].startswith("whsec_")

    def ask(command: str, *options: str) -> dict[str, object]:
        asked = flashslides(
            *("notices", "endpoints", command, made["endpoint_id"], *options, "--json")
        )
        assert asked.exit_code == 0, asked.err
        assert made["secret"] not in asked.out
        found: dict[str, object] = asked.json
        return found

    listed = flashslides("notices", "endpoints", "list", "--json")
    assert made["secret"] not in listed.out
    assert listed.json == [{name: made[name] for name in listed.json[0]}]
    assert ask("update", "--low-threshold", "30")["low_threshold"] == 30
    assert str(ask("rotate-secret", "--overlap-seconds", "60")["secret"]).startswith("whsec_")
    assert ask("disable")["disabled_reason"] == endpoints.DISABLED_BY_HAND
    assert ask("enable")["status"] == "enabled"
    assert ask("delete", "--yes")["status"] == "deleted"
    empty = flashslides("notices", "endpoints", "list")
    assert empty.out == "There are no endpoints: nobody is told anything.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("endpoints", "create", "http://10.0.0.1", "--types", "credits.low"), "low_threshold"),
        (("endpoints", "create", "https://a:b@example.com"), "url"),
        (("endpoints", "create", "https://example.com", "--types", "credits.lost"), "types"),
        (("replay",), "Name one notice, or choose some"),
        (("replay", "ntc_1", "--type", "credits.low"), "Name one notice, or choose some"),
        (("replay", "ntc_1"), "no such notice"),
        (("replay", "--user", "nobody@example.com"), "No user has the e-mail nobody@example.com"),
        (("list", "--user", "nobody@example.com"), "No user has the e-mail nobody@example.com"),
        (("tail", "--user", "nobody@example.com"), "No user has the e-mail nobody@example.com"),
        (("list", "--cursor", "x"), "cursor"),
    ],
)
def test_what_is_wrong_is_said_by_its_name(
    flashslides: RunCommand, arguments: tuple[str, ...], said: str
) -> None:
    """In one line, with an exit code."""
    refused = flashslides("notices", *arguments)
    assert refused.exit_code != 0
    assert said in refused.err
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("types", "in_short"),
    [
        (list(NoticeType), "  all  "),
        ([it for it in NoticeType if it != NoticeType.SPENT], "  all but credits.spent  "),
        ([NoticeType.SPENT, NoticeType.GRANTED], "  credits.spent, credits.granted  "),
    ],
)
def test_a_line_of_an_endpoint_is_short(
    db: Session, flashslides: RunCommand, types: list[NoticeType], in_short: str
) -> None:
    """What it is told of, or what alone it is not told of."""
    add_endpoint(db, *types)
    db.commit()
    assert in_short in flashslides("notices", "endpoints", "list").out


def test_a_list_shows_what_is_in_the_outbox_and_replays_it(
    db: Session, flashslides: RunCommand
) -> None:
    """By id and by type."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=50)
    do(db, Spend, user_id, amount=5)
    db.execute(
        update(CreditNotice).values(
            status="delivered", next_attempt_at=None, finished_at=func.now()
        )
    )
    db.commit()
    listed = flashslides("notices", "list", "--type", "credits.granted", "--json").json
    [granted] = listed["items"]
    assert granted["data"]["amount"] == 50
    assert granted["status"] == "delivered"
    assert flashslides("notices", "replay", granted["id"], "--json").json == {"replayed": 1}
    again = flashslides("notices", "replay", "--user", str(user_id), "--json").json
    assert again == {"replayed": 1}
    email = db.get_one(User, user_id).email
    for named in (email, str(user_id)):
        found = flashslides("notices", "list", "--user", named, "--json").json
        assert [each["seq"] for each in found["items"]] == [2, 1]
    assert flashslides("notices", "list", "--user", str(uuid.UUID(int=9))).exit_code == 3
    waiting = flashslides("notices", "list", "--status", "pending", "--json").json
    assert [each["seq"] for each in waiting["items"]] == [2, 1]


def test_tail_prints_a_line_for_each_notice(
    db: Session, flashslides: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is committed: for people, and as the very document that is sent."""
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    db.commit()

    def happen(_seconds: float) -> None:
        with SessionLocal.begin() as session:
            do(session, Grant, user_id, amount=50)

    monkeypatch.setattr("src.cli.notices.time", SimpleNamespace(sleep=happen))
    for_people = flashslides("notices", "tail", "--limit", "1", "--interval-seconds", "0.1")
    assert for_people.out.startswith("2020-01-01 00:00:00  credits.granted  ")
    assert f"user_id={user_id}" in for_people.out
    assert re.search(rf"  id=ntc_{user_id.hex}_\d+\n\Z", for_people.out)
    assert "Ctrl-C" in for_people.err
    in_json = flashslides("notices", "tail", "--limit", "2", "--json")
    lines = [json.loads(line) for line in in_json.out.splitlines()]
    stored = {each.seq: each for each in notices_of(db)}
    assert len(lines) == 2
    for line in lines:
        assert line.keys() == {"id", "type", "timestamp", "data"}
        assert line["id"].startswith(f"ntc_{user_id.hex}_")
        assert line["timestamp"] == "2020-01-01T00:00:00Z"
        assert line["data"] == stored[line["data"]["seq"]].data


def test_the_worker_tells_of_expiring_credits_and_drops_old_notices(
    fresh_database: ConnectionParameters,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With everything else that it does."""
    assert fresh_database
    monkeypatch.setattr(work, "EXPIRING", defaultdict[str | None, Rounds](Rounds))
    now = dt.datetime.now(dt.UTC)
    with SessionLocal.begin() as db:
        add_endpoint(db, NoticeType.EXPIRING, NoticeType.GRANTED)
        user_id = someone(db)
        do(db, Grant, user_id, amount=5, expires_at=now + dt.timedelta(hours=5))
        db.execute(
            update(CreditNotice).values(status="delivered", next_attempt_at=None, finished_at=at(0))
        )
    done = run_command("worker", "--once")
    assert done.exit_code == 0, done.err
    with SessionLocal.begin() as db:
        [notice] = notices_of(db)
        assert (notice.type, notice.data["remaining"]) == (NoticeType.EXPIRING, 5)
    database.dispose_db()
