"""What the failover harness calls lost, doubled and a gap, and that it sees each."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy.orm import Session

from benchmarks.calls.webhooks import event_of
from benchmarks.failover import report
from benchmarks.failover.comparison import Comparison, compare, longest_gap
from benchmarks.failover.operations import PURCHASE, Asked, Operation, Record, read_record
from benchmarks.failover.poolers import pooler_setting
from benchmarks.failover.service import Service
from benchmarks.failover.ways import Webhook, command_of
from src.common.credits import ledger
from src.common.database import run_in_database_transaction
from src.common.settings import get_settings
from src.common.stripe.attempts import hand_back
from src.common.stripe.inbox import store_event
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.credits.committed import make_users
from tests.postgres.drivers import open_connection


def spend(user_id: uuid.UUID, key: str, way: str = "sync") -> Operation:
    """A spend of the load's."""
    return Operation(way, "spend", str(user_id), key, 2)


def do(operation: Operation) -> Asked:
    """Do it, and be told."""
    done = run_in_database_transaction(
        lambda session: ledger.execute(session, [command_of(operation)])
    )
    return Asked(operation, 1, 1.0, done[0].seq)


def compared(
    database: ConnectionParameters, asked: Sequence[Asked], before: Sequence[Asked] = ()
) -> Comparison:
    """The comparison with the database as it is."""
    with open_connection(database) as books:
        return compare(asked, before, books)


@pytest.fixture
def user_id(fresh_database: ConnectionParameters) -> uuid.UUID:
    """A user with credits that were there before the load."""
    [made] = make_users(100)
    with open_connection(fresh_database) as admin:
        admin.execute("SET session_replication_role = replica")
        admin.execute("UPDATE credit_entries SET idempotency_key = 'seed:' || idempotency_key")
    return made


def test_what_was_acknowledged_and_is_there_is_neither_lost_nor_doubled(
    user_id: uuid.UUID, fresh_database: ConnectionParameters
) -> None:
    """Nor what was done and never acknowledged: whoever asked knows that it may be there."""
    told = do(spend(user_id, "told"))
    untold = Asked(do(spend(user_id, "untold")).operation, 3, None)
    never = Asked(spend(user_id, "never"), 3, None)
    found = compared(fresh_database, [told, untold, never])
    assert (found.acknowledged, found.lost, found.doubled, found.unanswered) == (1, [], [], 2)


Change = Callable[[Asked], Asked | None]


def under_another_key(told: Asked) -> Asked:
    """Acknowledged, and never booked; what is booked nobody asked for."""
    operation = spend(uuid.UUID(told.operation.user_id), "of nobody")
    return Asked(operation, 1, 1.0, told.seq)


def under_another_number(told: Asked) -> Asked:
    """Acknowledged, lost, and booked by somebody's later try."""
    return Asked(told.operation, 1, 1.0, 99)


def never_asked(_told: Asked) -> None:
    """Booked though nobody asked."""


@pytest.mark.parametrize(
    ("change", "lost", "doubled"),
    [(under_another_key, 1, 1), (under_another_number, 1, 0), (never_asked, 0, 1)],
)
def test_a_difference_is_seen(
    change: Change,
    lost: int,
    doubled: int,
    user_id: uuid.UUID,
    fresh_database: ConnectionParameters,
) -> None:
    """In this record and in those before it."""
    changed = change(do(spend(user_id, "told")))
    asked = [] if changed is None else [changed]
    for found in (compared(fresh_database, asked), compared(fresh_database, [], asked)):
        assert (len(found.lost), len(found.doubled)) == (lost, doubled)


def test_a_purchase_is_there_with_its_transaction(
    user_id: uuid.UUID, fresh_database: ConnectionParameters
) -> None:
    """An acknowledged one that is in neither is lost."""
    asked = Asked(Operation("orm", PURCHASE, str(user_id), "cs_test_1", 500), 1, 1.0)
    assert compared(fresh_database, [asked]).lost == ["orm purchase cs_test_1"]


