"""The contestants do the same work: the ORM's statements, as sent, against pgbench's."""

import re

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.contestants.document_pattern import update_credits
from benchmarks.contestants.pgbench import STATEMENTS
from benchmarks.seed import user_ids
from src.common.async_database import get_async_engine
from src.common.models.user import User

VALUE = re.compile(r" ?= ?(\$\d+::\w+|:\w+|md5\(\(:number\)::text\)::uuid)")
ROW = re.compile(r"VALUES \(.*\) RETURNING")
ASSIGNMENT = re.compile(r" ?= ?now\(\)")


def shape(statement: str) -> str:
    """The statement without its values: parameters here, pgbench's variables there."""
    line = ROW.sub("VALUES (row) RETURNING", " ".join(statement.split()))
    return ASSIGNMENT.sub(" = now()", VALUE.sub(" = value", line))


async def test_pgbench_executes_the_statements_the_orm_sends(async_db: AsyncSession) -> None:
    """Same statements, columns and order; otherwise the ratio compares different work."""
    user_id = user_ids(1)[0]
    async_db.add(User(user_id=user_id, email="one@example.com", password_hash="x"))
    await async_db.commit()
    sent: list[str] = []

    def note(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    engine = get_async_engine().sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        await update_credits(user_id)
    finally:
        event.remove(engine, "before_cursor_execute", note)

    statements = [one for one in sent if "SAVEPOINT" not in one]  # they are the fixture's
    assert [shape(one) for one in statements] == [shape(one) for one in STATEMENTS[1:-1]]
    assert (STATEMENTS[0], STATEMENTS[-1]) == ("BEGIN", "COMMIT")
