"""What the tests of the Stripe loop begin with."""

import pytest
from sqlalchemy.orm import Session

from src.common.models.user import User
from tests.models.examples import a_user
from tests.stripe.loop import Loop, start_loop


@pytest.fixture
def loop(db: Session) -> Loop:
    """Our side and Stripe's, both empty."""
    assert db
    return start_loop()


@pytest.fixture
def user(db: Session) -> User:
    """A user without credits."""
    person = a_user()
    db.add(person)
    db.commit()
    return person
