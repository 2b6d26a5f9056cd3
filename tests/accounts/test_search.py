"""Searching for users: who is found, that it is bounded, and what its index costs nobody."""

import datetime as dt
import uuid
from itertools import combinations
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common.accounts import search
from src.common.accounts.search import UserFilter, search_users
from src.common.credits import ledger
from src.common.database import SessionLocal
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.user import User
from src.local_postgres import ConnectionParameters
from tests.credits.test_balance_history import statements_of
from tests.models.examples import a_transaction, a_user

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
UPDATED = text(
    "SELECT pg_stat_get_xact_tuples_updated('users'::regclass),"
    " pg_stat_get_xact_tuples_hot_updated('users'::regclass)"
)
STATEMENTS_MAX = 8
PARTS = ("ann", "xy", "ü", "%", "_a", "b@x", "é", "\\", "Ö", "n n", "ß", "aa")


def found(db: Session, wanted: UserFilter, limit: int = 50) -> list[uuid.UUID]:
    """Whom all pages together name."""
    seen: list[uuid.UUID] = []
    cursor = None
    for _ in range(200):
        page = search_users(db, wanted, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        seen += [each.user.user_id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return seen
    raise AssertionError("the pages have no end")


def crowd(db: Session, seed: int, count: int = 60) -> list[User]:
    """Users whose texts are made of a few parts, the newest first."""
    random = Random(seed)  # noqa: S311  to be repeatable

    def draw() -> str:
        return "".join(random.choices(PARTS, k=random.randrange(4)))

    users = [
        a_user(
            email=f"{draw().replace('@', '')}{number}@example.com".replace(" ", ""),
            first_name=random.choice((None, "", draw())),
            last_name=random.choice((None, draw())),
            preferences=random.choice(({}, {"company": draw()}, {"theme": draw()})),
        )
        for number in range(count)
    ]
    db.add_all(users)
    db.flush()
    for user in users:
        user.created_at = START + dt.timedelta(seconds=random.randrange(1000))
    db.flush()
    for user in users:
        db.refresh(user)
    return sorted(users, key=lambda user: (user.created_at, user.user_id), reverse=True)


def texts(user: User) -> str:
    """What is searched of a user, as the rules of the search say."""
    name = f"{user.first_name or ''} {user.last_name or ''}"
    return "\n".join((user.email, name, user.preferences.get("company", ""))).lower()


@pytest.mark.parametrize("limit", [3, 200])
@pytest.mark.parametrize(("tried", "in_order"), [(1, 1000), (5, 2), (1000, 1000)])
def test_whoever_has_the_part_is_found_and_nobody_else(
    db: Session, monkeypatch: pytest.MonkeyPatch, limit: int, tried: int, in_order: int
) -> None:
    """Newest first, each once, by whichever way: the first users, the index, all in slices."""
    monkeypatch.setattr(search, "TRIED_FIRST", tried)
    monkeypatch.setattr(search, "SORTED_MAX", in_order)
    monkeypatch.setattr(search, "LOOKED_AT_MAX", 7 * tried)
    users = crowd(db, seed=limit)
    for part in (*PARTS, "ann", "ANN", "xyann", "@example", "ann7", "b@x", "a\\", "n nxy", "üÖ"):
        expected = [user.user_id for user in users if part.lower() in texts(user)]
        assert found(db, UserFilter(text=part), limit) == expected, part


OWING = text("INSERT INTO credit_debts (user_id, seq, outstanding) VALUES (:id, :seq, :owed)")
HOLDING = text(
    "INSERT INTO credit_holds (user_id, seq, amount, captured, status, expires_at)"
    " VALUES (:id, :seq, 1, 0, :status, now())"
)


def mark(db: Session, users: list[User]) -> dict[str, set[uuid.UUID]]:
    """Some bought, are inactive, owe or hold; whom each filter wants."""
    ids = [user.user_id for user in users]
    wanted = {
        "never_bought": set(ids) - set(ids[::3]),
        "inactive": set(ids[::4]),
        "with_debt": set(ids[::5]),
        "with_open_holds": set(ids[1::2]),
    }
    for user in users:
        user.is_active = user.user_id not in wanted["inactive"]
        if user.user_id not in wanted["never_bought"]:
            db.add(a_transaction(user_id=user.user_id, stripe_session_id=f"cs_{user.user_id}"))
    db.flush()
    db.execute(text("SET LOCAL session_replication_role = replica"))
    for each in ids:
        owes, holds = each in wanted["with_debt"], each in wanted["with_open_holds"]
        for seq in (1, 2):
            db.execute(OWING, {"id": each, "seq": seq, "owed": 5 * owes})
            db.execute(HOLDING, {"id": each, "seq": seq, "status": "open" if holds else "captured"})
    db.execute(text("SET LOCAL session_replication_role = origin"))
    return wanted


@pytest.mark.parametrize("few", [4, 20, 20_000])
def test_filters_hold_together(db: Session, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Any of them, with a part and without one, however few users a page looks at."""
    users = crowd(db, seed=1, count=40)
    wanted = mark(db, users)
    for name in ("TRIED_FIRST", "LOOKED_AT_MAX", "SORTED_MAX"):
        monkeypatch.setattr(search, name, few)
    for count in (1, 2):
        for names in combinations(wanted, count):
            for part in (None, "ann", "a"):
                chosen = UserFilter(text=part, **dict.fromkeys(names, True))
                expected = [
                    user.user_id
                    for user in users
                    if all(user.user_id in wanted[name] for name in names)
                    and (part is None or part in texts(user))
                ]
                assert found(db, chosen, 7) == expected, (names, part)


def test_half_an_email_and_every_id_finds_the_user(db: Session) -> None:
    """The user's own, an order's, a purchase's, and each of Stripe's; whole ones only."""
    user, other = a_user(email="Jane.Doe@Example.com", stripe_customer_id="cus_1"), a_user()
    db.add_all([user, other])
    db.flush()
    order = CheckoutOrder(
        user_id=user.user_id,
        idempotency_key="k",
        request_digest=bytes(32),
        package_id="500",
        credits=500,
        amount_cents=500,
        currency="usd",
        livemode=False,
        success_url="https://x",
        cancel_url="https://x",
        stripe_session_id="cs_unpaid",
    )
    bought = a_transaction(
        user_id=user.user_id,
        stripe_session_id="cs_paid",
        payment_intent_id="pi_1",
        invoice_id="in_1",
    )
    db.add_all([order, bought])
    db.flush()
    db.add(
        StripeReversal(
            livemode=True,
            reversal_id="re_1",
            kind="refund",
            transaction_id=bought.transaction_id,
            amount_cents=1,
            currency="usd",
            status="succeeded",
        )
    )
    db.flush()
    ours = [user.user_id, order.order_id, bought.transaction_id]
    stripes = ["cus_1", "cs_unpaid", "cs_paid", "pi_1", "in_1", "re_1"]
    for name in (*map(str, ours), *stripes, "jane.d", "E.DOE@EXAM", "doe@"):
        assert found(db, UserFilter(text=name)) == [user.user_id], name
    for name in (str(uuid.uuid4()), "cus_2", "pi_", "re_12"):
        assert found(db, UserFilter(text=name)) == [], name


@pytest.mark.parametrize("part", ["", " \t", "a\x00b", "a\udcff", "x" * 321])
def test_what_cannot_be_looked_for_is_refused(db: Session, part: str) -> None:
    """VALIDATION_ERROR, naming the field."""
    with pytest.raises(ExceptionWithErrorType) as refusal:
        search_users(db, UserFilter(text=part), cursor=None, limit=5)
    assert refusal.value.error_type == "VALIDATION_ERROR"
    assert refusal.value.details == {"field": "text"}


def test_a_page_says_how_far_it_looked(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it looked at as many as it may: the next begins there, and the last says nothing."""
    users = crowd(db, seed=2, count=10)
    monkeypatch.setattr(search, "LOOKED_AT_MAX", 4)
    wanted = UserFilter(text="Q")
    pages = []
    cursor = None
    for _ in range(3):
        page = search_users(db, wanted, cursor=cursor, limit=5)
        pages.append((page.items, page.looked_back_to))
        cursor = page.next_cursor
    assert pages == [([], users[3].created_at), ([], users[7].created_at), ([], None)]
    assert cursor is None


def test_names_of_any_length_are_stored_and_their_beginning_is_found(db: Session) -> None:
    """Ten thousand characters neither fail nor take long; five hundred of each are searched."""
    user = a_user(first_name="<b>Zoë" + "x" * 9_990 + "qqq", last_name="=1+1\u202e" + "y" * 9_990)
    db.add(user)
    db.flush()
    for part, expected in (("<b>zoë", True), ("=1+1\u202e", True), ("qqq", False)):
        assert (found(db, UserFilter(text=part)) == [user.user_id]) is expected


@pytest.mark.parametrize("part", ["ann", "a", "cus_x", str(uuid.UUID(int=1))])
def test_a_page_takes_as_many_statements_for_many_users_as_for_few(db: Session, part: str) -> None:
    """Eight at most."""
    crowd(db, seed=3, count=5)

    def ask() -> object:
        return search_users(db, UserFilter(text=part, never_bought=True), cursor=None, limit=50)

    few = statements_of(db, ask)
    crowd_again = crowd(db, seed=4, count=5)
    assert len(crowd_again) == 5
    assert few == statements_of(db, ask) <= STATEMENTS_MAX


def test_what_spends_write_is_in_no_index_of_users(fresh_database: ConnectionParameters) -> None:
    """A user's row is updated in place (heap-only): the search costs a spend nothing."""
    assert fresh_database
    with SessionLocal() as db:
        user = a_user(first_name="Ada", preferences={"company": "Engines"})
        user.credits_balance = 100
        db.add(user)
        db.commit()
        for number in range(3):
            ledger.spend(db, user.user_id, 1, key=f"k{number}")
        updated, heap_only = db.execute(UPDATED).one()
        assert updated == heap_only >= 3
