"""Erasure: nothing that says who somebody was is left in any table; the books stay."""

import datetime as dt
import hashlib
import json
import uuid

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from src.common.accounts import operations
from src.common.accounts.operations import Identity
from src.common.credits import ledger, queries
from src.common.exceptions import Conflict, Forbidden, Invalid
from src.common.models import (
    Base,
    ChargedRequest,
    CheckoutOrder,
    RefundRequest,
    StripeEvent,
    Transaction,
    UnmatchedPayment,
    User,
)
from src.common.models.credit_lot import LotSource
from src.common.models.personal_data import FATES, to_classify
from tests.models.examples import a_transaction, a_user

NAME = "Lovelace"
EMAIL = "ada.lovelace@example.com"


@pytest.fixture
def ada(db: Session) -> User:
    """Somebody whose name is in every place that erasure has to reach."""
    user = a_user(email=EMAIL, first_name="Ada", last_name=NAME, stripe_customer_id="cus_Lovelace")
    bought = a_transaction(user=user, stripe_session_id="cs_bought")
    db.add_all([user, bought])
    db.flush()
    user_id = user.user_id
    ledger.grant(db, user_id, 100, key="given", source=LotSource.PROMO, metadata={"for": NAME})
    ledger.open_hold(db, user_id, 30, expires_in_seconds=600, key="held", metadata={"deck": NAME})
    db.add_all(
        [
            CheckoutOrder(
                user_id=user_id,
                idempotency_key=f"{NAME}-1",
                request_digest=bytes(range(32)),
                package_id="500",
                credits=500,
                amount_cents=500,
                currency="usd",
                livemode=False,
                success_url=f"https://shop.example/{NAME}",
                cancel_url=f"https://shop.example/{NAME}",
                stripe_session_id="cs_ordered",
                url=f"https://checkout.example/{NAME}",
            ),
            ChargedRequest(
                user_id=user_id,
                key_digest=hashlib.sha256(NAME.encode()).digest(),
                request_digest=bytes(32),
                claim_id=uuid.uuid4(),
                hold_seq=2,
                status=200,
                headers=[b"X-Deck", NAME.encode()],
                body=NAME.encode(),
                expires_at=dt.datetime.max.replace(tzinfo=dt.UTC),
            ),
            RefundRequest(
                transaction_id=bought.transaction_id,
                idempotency_key="back",
                request_digest=bytes(32),
                amount_cents=1,
                reason=f"{NAME} asked",
                actor="system:cli",
                status="accepted",
                refund_id="re_1",
            ),
            *(
                UnmatchedPayment(
                    livemode=False,
                    stripe_object_id=object_id,
                    event_id="evt_1",
                    reason="USER_UNKNOWN",
                    explanation="…",
                    details=details,
                    status="resolved",
                    resolution=f"{NAME} wrote to us",
                    actor="system:cli",
                    resolved_at=user.created_at,
                )
                for object_id, details in (
                    ("cs_1", {"user_id": str(user_id)}),
                    ("re_1", {"transaction_id": str(bought.transaction_id)}),
                )
            ),
        ]
    )
    db.flush()
    return user


def an_event(db: Session, status: str, said: object) -> str:
    """An event in the inbox, with this body."""
    event_id = f"evt_{uuid.uuid4().hex}"
    body = json.dumps({"said": said}).encode()
    db.add(
        StripeEvent(
            livemode=False,
            event_id=event_id,
            type="checkout.session.completed",
            body=body,
            status=status,
            stripe_created_at=db.scalars(text("SELECT now()").columns(User.created_at)).one(),
        )
    )
    db.flush()
    return event_id


def test_every_column_that_can_hold_text_is_classified() -> None:
    """A new one must be put down in `models/personal_data.py`, and a dropped one taken out."""
    assert {table: set(columns) for table, columns in FATES.items()} == to_classify()


