"""`flashslides purchases …`: which are listed by what, what is left of each, all about one."""

import datetime as dt
import shlex
import uuid
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.credits import ledger
from src.common.models.transaction import Transaction
from src.common.models.user import User
from tests.cli.conftest import Result, RunCommand, after
from tests.document.document import REPOSITORY
from tests.models.examples import a_transaction, a_user
from tests.stripe.loop import Loop


def bought(db: Session, loop: Loop, user: User, option: str, key: str) -> Transaction:
    """A purchase of one package, paid and credited."""
    session_id = loop.session_of(loop.buy(user.user_id, option, key))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    db.expire_all()
    statement = select(Transaction).where(Transaction.stripe_session_id == session_id)
    return db.scalars(statement).one()


def listed(result: Result) -> list[dict[str, Any]]:
    """What a command listed."""
    assert result.exit_code == 0, result.err
    items: list[dict[str, Any]] = result.json["items"]
    return items


def names(result: Result) -> list[str]:
    """The purchases that it listed, by what paid them."""
    return [each["stripe_session_id"] for each in listed(result)]


@pytest.fixture
def written(db: Session) -> dict[str, User]:
    """Purchases of two users, as rows alone: at the turn of a month, and with money back."""
    people = {name: a_user(email=f"{name}@example.com") for name in ("ada", "eve")}
    db.add_all(people.values())
    db.flush()
    rows: list[tuple[str, str, str, dict[str, int]]] = [
        ("cs_october", "ada", "2026-10-31T23:59:59.999999Z", {}),
        ("cs_november", "ada", "2026-11-01T00:00:00Z", {"refunded_cents": 200}),
        ("cs_disputed", "eve", "2026-11-30T23:59:59Z", {"disputed_cents": 500}),
        ("cs_december", "eve", "2026-12-01T00:00:00Z", {"refunded_cents": 500}),
    ]
    db.execute(text("SET session_replication_role = replica"))
    for name, who, when, columns in rows:
        made = dt.datetime.fromisoformat(when)
        db.add(
            a_transaction(
                stripe_session_id=name,
                user_id=people[who].user_id,
                created_at=made,
                predates_ledger=True,
                **columns,
            )
        )
    db.flush()
    db.execute(text("SET session_replication_role = origin"))
    db.commit()
    return people


def test_a_list_says_what_is_left_of_each(
    flashslides: RunCommand, db: Session, loop: Loop, user: User
) -> None:
    """Package, price, credits, and how many of them nobody has spent yet."""
    first = bought(db, loop, user, "500", "a")
    second = bought(db, loop, user, "1000", "b")
    ledger.spend(db, user.user_id, 620, key="spend")
    db.commit()
    shown = {
        uuid.UUID(each["transaction_id"]): each
        for each in listed(flashslides("purchases", "list", "--json"))
    }
    found = [shown[each.transaction_id] for each in (second, first)]
    assert [
        (each["package_id"], each["amount_paid_cents"], each["credits_added"], each["credits_left"])
        for each in found
    ] == [("1000", 900, 1_000, 880), ("500", 500, 500, 0)]
    assert [each["state"] for each in found] == ["paid", "paid"]
    for_people = flashslides("purchases", "list", "--user", user.email)
    assert second.stripe_session_id in for_people.out
    assert user.email not in for_people.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["cs_december", "cs_disputed", "cs_november", "cs_october"]),
        (["--user", "ada@example.com"], ["cs_november", "cs_october"]),
        (["--month", "2026-11"], ["cs_disputed", "cs_november"]),
        (["--month", "2026-12"], ["cs_december"]),
        (["--month", "2027-01"], []),
        (["--month", "2026-11", "--user", "eve@example.com"], ["cs_disputed"]),
        (["--state", "disputed"], ["cs_disputed"]),
        (["--state", "refunded"], ["cs_december"]),
        (["--state", "partly_refunded"], ["cs_november"]),
        (["--state", "paid"], ["cs_october"]),
        (["--state", "uncredited"], []),
        (["--stripe-id", "cs_november"], ["cs_november"]),
        (["--stripe-id", "cs_nothing"], []),
    ],
)
def test_purchases_are_found_by_all_that_is_said_of_them(
    flashslides: RunCommand, written: dict[str, User], options: list[str], expected: list[str]
) -> None:
    """By user, month in UTC, state and id, together too; none is an empty list and no error."""
    assert written
    assert names(flashslides("purchases", "list", "--json", *options)) == expected
    for_people = flashslides("purchases", "list", *options)
    assert for_people.exit_code == 0
    assert ("No purchase is as asked for." in for_people.out) is (expected == [])


