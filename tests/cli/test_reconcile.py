"""`flashslides stripe reconcile`: everything that differs is printed, and the exit code says so."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
import stripe
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.models.reconciliation import Reconciliation
from src.common.models.stripe_event import StripeEvent
from src.common.models.user import User
from src.common.purchases import reconciliations
from src.common.purchases.operations import PurchaseOutcome, settle_payment
from src.common.purchases.rules import Payment
from src.common.settings import get_settings
from src.common.stripe import gateway, inbox
from src.common.stripe.gateway import Gateway
from src.common.stripe.lookup import HANDLED_TYPES
from src.offline_stripe import InProcessClient, OfflineStripe
from tests.cli.conftest import Result, RunCommand
from tests.credits.books import booked_balance
from tests.models.examples import a_transaction
from tests.stripe.loop import Loop
from tests.stripe.platform import THEIRS, Platform

SINCE = "2020-01-01"


@pytest.fixture
def compare(flashslides: RunCommand, loop: Loop) -> RunCommand:
    """Run the command, with `--json`."""
    assert loop

    def run(*options: str) -> Result:
        return flashslides("stripe", "reconcile", *options, "--json")

    return run


def found(result: Result) -> dict[str, tuple[str, bool]]:
    """What differs, by object."""
    findings: list[dict[str, Any]] = result.json["findings"]
    return {each["object"]: (each["what"], each["mended"]) for each in findings}


def test_lost_events_are_missing_though_their_objects_are_not(
    db: Session, loop: Loop, user: User, compare: RunCommand
) -> None:
    """One event credited the payment; each of the others is listed, then taken in, then no more."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    [told] = [each for each in loop.webhooks() if each.event_type == "checkout.session.completed"]
    loop.deliver([told])
    lost = {
        each["id"]: f"missing: {each['type']}"
        for each in loop.offline.account.all("event")
        if each["id"] != told.event_id and each["type"] in HANDLED_TYPES
    }
    assert lost
    listed = compare("--since", SINCE)
    assert listed.exit_code == 1
    assert found(listed) == {name: (what, False) for name, what in lost.items()}
    assert (listed.json["differences"], listed.json["left"]) == (len(lost), len(lost))
    mended = compare("--since", SINCE, "--repair")
    assert mended.exit_code == 0
    assert found(mended) == {name: (what, True) for name, what in lost.items()}
    after = compare("--since", SINCE)
    assert (after.exit_code, found(after)) == (0, {})
    assert booked_balance(db, user.user_id) == 500


def test_an_event_that_nobody_could_settle_is_listed(
    db: Session, loop: Loop, user: User, compare: RunCommand
) -> None:
    """It is stored and dead: without repair it is left, with repair it is settled."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks())
    kind = "payment_intent.succeeded"
    [event_id] = db.scalars(select(StripeEvent.event_id).where(StripeEvent.type == kind))
    dead = update(StripeEvent).where(StripeEvent.event_id == event_id).values(status="dead")
    db.execute(dead)
    db.commit()
    listed = compare("--since", SINCE)
    assert (listed.exit_code, found(listed)) == (1, {event_id: (f"dead: {kind}", False)})
    mended = compare("--since", SINCE, "--repair")
    assert (mended.exit_code, found(mended)) == (0, {event_id: (f"dead: {kind}", True)})


def test_all_is_printed_however_much_is_kept(
    db: Session, loop: Loop, user: User, compare: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the run keeps the first differences; the command prints every one."""
    monkeypatch.setattr(reconciliations, "FINDINGS_MAX", 2)
    for key in ("a", "b"):
        loop.offline.pay(loop.session_of(loop.buy(user.user_id, key=key)))
    listed = compare("--since", SINCE)
    assert len(found(listed)) == listed.json["differences"] == listed.json["left"] > 4
    assert len(db.scalars(select(Reconciliation)).one().findings) == 2