@pytest.mark.parametrize("status", ["processed", "already_processed", "accepted"])
def test_a_webhook_that_is_not_sent_again_is_acknowledged(status: str) -> None:
    """An event that is only accepted too: Stripe has its 2xx, and the worker credits it."""
    assert asyncio.run(_sent(status)) is None


@pytest.mark.parametrize("status", ["ignored", "unmatched"])
def test_a_webhook_that_credits_nothing_is_refused(status: str) -> None:
    """This load's payments are all to be credited."""
    with pytest.raises(RuntimeError, match=status):
        asyncio.run(_sent(status))


async def _sent(status: str) -> int | None:
    answer = httpx.MockTransport(lambda _request: httpx.Response(200, json={"status": status}))
    async with httpx.AsyncClient(transport=answer, base_url="http://api") as client:
        asked = Operation("webhook", PURCHASE, str(uuid.uuid4()), "cs_test_1", 500)
        return await Webhook(client).ask(asked)


def test_an_event_that_was_only_accepted_is_settled_before_books_are_compared(
    user_id: uuid.UUID, fresh_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left unsettled it would be acknowledged and lost."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_nobody_is_asked")
    get_settings.cache_clear()
    body = event_of(user_id, "accepted", get_settings().env).encode()
    event = parse_event(body)

    def accept(session: Session) -> None:
        store_event(session, event, body)
        hand_back(session, livemode=event.livemode, event_id=event.id, needs_lookup=None)

    run_in_database_transaction(accept)
    operation = Operation("webhook", PURCHASE, str(user_id), "cs_test_accepted", 500)
    asked = Asked(operation, 1, 1.0)
    assert compared(fresh_database, [asked]).lost == ["webhook purchase cs_test_accepted"]
    Service.settle_accepted()
    assert compared(fresh_database, [asked]).lost == []


def test_a_gap_is_one_way_s() -> None:
    """That others were served meanwhile does not shorten it."""
    who = uuid.uuid4()
    instants = {"http": [1.0, 2.0, 9.0], "sync": [1.0, 3.0, 5.0, 7.0, 9.0]}
    acknowledged = [
        Asked(spend(who, f"{way}{instant}", way), 1, instant)
        for way, moments in instants.items()
        for instant in moments
    ]
    assert longest_gap(acknowledged) == (7.0, "http")
    assert longest_gap([]) == (0.0, "")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Up to its last whole line."""
    written = tmp_path / "record"
    operation = spend(uuid.uuid4(), "key")
    with written.open("w") as file:
        record = Record(file)
        record.note(operation, 2, 7)
        record.give_up(operation, 3, "RuntimeError")
        file.write('{"operation": {"way"')
    first, second = read_record(written)
    assert (first.operation, first.tries, first.seq) == (operation, 2, 7)
    assert (second.acknowledged_at, second.refusal) == (None, "RuntimeError")


def test_whatever_is_not_as_it_has_to_be_fails_the_run(
    user_id: uuid.UUID, fresh_database: ConnectionParameters
) -> None:
    """Lost, doubled, refused for good, too few, too long: each has its sentence."""
    assert user_id
    first = Asked(spend(user_id, "1"), 1, 1.0)
    refused = Asked(spend(user_id, "2"), 1, None, None, "HTTP 409")
    last = Asked(spend(user_id, "3"), 1, 9.0)
    found = compared(fresh_database, [first, refused, last])
    result = report.Result("an event", found, 5.0, 3)
    assert result.failures(judges_gaps=False) == result.failures(judges_gaps=True)[:-1]
    assert [each.split(":")[0] for each in result.failures(judges_gaps=True)] == [
        "2 lost",
        "1 refused",
        "only 2 acknowledged of 3",
        "a gap of 8.0 s (sync), beyond 5",
    ]


def test_a_newer_pgbouncer_is_trusted_with_prepared_statements() -> None:
    """From 1.21 on."""
    versions = ["PgBouncer 1.18.0", "PgBouncer 1.21.0", "PgBouncer 1.25.2"]
    assert [pooler_setting(each) for each in versions] == ["transaction", "prepared", "prepared"]
