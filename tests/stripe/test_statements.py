"""What a first payment costs the database: every statement is a round trip under load."""

import asyncio
import json

from src.common.database import SessionLocal, get_engine
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters
from tests.credits.books import booked_balance, make_user
from tests.credits.crashes import counting
from tests.stripe.loop import start_loop
from tests.stripe.payments import make_event, make_session


def test_a_first_payment_takes_twelve_statements(fresh_database: ConnectionParameters) -> None:
    """Stored, marked, locked, looked for, written, and one look at what may have waited for it.

    Two are a savepoint's: the service may delete no purchase that turns out not to fit.
    """
    assert fresh_database
    processor = start_loop().processor
    with SessionLocal.begin() as session:
        user_id = make_user(session).user_id
    event = make_event(make_session(user_id))
    body = json.dumps(event).encode()
    with counting(get_engine()) as statements:
        answer = asyncio.run(processor.receive(parse_event(body), body))
    assert answer is EventAnswer.PROCESSED
    assert statements() == 12 + 2, "two of them COMMIT"
    with SessionLocal() as session:
        assert booked_balance(session, user_id) == 500
