"""Whoever writes to a group and to `public` dies at any statement: the two agree, always.

What is written to both is written in one database transaction. So the directory, the groups' tables
and the inbox say the same afterwards, and what is repeated takes effect once.
"""

import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError

from src.common.accounts import operations as accounts
from src.common.database import SessionLocal, dispose_db, get_engine, run_in_database_transaction
from src.common.models import Transaction, User
from src.common.postgres.engines import database_url
from src.common.postgres.errors import RetryableDatabaseError
from src.common.routing import routed_to, routed_to_sign_up
from src.common.settings import get_settings
from src.common.sharding.directory_check import directory_differences
from src.local_postgres import ConnectionParameters
from tests.credits.crashes import deaf_proxy, interrupted
from tests.fixtures.databases import point_to
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of
from tests.sharding.service import check_all_books, count_entries, purchases_of
from tests.stripe.loop import Loop, start_loop
from tests.stripe.test_crashes import the_one, wait_out_leases

_NOTED = "SELECT (SELECT count(*) FROM users_directory), (SELECT count(*) FROM payments_directory)"
_FOUND = """
SELECT (SELECT count(*) FROM {0}.users), (SELECT count(DISTINCT name) FROM (
    SELECT unnest(ARRAY[stripe_session_id, payment_intent_id, invoice_id]) FROM {0}.transactions
    UNION ALL SELECT stripe_session_id FROM {0}.checkout_orders) AS named (name)),
  ARRAY(SELECT stripe_session_id FROM {0}.transactions)"""
_EVENTS = "SELECT object_id, status FROM stripe_events WHERE type = 'checkout.session.completed'"


class _Killed(BaseException):
    """Nothing of ours may catch it; the database undoes what was not committed."""


def kill(_connection: Connection) -> None:
    """End whoever is about to send this statement."""
    raise _Killed