def test_nothing_says_who_an_erased_person_was(db: Session, ada: User) -> None:
    """Not one row of one table has the name any more; the balance and the books are as before."""
    said = [str(ada.user_id), EMAIL, "cus_Lovelace"]
    for status in ("processed", "ignored", "unmatched", "dead"):
        for name in said:
            an_event(db, status, [name, NAME])
    of_others = an_event(db, "unmatched", "somebody else")
    before = queries.balance(db, ada.user_id)
    operations.erase_user(db, ada.user_id)
    for table in Base.metadata.sorted_tables:
        rows = db.execute(select(text(f"to_jsonb({table.name})::text")).select_from(table))
        for (row,) in rows:
            assert NAME.lower() not in row.lower(), table.name
            assert NAME.encode().hex() not in row, table.name
    kept = db.scalars(select(StripeEvent.event_id).where(StripeEvent.body.is_not(None)))
    assert list(kept) == [of_others]
    assert queries.balance(db, ada.user_id) == before
    assert [
        entry.metadata for entry in queries.history(db, ada.user_id, cursor=None, limit=9).items
    ] == [None] * before.version


def test_what_is_still_to_be_done_is_not_forgotten(db: Session, ada: User) -> None:
    """An event that is tried again, and a refund that Stripe has not answered, stay whole."""
    waiting = {an_event(db, status, str(ada.user_id)) for status in ("received", "failed")}
    db.execute(update(RefundRequest).values(status="requested", refund_id=None))
    operations.erase_user(db, ada.user_id)
    kept = db.scalars(select(StripeEvent.event_id).where(StripeEvent.body.is_not(None)))
    assert set(kept) == waiting
    assert db.scalars(select(RefundRequest.reason)).one() == f"{NAME} asked"


@pytest.mark.usefixtures("ada")
def test_only_the_person_who_is_erased_is_forgotten(db: Session) -> None:
    """Another user's erasure empties nothing of hers."""
    other = a_user()
    db.add(other)
    db.flush()
    operations.erase_user(db, other.user_id)
    assert db.scalars(select(CheckoutOrder.idempotency_key)).one() == f"{NAME}-1"
    assert db.scalars(select(RefundRequest.reason)).one() == f"{NAME} asked"
    assert set(db.scalars(select(UnmatchedPayment.resolution))) == {f"{NAME} wrote to us"}
    notes = db.scalars(
        text("SELECT count(*) FROM credit_entry_metadata").columns(Transaction.credits_added)
    )
    assert notes.one() == 2


def test_what_happens_to_credits_later_leaves_no_metadata(db: Session, ada: User) -> None:
    """An erased user's holds are captured, credits come; what callers note is dropped."""
    operations.erase_user(db, ada.user_id)
    ledger.capture(db, ada.user_id, 2, 10, key="took")
    ledger.grant(db, ada.user_id, 5, key="more", source=LotSource.PROMO, metadata={"for": NAME})
    assert (
        db.scalars(
            text("SELECT count(*) FROM credit_entry_metadata").columns(Transaction.credits_added)
        ).one()
        == 0
    )


def test_a_customer_made_meanwhile_is_not_kept(db: Session, ada: User) -> None:
    """Stripe's answer arrives after the erasure: USER_INACTIVE, and the row stays empty."""
    operations.erase_user(db, ada.user_id)
    with pytest.raises(Forbidden):
        operations.keep_stripe_customer(db, ada.user_id, "cus_late")
    assert db.scalars(select(User.stripe_customer_id)).one() is None


@pytest.mark.parametrize("written", ["erased+{}@invalid", "ERASED+{}@Invalid"])
def test_nobody_takes_the_address_of_an_erased_user(db: Session, ada: User, written: str) -> None:
    """A sign-in or a new user with a reserved address is refused, and erasure goes through."""
    reserved = written.format(ada.user_id)
    with pytest.raises(Invalid) as refused:
        operations.sign_in(db, Identity(uuid.uuid4(), reserved))
    assert refused.value.error_type == "VALIDATION_ERROR"
    with pytest.raises(Invalid):
        operations.create_user(db, email=reserved)
    assert operations.erase_user(db, ada.user_id).email == f"erased+{ada.user_id}@invalid"


def test_an_address_taken_by_application_code_is_named(db: Session, ada: User) -> None:
    """No traceback: EMAIL_TAKEN, and nothing is half erased."""
    db.add(a_user(email=f"erased+{ada.user_id}@invalid"))
    db.flush()
    with pytest.raises(Conflict) as refused:
        operations.erase_user(db, ada.user_id)
    assert refused.value.error_type == "EMAIL_TAKEN"
    db.refresh(ada)
    assert (ada.email, ada.erased_at) == (EMAIL, None)