def test_a_purchase_is_found_by_every_id_that_stripe_has_for_it(
    flashslides: RunCommand, db: Session, loop: Loop, user: User
) -> None:
    """Session, PaymentIntent, customer, refund and dispute; a charge we do not keep, and say so."""
    purchase = bought(db, loop, user, "500", "a")
    somebody_else = a_user()
    db.add(somebody_else)
    db.commit()
    bought(db, loop, somebody_else, "500", "b")
    session_id = purchase.stripe_session_id
    refund = loop.refund_at_stripe(session_id, 100)
    dispute = loop.offline.open_dispute(loop.charge_of(session_id), amount=100)["id"]
    loop.deliver(loop.webhooks())
    db.expire_all()
    customer = str(user.stripe_customer_id)
    for name in (session_id, str(purchase.payment_intent_id), customer, refund, dispute):
        assert names(flashslides("purchases", "list", "--json", "--stripe-id", name)) == [
            session_id
        ], name
        assert flashslides("purchases", "show", name, "--json").json["stripe_session_id"] == (
            session_id
        )
    refused = flashslides("purchases", "list", "--stripe-id", loop.charge_of(session_id))
    assert (refused.exit_code, refused.out) == (2, "")
    assert "charges are not kept" in refused.err


def test_pages_follow_each_other(flashslides: RunCommand, written: dict[str, User]) -> None:
    """Each purchase once, in order; the last page names no next."""
    assert written
    seen: list[str] = []
    following: str | None = None
    for _ in range(4):
        page = flashslides("purchases", "list", "--json", "--limit", "1", *after(following))
        seen += names(page)
        following = page.json["next_cursor"]
    assert seen == ["cs_december", "cs_disputed", "cs_november", "cs_october"]
    assert following is None
    told = flashslides("purchases", "list", "--limit", "3")
    assert "There are more: --cursor" in told.err
    assert flashslides("purchases", "list", "--cursor", "x").exit_code == 2


def test_one_purchase_is_shown_with_all_that_became_of_it(
    flashslides: RunCommand, db: Session, loop: Loop, user: User
) -> None:
    """The order, refunds, requests, and the entries it made, by its own id."""
    purchase = bought(db, loop, user, "500", "a")
    refunded = loop.refund(purchase, 200)
    loop.deliver(loop.webhooks())
    ledger.grant(db, user.user_id, 7, key="not of this purchase")
    db.commit()
    name = str(purchase.transaction_id)
    shown = flashslides("purchases", "show", name, "--json").json
    assert (shown["state"], shown["refunded_cents"]) == ("partly_refunded", 200)
    assert (shown["credits_added"], shown["credits_left"]) == (500, 300)
    assert (shown["order_amount_cents"], shown["lot_seq"]) == (500, 1)
    assert [each["reversal_id"] for each in shown["reversals"]] == [refunded.refund_id]
    assert [each["status"] for each in shown["refund_requests"]] == ["accepted"]
    entries = [(each["kind"], each["amount"]) for each in shown["entries"]]
    assert entries == [("grant", 500), ("clawback", -200)]
    for_people = flashslides("purchases", "show", name)
    for words in ("Refunds, disputes and credit notes", "clawback", str(refunded.refund_id)):
        assert words in for_people.out


