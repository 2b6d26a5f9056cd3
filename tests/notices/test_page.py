"""`docs/how-to/tell-others-what-happens.md`: its commands as written, its tables as it is."""

import json
import re
import shlex
import uuid
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Grant, Spend
from src.common.database import SessionLocal
from src.common.models.credit_notice import CreditNotice, NoticeType
from src.common.notices.ids import notice_id, parse_notice_id
from tests.cli.conftest import RunCommand
from tests.credits.ledger import do, someone
from tests.notices.outbox import EVERYTHING, add_endpoint, notices_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "tell-others-what-happens.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
TABLE = dict(re.findall(r"^\| `([a-z._]+)` \| .*? \| (.*?) \|$", TEXT, re.MULTILINE))


def test_the_page_s_commands_do_what_it_says(db: Session, flashslides: RunCommand) -> None:
    """From the first endpoint to its end; in between something happens, and is delivered."""
    names = {"$ENDPOINT": "", "$NOTICE": ""}
    user_id = someone(db)
    db.commit()
    for line in (line for block in BLOCKS for line in block.splitlines()):
        words = [names.get(word, word) for word in shlex.split(line)[1:]]
        done = flashslides(*words, "--json")
        assert done.exit_code == 0, done.err
        if "create" in words:
            names["$ENDPOINT"] = done.json["endpoint_id"]
            happen(user_id)
            names["$NOTICE"] = deliver(db)
        elif "replay" in words:
            assert done.json["replayed"] == 1
            deliver(db)
        elif "--since" in words:
            assert done.json["items"] == []
    assert flashslides("notices", "endpoints", "list", "--json").json == []


def happen(user_id: uuid.UUID) -> None:
    """Two notices."""
    with SessionLocal.begin() as session:
        do(session, Grant, user_id, amount=50)
        do(session, Spend, user_id, amount=50)


def deliver(db: Session) -> str:
    """All that waits, of which one happened far in the future; the id of another."""
    db.execute(
        update(CreditNotice).values(
            status="delivered", next_attempt_at=None, finished_at=func.now()
        )
    )
    later = select(func.max(CreditNotice.number)).scalar_subquery()
    db.execute(
        update(CreditNotice)
        .where(CreditNotice.number == later)
        .values(created_at="2031-01-01T00:00:00Z")
    )
    db.commit()
    first = notices_of(db)[0]
    return notice_id(first.user_id, first.number)


def test_the_table_has_every_type_and_its_fields(db: Session) -> None:
    """As the triggers write them; those that take a lot to come about are asserted elsewhere."""
    assert TABLE.keys() == set(NoticeType)
    add_endpoint(db, *EVERYTHING)
    user_id = someone(db)
    do(db, Grant, user_id, amount=50)
    do(db, Spend, user_id, amount=50)
    for notice in notices_of(db):
        fields = set(re.findall(r"`(\w+)`", TABLE[notice.type]))
        assert notice.data.keys() == {"user_id", *fields}


def test_the_example_is_one() -> None:
    """A line of `tail --json`."""
    [example] = re.findall(r"^```json\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    document = json.loads(example)
    assert document.keys() == {"id", "type", "timestamp", "data"}
    user_id, _ = parse_notice_id(document["id"]) or (None, None)
    assert str(user_id) == document["data"]["user_id"]
    fields = set(re.findall(r"`(\w+)`", TABLE[document["type"]]))
    assert document["data"].keys() == {"user_id", *fields}
