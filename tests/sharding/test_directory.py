"""What has to be unique is so over all groups, and the directory says what the groups say."""

import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from src.common.accounts.operations import Identity, create_user, erase_user, sign_in
from src.common.database import SessionLocal, get_engine, run_in_database_transaction
from src.common.exceptions import Conflict, ExceptionWithErrorType
from src.common.models import CheckoutOrder, DirectoryPayment, User
from src.common.postgres.errors import sqlstate_of
from src.common.postgres.routes import WrongShard, routed_to_schema
from src.common.purchases.orders import open_order
from src.common.purchases.whose import user_of_any
from src.common.routing import routed_to
from src.common.sharding import directory
from src.local_postgres import ConnectionParameters
from tests.models.examples import a_transaction, a_user
from tests.models.right_rows import RIGHT
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

RACES = 6
OF_CUSTOMER = text("SELECT user_id FROM users_directory WHERE stripe_customer_id = :id")


def race(works: list[Callable[[], str]]) -> Counter[str]:
    """What became of each, all begun at once."""
    begin = Barrier(len(works))

    def run(work: Callable[[], str]) -> str:
        begin.wait()
        try:
            return work()
        except ExceptionWithErrorType as refusal:
            return refusal.error_type

    with ThreadPoolExecutor(len(works)) as pool:
        return Counter(pool.map(run, works))


def in_group(group: str, work: Callable[[Session], object]) -> Callable[[], str]:
    """Do it there, and commit."""

    def run() -> str:
        with routed_to_schema(group):
            run_in_database_transaction(work)
        return "done"

    return run


def buy(session: Session, user_id: uuid.UUID, name: str) -> None:
    """A purchase of this session."""
    session.add(a_transaction(user_id=user_id, stripe_session_id=name))


def rows(statement: str) -> list[tuple[object, ...]]:
    """What the database says, past all routes."""
    with get_engine().connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def run_statement(statement: str) -> None:
    """As somebody who writes past the ORM; the route is the caller's."""
    with get_engine().begin() as connection:
        connection.execute(text(statement))


def users_everywhere() -> list[tuple[object, ...]]:
    """Every user of every group, as the directory should have it."""
    each = (
        f"SELECT user_id, '{group}', lower(email), stripe_customer_id FROM {group}.users"  # noqa: S608
        for group in GROUPS
    )
    return rows(f"{' UNION ALL '.join(each)} ORDER BY 1")


def check_directory() -> None:
    """The directory has the groups' users, and nobody else."""
    noted = (
        "SELECT user_id, schema, email_lower, stripe_customer_id FROM users_directory ORDER BY 1"
    )
    assert rows(noted) == users_everywhere()


def test_one_of_many_sign_ups_with_one_email_succeeds(groups: ConnectionParameters) -> None:
    """In eight groups at once, in whatever case: one user, seven times EMAIL_TAKEN."""
    assert groups
    for number in range(RACES):
        emails = [f"{'Ada' if place % 2 else 'ada'}-{number}@example.com" for place in range(8)]
        works = [
            in_group(group, partial(create_user, email=email))
            for group, email in zip(GROUPS, emails, strict=True)
        ]
        assert race(works) == {"done": 1, "EMAIL_TAKEN": 7}
    assert len(users_everywhere()) == RACES
    check_directory()


def test_one_first_sight_of_many_makes_the_user(groups: ConnectionParameters) -> None:
    """Whoever chose another group is told, and nobody is there twice."""
    assert groups
    for number in range(RACES):
        who = Identity(uuid.uuid4(), f"grace-{number}@example.com")
        works = [in_group(group, partial(sign_in, identity=who)) for group in GROUPS]
        assert race(works) == {"done": 1, "WRONG_SHARD": 7}
    assert len(users_everywhere()) == RACES
    check_directory()


def test_first_sights_with_the_email_of_another_are_refused(groups: ConnectionParameters) -> None:
    """In the same group as in another one; who signs in again is found."""
    assert groups
    user_of("g0001", email="Ada@example.com")
    for group in ("g0001", "g0002"):
        stranger = Identity(uuid.uuid4(), "ada@example.com")
        assert race([in_group(group, partial(sign_in, identity=stranger))]) == {"EMAIL_TAKEN": 1}
    known = Identity(uuid.uuid4(), "known@example.com")
    for _ in range(2):
        race([in_group("g0003", partial(sign_in, identity=known))])
    assert len(users_everywhere()) == 2
    check_directory()


def test_one_customer_is_one_users(groups: ConnectionParameters) -> None:
    """Over all groups, as in one."""
    assert groups
    user_of("g0001", stripe_customer_id="cus_1")
    with pytest.raises(IntegrityError):
        user_of("g0002", stripe_customer_id="cus_1")
    check_directory()


def test_one_payment_is_one_users(groups: ConnectionParameters) -> None:
    """Of eight users who claim one session at once, one has the purchase."""
    assert groups
    people = [user_of(group) for group in GROUPS]
    for number in range(RACES):
        works = [
            in_group(group, partial(buy, user_id=user_id, name=f"cs_raced_{number}"))
            for group, user_id in zip(GROUPS, people, strict=True)
        ]
        assert race(works) == {"done": 1, "PAYMENT_OF_ANOTHER_USER": 7}
    bought = " UNION ALL ".join(
        f"SELECT stripe_session_id, user_id FROM {group}.transactions"  # noqa: S608
        for group in GROUPS
    )
    noted = rows("SELECT object_id, user_id FROM payments_directory ORDER BY 1")
    assert rows(f"{bought} ORDER BY 1") == noted
    assert len(noted) == RACES