def test_a_reversal_that_stripe_does_not_know_is_extra(
    loop: Loop, user: User, compare: RunCommand
) -> None:
    """A refund that had ended: nothing asks after it but this."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    loop.deliver(loop.webhooks())
    refund_id = loop.refund_at_stripe(session_id, 100)
    loop.deliver(loop.webhooks())
    assert compare("--since", SINCE).exit_code == 0
    del loop.offline.account.state.objects["refund"][refund_id]
    for repair in ((), ("--repair",)):
        listed = compare("--since", SINCE, *repair)
        assert (listed.exit_code, found(listed)) == (1, {refund_id: ("extra", False)})


def test_a_run_that_was_cut_off_goes_on_where_it_is_asked_to(
    db: Session, loop: Loop, user: User, compare: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for its window again all of it is compared; with `--resume` only what is left of it."""
    monkeypatch.setattr(gateway, "PAGE_SIZE", 1)
    for key in ("a", "b"):
        loop.offline.pay(loop.session_of(loop.buy(user.user_id, key=key)))
    total = compare("--since", SINCE).json["compared"]
    run = db.scalars(select(Reconciliation)).one()
    cut_off: dict[str, Any] = {
        "status": "running",
        "finished_at": None,
        "stage": "refunds",
        "compared": 4,
        "drift": 0,
        "findings": [],
    }
    db.execute(update(Reconciliation).values(cut_off))
    db.commit()

    loop.offline.pay(loop.session_of(loop.buy(user.user_id, key="c")))
    whole = compare("--since", SINCE)
    assert whole.json["compared"] > total
    assert dt.datetime.fromisoformat(whole.json["until"]) > run.until_at
    assert "--resume" in whole.err

    rest = compare("--resume")
    window = [dt.datetime.fromisoformat(rest.json[name]) for name in ("since", "until")]
    assert window == [run.since_at, run.until_at]
    assert "refunds" in rest.err
    assert not any(name.startswith("pi_") for name in found(rest)), "those had been compared"
    assert compare("--resume").exit_code == 3, "nothing is left to take up"


@pytest.mark.parametrize("options", [(), ("--since", SINCE, "--resume"), ("--resume", "--repair")])
def test_a_window_is_named_or_taken_up(compare: RunCommand, options: tuple[str, ...]) -> None:
    """Exit code 2: nothing to go by, or a run that has its own window and its own way."""
    refused = compare(*options)
    assert refused.exit_code == 2
    assert "--resume" in refused.err


def test_a_window_ends_where_it_is_asked_to(loop: Loop, user: User, compare: RunCommand) -> None:
    """What Stripe made later is none of its business; an end before the beginning is refused."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    loop.deliver(loop.webhooks()[-1:])
    early = compare("--since", SINCE, "--until", "2020-02-01")
    assert (early.exit_code, early.json["compared"]) == (0, 0)
    assert compare("--since", SINCE).json["compared"] > 3
    refused = compare("--since", SINCE, "--until", "2019-01-01")
    assert refused.exit_code == 2
    assert "until" in refused.err


def test_an_object_that_cannot_be_settled_holds_up_nothing(
    db: Session, loop: Loop, user: User, compare: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it failed with is its finding; the others are compared, and mended."""
    for key in ("a", "b"):
        loop.offline.pay(loop.session_of(loop.buy(user.user_id, key=key)))
    [poison, good] = [each["id"] for each in loop.offline.account.all("checkout.session")]

    def settle(session: Session, payment: Payment, *others: Any, **options: Any) -> PurchaseOutcome:
        if payment.stripe_session_id == poison:
            raise Conflict("It cannot be", "POISON")
        return settle_payment(session, payment, *others, **options)

    monkeypatch.setattr(inbox, "settle_payment", settle)
    mended = compare("--since", SINCE, "--repair")
    assert mended.exit_code == 1
    what, was_mended = found(mended)[poison]
    assert (what.count("POISON: It cannot be"), was_mended) == (1, False)
    assert found(mended)[good] == ("missing", True)
    assert booked_balance(db, user.user_id) == 500


