"""SQLAlchemy listeners that write the directory, with what is flushed that it has to know.

Installed with an engine that routes, and of no effect on connections of any other. Statements
beside the ORM note what they write themselves; what nobody noted is refused at COMMIT.
"""

from typing import Any

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Mapper

from src.common.database_settings import Sharding
from src.common.models.checkout_order import CheckoutOrder
from src.common.models.transaction import Transaction
from src.common.models.user import User
from src.common.postgres.routes import is_sharded
from src.common.settings import Settings
from src.common.sharding import directory

_OF_USERS = ("email", "stripe_customer_id")


def keep_directory(settings: Settings) -> None:
    """Listen to every session of the process, where users are in groups."""
    if settings.sharding is Sharding.NONE:
        return
    for model, name, listener in LISTENERS:
        if not event.contains(model, name, listener):
            event.listen(model, name, listener, propagate=True)


def _after_user_insert(_mapper: Mapper[Any], connection: Connection, user: User) -> None:
    if is_sharded(connection):
        directory.note_user(connection, user.user_id, user.email, user.stripe_customer_id)


def _after_user_update(_mapper: Mapper[Any], connection: Connection, user: User) -> None:
    attributes = inspect(user).attrs
    is_changed = any(attributes[name].history.has_changes() for name in _OF_USERS)
    if is_changed and is_sharded(connection):
        directory.change_user(connection, user.user_id, user.email, user.stripe_customer_id)


def _after_purchase(_mapper: Mapper[Any], connection: Connection, bought: Transaction) -> None:
    names = (bought.stripe_session_id, bought.payment_intent_id, bought.invoice_id)
    directory.note_payment(connection, bought.user_id, *names)


def _after_order(_mapper: Mapper[Any], connection: Connection, order: CheckoutOrder) -> None:
    directory.note_payment(connection, order.user_id, order.stripe_session_id)


LISTENERS = (
    (User, "after_insert", _after_user_insert),
    (User, "after_update", _after_user_update),
    (Transaction, "after_insert", _after_purchase),
    (Transaction, "after_update", _after_purchase),
    (CheckoutOrder, "after_insert", _after_order),
    (CheckoutOrder, "after_update", _after_order),
)
