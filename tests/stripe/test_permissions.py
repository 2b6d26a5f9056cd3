"""A restricted key that lacks permissions: named at the start and in errors, and lived with."""

import asyncio
import datetime as dt
from unittest.mock import ANY

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from src.cli import stripe_permissions
from src.common.models.user import User
from src.common.settings import Settings, get_settings
from src.common.stripe.gateway import configured
from src.common.stripe.gateway_errors import PermissionMissing
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.permissions import missing_permissions
from src.offline_stripe.trouble import Trouble, TroubleKind
from tests.credits.books import booked_balance
from tests.stripe.loop import Loop, only_purchase, start_loop

KEY = "rk_test_of_the_shop"
ALL = {
    "rak_charge_write",
    "rak_checkout_session_write",
    "rak_credit_note_read",
    "rak_customer_write",
    "rak_dispute_read",
    "rak_event_read",
    "rak_invoice_read",
    "rak_payment_intent_read",
}
"""What the reference says that a restricted key needs."""
DAY = dt.timedelta(days=1)


@pytest.fixture
def restricted(db: Session) -> Loop:
    """We have a restricted key, with all that we need."""
    assert db
    loop = start_loop(key=KEY)
    loop.offline.restrict_key(KEY, ALL)
    return loop


def now_missing(loop: Loop) -> list[str]:
    """What a start would say."""
    return asyncio.run(missing_permissions(configured(loop.processor.gateway)))


def test_what_the_reference_names_is_enough_and_needed(restricted: Loop) -> None:
    """Nothing is missing with all of them, and each is named where it is; trying makes nothing."""
    assert now_missing(restricted) == []
    for each in ALL:
        restricted.offline.restrict_key(KEY, ALL - {each})
        resource = each.rpartition("_")[0]
        named = now_missing(restricted)
        assert each in named
        assert {name.rpartition("_")[0] for name in named} == {resource}
    kinds = {kind for kind, found in restricted.offline.account.state.objects.items() if found}
    assert kinds <= {"webhook_endpoint"}


def test_a_full_life_needs_no_more(restricted: Loop, user: User, db: Session) -> None:
    """Bought, paid, refunded, disputed, compared, with these permissions alone."""
    session_id = restricted.session_of(restricted.buy(user.user_id))
    restricted.offline.pay(session_id)
    restricted.deliver(restricted.webhooks())
    restricted.refund(only_purchase(db), 100)
    restricted.offline.open_dispute(restricted.charge_of(session_id), amount=100)
    assert EventAnswer.ACCEPTED not in restricted.deliver(restricted.webhooks())
    run = restricted.reconcile(dt.datetime.now(dt.UTC) - DAY, repairs=True)
    assert (run.drift, booked_balance(db, user.user_id)) == (0, 300)


def test_the_error_names_the_permission_and_not_the_key(restricted: Loop, user: User) -> None:
    """Where a checkout cannot be made, and where an event cannot be settled; then it can."""
    restricted.offline.restrict_key(KEY, ALL - {"rak_checkout_session_write"})
    with pytest.raises(PermissionMissing) as caught:
        restricted.buy(user.user_id)
    assert caught.value.permission == "rak_checkout_session_write"
    assert caught.value.error_type == "STRIPE_GATEWAY_ERROR"
    assert "rak_checkout_session_write" in caught.value.message
    assert "rk_test" not in caught.value.message
    restricted.offline.restrict_key(KEY, ALL)
    assert restricted.buy(user.user_id).url


def test_a_refund_waits_for_its_permission(restricted: Loop, user: User, db: Session) -> None:
    """It is not refused for good: the same key pays it back once we may."""
    restricted.offline.pay(restricted.session_of(restricted.buy(user.user_id)))
    restricted.deliver(restricted.webhooks())
    restricted.offline.restrict_key(KEY, (ALL - {"rak_charge_write"}) | {"rak_charge_read"})
    with pytest.raises(PermissionMissing, match="rak_charge_write"):
        restricted.refund(only_purchase(db), 100)
    restricted.offline.restrict_key(KEY, ALL)
    assert restricted.refund(only_purchase(db), 100).amount_cents == 100
    assert booked_balance(db, user.user_id) == 400


@pytest.mark.parametrize(
    "lacks", sorted({each.replace("_write", "_read") for each in ALL} - {"rak_customer_read"})
)
def test_reconciliation_goes_on_with_what_it_may_read(
    restricted: Loop, user: User, db: Session, lacks: str
) -> None:
    """What it may read is compared and mended; what it may not is said once, by permission."""
    people_s_session = restricted.session_of(restricted.buy(user.user_id))
    restricted.offline.pay(people_s_session)
    restricted.deliver(restricted.webhooks())
    lost = restricted.refund_at_stripe(people_s_session, 100)
    restricted.offline.open_dispute(restricted.charge_of(people_s_session), amount=100)
    reading = {each.replace("_write", "_read") for each in ALL}
    restricted.offline.restrict_key(KEY, reading - {lacks})
    run = restricted.reconcile(dt.datetime.now(dt.UTC) - DAY, repairs=True)
    said = [each for each in run.findings if each["object"] == lacks]
    if lacks == "rak_invoice_read":  # nobody has to be asked after an invoice
        assert said == []
    else:
        assert said == [{"object": lacks, "what": ANY, "mended": False}]
        assert said[0]["what"].startswith("not compared: ")
    mended = {each["object"] for each in run.findings if each["mended"]}
    assert (lost in mended) is (lacks != "rak_charge_read")
    assert run.drift == len([each for each in run.findings if not each["mended"]])
    assert booked_balance(db, user.user_id) == 300  # what one list does not tell, others do


def tell(restricted: Loop, monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> None:
    """What `serve` and `worker` do at their start, with a Stripe that is in this process."""
    settings = get_settings().model_copy(update={"stripe_secret_key": SecretStr(key)})

    class Opened:
        async def __aenter__(self) -> object:
            return restricted.processor.gateway

        async def __aexit__(self, *_: object) -> None: ...

    def opened(_settings: Settings) -> Opened:
        return Opened()

    monkeypatch.setattr(stripe_permissions, "open_gateway", opened)
    stripe_permissions.tell_of_missing_permissions(settings).join()


def test_the_start_names_what_is_missing(
    restricted: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each permission on a line of its own; nothing of a key that has all, or cannot lack any."""
    restricted.offline.restrict_key(KEY, ALL - {"rak_dispute_read", "rak_event_read"})
    tell(restricted, monkeypatch, key="sk_test_1")
    assert "permission" not in capsys.readouterr().out
    tell(restricted, monkeypatch)
    lines = [line for line in capsys.readouterr().out.splitlines() if "permission" in line]
    assert ["rak_dispute_read" in lines[0], "rak_event_read" in lines[1]] == [True, True]
    restricted.offline.restrict_key(KEY, ALL)
    tell(restricted, monkeypatch)
    assert "permission" not in capsys.readouterr().out


def test_a_stripe_that_is_down_stops_no_start(
    restricted: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said that nobody knows."""
    restricted.offline.troubles.add(Trouble(TroubleKind.ERROR, times=1_000))
    tell(restricted, monkeypatch)
    assert "Nobody knows what the Stripe key may do" in capsys.readouterr().out
