"""What the worker and operators look for in the outbox is served by indexes, on enough rows."""

import uuid
from collections.abc import Callable, Generator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models.credit_notice import NoticeType
from src.common.models.notice_triggers import FUNCTIONS
from src.common.notices import expiring, queries, replay, retention
from src.common.notices.queries import NoticeFilter
from src.local_postgres import ConnectionParameters
from tests.credits.books import grant, make_user, purchase, reverse, spend
from tests.credits.ledger import at
from tests.credits.test_triggers_plans import PEOPLE, Plans, looked_at, plans
from tests.models.test_plans import plan_of
from tests.notices.outbox import EVERYTHING, add_endpoint, told

__all__ = ["plans"]
SCANS = {"Seq Scan", "Bitmap Heap Scan"}

_USER = "('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid"
FILL = (
    "SET LOCAL session_replication_role = replica",
    f"""INSERT INTO credit_lots
    (user_id, seq, source, priority, granted, expires_at, remaining, last_seq, is_open)
    SELECT {_USER}, 1, 'promo', 10, 5, timestamptz '2020-01-01Z' + n * interval '1 hour', 5, 1, true
    FROM generate_series(1, 8000) AS n""",  # noqa: S608  ours
    f"""INSERT INTO credit_notices
    (user_id, endpoint_id, type, seq, data, status, finished_at, next_attempt_at)
    SELECT {_USER}, '00000000-0000-4000-8000-000000000001', 'credits.granted', 1, '{{}}',
      CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'delivered' END,
      CASE WHEN n % 100 > 0 THEN now() - n * interval '1 minute' END,
      CASE WHEN n % 100 = 0 THEN now() END
    FROM generate_series(1, 8000) AS n""",  # noqa: S608  ours
    "SET LOCAL session_replication_role = origin",
    "ANALYZE credit_lots, credit_notices",
)


@pytest.fixture
def filled(fresh_database: ConnectionParameters) -> Generator[Session]:
    """A database with thousands of lots and notices, of which few are looked for."""
    assert fresh_database
    with SessionLocal() as db:
        for statement in FILL:
            db.execute(text(statement))
        yield db


def test_expiring_lots_are_a_range_of_their_index(filled: Session) -> None:
    """A step looks at as many as it takes, wherever the round is."""
    endpoint_id = add_endpoint(filled, NoticeType.EXPIRING)
    place = at(3_600 * 24 * 30), uuid.UUID(int=0), 1

    def ask() -> object:
        now = at(3_600 * 24 * 29)
        return expiring.tell(filled, endpoint_id=endpoint_id, after=place, now=now, limit=10)

    lots = plan_of(filled, ask, of=1)
    assert '"Index Name": "ix_credit_lots_due"' in lots
    assert '"Index Name": "uq_credit_notices_expiring"' in lots
    assert "Seq Scan" not in lots.replace("notice_endpoints", "")


ASKED: dict[str, Callable[[Session], object]] = {
    "ix_credit_notices_number": lambda db: queries.list_notices(
        db, NoticeFilter(), limit=20, cursor="4000"
    ),
    "pk_credit_notices": lambda db: queries.list_notices(
        db, NoticeFilter(user_id=uuid.UUID(int=1)), limit=20
    ),
    "ix_credit_notices_finished_at": lambda db: retention.drop_old(db, kept_days=5, limit=10),
}
"""By the index."""


@pytest.mark.parametrize("index", ASKED)
def test_the_outbox_is_read_by_its_indexes(filled: Session, index: str) -> None:
    """However much is in it."""
    place = 1 if index == "ix_credit_notices_finished_at" else -1
    plan = plan_of(filled, lambda: ASKED[index](filled), of=place)
    assert f'"Index Name": "{index}"' in plan


def test_a_replay_goes_on_where_it_was(filled: Session) -> None:
    """By the numbers, step by step."""
    plan = plan_of(
        filled, lambda: replay.replay_matching(filled, NoticeFilter(), after=7_900), of=-1
    )
    assert '"Index Name": "ix_credit_notices_number"' in plan


def test_what_waits_in_vain_is_found_endpoint_by_endpoint(filled: Session) -> None:
    """By a look-up in the index of what waits for each, not by reading all that waits."""
    plan = plan_of(filled, lambda: retention.drop_old(filled, kept_days=3_650), of=2)
    assert "Recursive Union" in plan
    assert '"Index Name": "ix_credit_notices_pending' in plan  # or the one by users


def everything(session: Session, people: list[uuid.UUID]) -> None:
    """Statements of which each kind of entry is told, for these users at once."""
    execute(session, [purchase(session, who, 20) for who in people])
    execute(session, [grant(who, 5) for who in people])
    execute(session, [spend(who, 18) for who in people])
    execute(session, [reverse(who, 3, 9) for who in people])
    execute(session, [spend(who, 16) for who in people])


def test_a_large_statement_after_a_small_one_is_told_with_as_few_looks(
    db: Session, plans: Plans
) -> None:
    """Plans kept from one user's statements read no row of many users' again and again."""
    add_endpoint(db, *EVERYTHING)
    first, *others = [make_user(db).user_id for _ in range(PEOPLE + 1)]
    everything(db, [first])
    plans.told.clear()
    everything(db, others)
    queries = list(plans.of_triggers())
    entries = 5 * PEOPLE
    assert len(told(db)) == 9 * (PEOPLE + 1)
    assert max(looked_at(node) for nodes in queries for node in nodes) <= entries
    scanned = {
        node["Relation Name"] for nodes in queries for node in nodes if node["Node Type"] in SCANS
    }
    assert scanned <= {"notice_endpoints"}


def test_no_trigger_s_look_is_compiled(db: Session) -> None:
    """They read a tiny table whole, which looks dear where that is discouraged (PostgreSQL 15)."""
    found = db.execute(
        text(
            "SELECT proname, 'jit=off' = ANY (proconfig) FROM pg_proc WHERE proname = ANY (:names)"
        ),
        {"names": list(FUNCTIONS)},
    ).all()
    assert dict(found) == dict.fromkeys(FUNCTIONS, True)