def test_a_purchase_that_credited_nobody_is_a_difference_until_somebody_settles_it(
    db: Session, loop: Loop, user: User, compare: RunCommand, flashslides: RunCommand
) -> None:
    """Paid at Stripe and written by application code alone, whose row does not say its mode."""
    session_id = loop.session_of(loop.buy(user.user_id))
    loop.offline.pay(session_id)
    db.add(a_transaction(user_id=user.user_id, stripe_session_id=session_id, livemode=None))
    db.add(a_transaction(user_id=user.user_id, stripe_session_id="cs_invented", livemode=None))
    db.commit()
    what = "TRANSACTION_WITHOUT_CREDIT: a purchase that credited nobody"
    result = found(compare("--since", SINCE, "--repair"))
    for name in (session_id, "cs_invented"):
        assert result[name] == (what, False)
    for name in (session_id, "cs_invented"):
        flashslides("stripe", "unmatched", "resolve", name, "--note", "hers", "--credit")
    after = compare("--since", SINCE)
    assert found(after) == {"cs_invented": ("extra", False)}


def test_each_connected_account_is_compared_and_named(
    loop: Loop, user: User, compare: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After our own; what is found there says whose it is. This Stripe has one answer for both."""
    monkeypatch.setenv("STRIPE_CONNECTED_ACCOUNTS", "acct_theirs")
    get_settings.cache_clear()
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    listed = compare("--since", SINCE)
    accounts = [each.get("account") for each in listed.json["findings"]]
    assert accounts.count(None) == accounts.count("acct_theirs") > 0
    assert listed.json["left"] == len(accounts)
    assert "acct_theirs: sessions: 1 compared" in listed.err


@pytest.fixture
def theirs(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> OfflineStripe:
    """A connected account; and one before it, in the order of their names, that is revoked."""
    offline = OfflineStripe(seed="theirs")
    client = stripe.StripeClient("sk_test_1", http_client=Platform(loop.offline, offline))
    loop.processor = replace(loop.processor, gateway=Gateway(client, 5))
    monkeypatch.setenv("STRIPE_CONNECTED_ACCOUNTS", f"acct_gone,{THEIRS}")
    get_settings.cache_clear()
    return offline


def test_an_account_that_cannot_be_compared_keeps_nobody_from_the_others(
    loop: Loop,
    theirs: OfflineStripe,
    user: User,
    compare: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All findings are printed, and who failed; taken up, what the others lack is still told."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    stranger = make_customer_pay(theirs)
    listed = compare("--since", SINCE)
    assert listed.exit_code == 75
    assert [each["account"] for each in listed.json["failed"]] == ["acct_gone"]
    assert "acct_gone is not compared" in listed.err
    assert {each.get("account") for each in listed.json["findings"]} == {None, THEIRS}
    assert stranger in found(listed)
    assert listed.json["left"] == len(listed.json["findings"])

    again = compare("--resume")
    assert again.exit_code == 75, "it is revoked still"
    assert again.json == listed.json

    monkeypatch.setenv("STRIPE_CONNECTED_ACCOUNTS", THEIRS)
    get_settings.cache_clear()
    assert compare("--resume").exit_code == 3, "nobody acts for it any more, and nothing is left"


def test_what_is_taken_up_is_every_account_that_was_not_reached(
    db: Session, loop: Loop, theirs: OfflineStripe, user: User, compare: RunCommand
) -> None:
    """Its process ended in the first account: the window of the others is the same."""
    loop.offline.pay(loop.session_of(loop.buy(user.user_id)))
    stranger = make_customer_pay(theirs)
    listed = compare("--since", SINCE)
    db.execute(delete(Reconciliation).where(Reconciliation.stripe_account.is_not(None)))
    db.execute(update(Reconciliation).values(status="running", finished_at=None))
    db.commit()
    rest = compare("--resume")
    assert (rest.exit_code, stranger in found(rest)) == (75, True)
    assert (rest.json["since"], rest.json["until"]) == (listed.json["since"], listed.json["until"])


def make_customer_pay(theirs: OfflineStripe) -> str:
    """A payment there that belongs among the unmatched; its session."""
    client = stripe.StripeClient("sk_test_1", http_client=InProcessClient(theirs))
    price: Any = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Starter"}}
    made = client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.test",
            "metadata": {"env": "local"},
            "line_items": [{"price_data": price, "quantity": 1}],
        }
    )
    theirs.pay(made.id)
    return str(made.id)