@pytest.fixture
def observer(groups: ConnectionParameters) -> Generator[Connection]:
    """A connection of somebody who lives on."""
    assert groups
    engine = create_engine(database_url(get_settings()), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@dataclass
class Write:
    """Something that somebody does, and does again when nobody has answered."""

    act: Callable[[], object]
    took_effect: Callable[[], bool]
    """Whether it did, just once, and nothing else did."""


def in_group(name: str, statement: str) -> int:
    """A number of one group's."""
    with get_engine().connect() as connection:
        return int(connection.scalar(text(statement.replace("@.", f"{name}."))) or 0)


def sign_up(_loop: Loop) -> Write:
    """At first sight, by a token."""
    who = accounts.Identity(user_id=uuid.uuid4(), email=f"{uuid.uuid4().hex}@example.com")

    def act() -> None:
        with routed_to_sign_up(who.user_id):
            run_in_database_transaction(lambda session: accounts.sign_in(session, who))

    count = f"SELECT count(*) FROM @.users WHERE user_id = '{who.user_id}'"  # noqa: S608
    return Write(act, lambda: sum(in_group(group, count) for group in GROUPS) == 1)


def purchase(_loop: Loop) -> Write:
    """As the document does it, with objects."""
    user_id = user_of("g0002")
    bought = {"stripe_session_id": f"cs_{user_id}", "amount_paid_cents": 500, "credits_added": 500}

    def act() -> None:
        with routed_to(user_id), SessionLocal() as session:
            try:
                session.get_one(User, user_id).credits_balance += 500
                session.add(Transaction(user_id=user_id, **bought))
                session.commit()
            except IntegrityError:
                session.rollback()

    return Write(act, lambda: (purchases_of(user_id), count_entries(user_id)) == (1, 1))


def order(loop: Loop) -> Write:
    """A pay page: an order, and Stripe's session in the directory."""
    user_id = user_of("g0003")

    def act() -> None:
        with routed_to(user_id):
            loop.buy(user_id)

    count = (
        "SELECT count(*) FROM @.checkout_orders JOIN payments_directory"  # noqa: S608
        " ON object_id = stripe_session_id"
        f" WHERE checkout_orders.user_id = '{user_id}'"
    )
    return Write(act, lambda: in_group("g0003", count) == 1)


def event(loop: Loop) -> Write:
    """Stripe's, of a payment: from the inbox to its user's group."""
    user_id = user_of("g0004")
    with routed_to(user_id):
        loop.offline.pay(loop.session_of(loop.buy(user_id)))
    delivery = the_one(loop, "checkout.session.completed")

    def act() -> None:
        with SessionLocal.begin() as session:
            wait_out_leases(session)
        loop.settle_due()
        loop.deliver([delivery])

    return Write(act, lambda: (purchases_of(user_id), count_entries(user_id)) == (1, 1))


def erasure(_loop: Loop) -> Write:
    """Of somebody with an e-mail and a customer, whom the directory has by both."""
    user_id = user_of("g0005", 10, stripe_customer_id=f"cus_{uuid.uuid4().hex}")

    def act() -> None:
        with routed_to(user_id):
            run_in_database_transaction(lambda session: accounts.erase_user(session, user_id))

    count = (
        "SELECT count(*) FROM users_directory WHERE stripe_customer_id IS NULL"  # noqa: S608
        f" AND email_lower = 'erased+{user_id}@invalid' AND user_id = '{user_id}'"
    )
    return Write(act, lambda: in_group("g0005", count) == 1)


WRITES = {each.__name__: each for each in (sign_up, purchase, order, event, erasure)}


def check_agreement(observer: Connection) -> None:
    """The directory has each group's users and payments; the inbox, whether they are credited."""
    with observer.begin():
        assert list(directory_differences(observer)) == []
        noted = observer.execute(text(_NOTED)).one()
        found = observer.execute(text(" UNION ALL ".join(map(_FOUND.format, GROUPS)))).all()
        events = observer.execute(text(_EVENTS)).all()
    assert (sum(users for users, _, _ in found), sum(names for _, names, _ in found)) == tuple(
        noted
    )
    credited = {session for _, _, sessions in found for session in sessions}
    assert {session for session, status in events if status == "processed"} <= credited
    assert not {session for session, status in events if status != "processed"} & credited


@contextmanager
def answers_lost(database: ConnectionParameters) -> Generator[None]:
    """Within the block no COMMIT of this process is answered."""
    with deaf_proxy(database) as port, pytest.MonkeyPatch.context() as patch:
        dispose_db()
        point_to(patch, replace(database, host="127.0.0.1", port=port))
        yield
        dispose_db()  # the proxy waits for those who are connected
    get_settings.cache_clear()


def dies(write: Write, number: int) -> bool:
    """Whether it dies before this statement: it does not where it has fewer."""
    try:
        with interrupted(get_engine(), number, kill):
            write.act()
    except _Killed:
        dispose_db()  # a process that is gone leaves no connection to the next
        return True
    return False


@pytest.mark.parametrize("name", WRITES)
def test_whoever_dies_at_any_statement_leaves_both_sides_alike(
    observer: Connection, name: str
) -> None:
    """Before each statement in turn, each COMMIT too; what is repeated takes effect once."""
    loop, number, has_died = start_loop(), 0, True
    while has_died:
        number += 1
        write = WRITES[name](loop)
        has_died = dies(write, number)
        check_agreement(observer)
        write.act()
        assert write.took_effect(), number
    assert number > 4, "it reads, writes both sides and commits"
    check_agreement(observer)
    check_all_books(GROUPS)


@pytest.mark.parametrize("name", WRITES)
def test_an_answer_that_is_lost_is_asked_for_again(
    groups: ConnectionParameters, observer: Connection, name: str
) -> None:
    """The server has committed, and nobody heard of it: once more, and it has happened once."""
    loop = start_loop()
    write = WRITES[name](loop)
    with answers_lost(groups), pytest.raises(RetryableDatabaseError):
        write.act()
    check_agreement(observer)
    write.act()
    assert write.took_effect()
    check_agreement(observer)
    check_all_books(GROUPS)