@pytest.mark.parametrize("name", [str(uuid.UUID(int=7)), "cs_nothing", "re_nothing", "anything"])
def test_an_unknown_purchase_is_not_found(flashslides: RunCommand, name: str) -> None:
    """Exit code 3, and nothing on stdout."""
    result = flashslides("purchases", "show", name)
    assert (result.exit_code, result.out) == (3, "")
    assert "TRANSACTION_NOT_FOUND" in result.err


@pytest.mark.parametrize(
    "options",
    [
        ["--month", "2026-13"],
        ["--month", "november"],
        ["--state", "lost"],
        ["--limit", "0"],
    ],
)
def test_a_wrong_filter_is_bad_input(flashslides: RunCommand, options: list[str]) -> None:
    """Exit code 2; nothing is listed."""
    result = flashslides("purchases", "list", *options)
    assert (result.exit_code, result.out) == (2, "")


def test_the_last_month_there_is_can_be_asked_for(flashslides: RunCommand) -> None:
    """No month follows it."""
    result = flashslides("purchases", "list", "--month", "9999-12")
    assert (result.exit_code, result.out.strip()) == (0, "No purchase is as asked for."), result.err


def test_whose_purchases_must_be_somebodys(flashslides: RunCommand) -> None:
    """An unknown user is not found, rather than one without purchases."""
    assert flashslides("purchases", "list", "--user", "nobody@example.com").exit_code == 3


def test_several_purchases_of_one_customer_are_listed_not_shown(
    flashslides: RunCommand, db: Session, loop: Loop, user: User
) -> None:
    """The first that comes would be any of them."""
    bought(db, loop, user, "500", "a")
    bought(db, loop, user, "500", "b")
    db.refresh(user)
    result = flashslides("purchases", "show", str(user.stripe_customer_id))
    assert (result.exit_code, result.out) == (2, "")
    assert "list them" in result.err


def test_the_history_says_what_a_grant_came_from(
    flashslides: RunCommand, db: Session, loop: Loop, user: User
) -> None:
    """Package, price and session of what was bought; nothing of what was given."""
    purchase = bought(db, loop, user, "1000", "a")
    ledger.grant(db, user.user_id, 7, key="given")
    db.commit()
    given, paid = flashslides("credits", "history", user.email, "--json").json["items"]
    assert given["purchase"] is None
    assert paid["purchase"] == {
        "transaction_id": str(purchase.transaction_id),
        "stripe_session_id": purchase.stripe_session_id,
        "package_id": "1000",
        "amount_paid_cents": 900,
        "currency": "usd",
    }
    for_people = " ".join(flashslides("credits", "history", user.email).out.split())
    assert f"package 1000, 900 usd cents, {purchase.stripe_session_id}" in for_people


def test_what_the_page_on_payments_shows_is_found(flashslides: RunCommand, db: Session) -> None:
    """Each command of its block, as written, finds something or does it."""
    page = (REPOSITORY / "docs/explanation/payments.md").read_text()
    section = page.partition("\n## Looking things up\n")[2]
    block = section.partition("```bash\n")[2].partition("```")[0]
    ada = a_user(email="ada@example.com", last_name="Lovelace")
    db.add(ada)
    db.flush()
    db.add(
        a_transaction(
            user_id=ada.user_id,
            stripe_session_id="cs_test_a1",
            created_at=dt.datetime(2026, 11, 5, tzinfo=dt.UTC),
        )
    )
    for number in range(11):
        ledger.grant(db, ada.user_id, 1, key=f"grant {number}")
    ledger.open_hold(db, ada.user_id, 5, expires_in_seconds=600, key="hold")
    db.execute(text("SET session_replication_role = replica"))
    owing = "INSERT INTO credit_debts (user_id, seq, outstanding) VALUES (:user_id, 1, 3)"
    db.execute(text(owing), {"user_id": ada.user_id})
    db.execute(text("SET session_replication_role = origin"))
    db.commit()
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 7
    for program, *arguments in commands:
        assert program == "flashslides"
        result = flashslides(*arguments)
        assert result.exit_code == 0, result.err
        assert "There is no such" not in result.out, arguments