def test_an_order_and_its_purchase_share_their_session(groups: ConnectionParameters) -> None:
    """An order notes the session when its page is opened; the purchase finds it noted."""
    assert groups
    user_id = user_of("g0004")
    with routed_to(user_id), SessionLocal.begin() as session:
        order = CheckoutOrder(user_id=user_id, **RIGHT[CheckoutOrder])
        session.add(order)
        session.flush()
        open_order(
            session, order.order_id, stripe_session_id="cs_a", url="https://x.test", expires_at=None
        )
    with routed_to(user_id), SessionLocal.begin() as session:
        session.add(
            a_transaction(user_id=user_id, stripe_session_id="cs_a", payment_intent_id="pi_a")
        )
    with get_engine().connect() as connection:
        whose = [user_of_any(connection, [name]) for name in ("cs_a", "pi_a", "in_a")]
    assert whose == [user_id, user_id, None]


def test_changes_go_along(groups: ConnectionParameters) -> None:
    """A new e-mail, a new customer, erasure: the old names are free for others afterwards."""
    assert groups
    user_id = user_of("g0001", email="Old@example.com", stripe_customer_id="cus_old")
    with routed_to(user_id), SessionLocal.begin() as session:
        user = session.get_one(User, user_id)
        user.email, user.stripe_customer_id = "New@example.com", "cus_new"
    check_directory()
    with get_engine().connect() as connection:
        assert directory.user_of_email(connection, "nEW@example.com") == user_id
        assert connection.scalar(OF_CUSTOMER, {"id": "cus_new"}) == user_id
        assert directory.user_of_email(connection, "old@example.com") is None
    with routed_to(user_id):
        run_in_database_transaction(lambda session: erase_user(session, user_id))
    check_directory()
    user_of("g0002", email="new@example.com", stripe_customer_id="cus_new")
    check_directory()


def test_what_is_rolled_back_is_in_no_directory(groups: ConnectionParameters) -> None:
    """A newcomer, a purchase or an e-mail that was not committed was never noted."""
    assert groups
    user_id = user_of("g0001", email="stays@example.com")
    with routed_to(user_id), SessionLocal() as session:
        session.get_one(User, user_id).email = "gone@example.com"
        session.add(a_user())
        session.add(a_transaction(user_id=user_id))
        session.flush()
        assert session.scalars(select(DirectoryPayment)).all()
        session.rollback()
    check_directory()
    assert rows("SELECT FROM payments_directory") == []


FORGED = {
    "a user whom nobody noted": "INSERT INTO users (email, password_hash) VALUES ('a@b', 'x')",
    "another e-mail": "UPDATE users SET email = 'forged@example.com'",
    "another customer": "UPDATE users SET stripe_customer_id = 'cus_forged'",
    "a purchase of a payment that nobody noted": (
        "INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents, credits_added)"
        " SELECT user_id, 'cs_forged', 5, 5 FROM users"
    ),
    "a purchase of another's payment": (
        "INSERT INTO transactions (user_id, stripe_session_id, amount_paid_cents, credits_added)"
        " SELECT user_id, 'cs_of_another', 5, 5 FROM users"
    ),
    "another payment": "UPDATE transactions SET payment_intent_id = 'pi_forged'",
    "another home": "UPDATE users SET home = 'g0002'",
}


@pytest.mark.parametrize("forgery", FORGED.values(), ids=FORGED.keys())
def test_the_database_refuses_what_the_directory_does_not_have(
    groups: ConnectionParameters, forgery: str
) -> None:
    """Whoever writes past our listeners is refused at COMMIT."""
    assert groups
    user_id, another = user_of("g0001"), user_of("g0002")
    with routed_to(user_id), SessionLocal.begin() as session:
        session.add(a_transaction(user_id=user_id))
    with routed_to(another), SessionLocal.begin() as session:
        session.add(a_transaction(user_id=another, stripe_session_id="cs_of_another"))
    with routed_to_schema("g0001"), pytest.raises(DBAPIError) as refused:
        run_statement(forgery)
    assert sqlstate_of(refused.value) in {"P0001", "23503", "23514"}
    check_directory()


def test_a_user_of_the_directory_never_comes_to_a_second_group(
    groups: ConnectionParameters,
) -> None:
    """Not by the ORM either, which would give the same id."""
    assert groups
    user_id = user_of("g0001")
    with pytest.raises(WrongShard):
        user_of("g0002", user_id=user_id)
    check_directory()


def test_a_payment_of_another_is_a_conflict(groups: ConnectionParameters) -> None:
    """And says nothing about whose it is."""
    assert groups
    first, second = user_of("g0001"), user_of("g0002")
    with get_engine().connect() as connection, connection.begin():
        directory.note_payment(connection, first, "cs_1", None, "pi_1")
        directory.note_payment(connection, first, "pi_1", "cs_1")
        with pytest.raises(Conflict) as refused:
            directory.note_payment(connection, second, "pi_1")
    assert refused.value.error_type == "PAYMENT_OF_ANOTHER_USER"
    assert str(first) not in str(refused.value)


def test_groups_of_many_are_found_at_once(groups: ConnectionParameters) -> None:
    """Unknown ones are missing."""
    assert groups
    people = {user_of(group): group for group in GROUPS[:3]}
    with get_engine().connect() as connection:
        assert directory.groups_of(connection, [*people, uuid.uuid4()]) == people
