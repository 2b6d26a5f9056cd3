"""A lot's row as one JSON value, as the statements of reading give it and `storage.py` takes it."""

from typing import Any

from sqlalchemy import JSON, ColumnElement, func

from src.common.models.credit_lot import CreditLot


def lot_json(lot: type[CreditLot]) -> ColumnElement[Any]:
    """A lot's row as one value, the fields of a `book.Lot`."""
    return func.json_build_array(
        lot.seq,
        lot.source,
        lot.priority,
        lot.granted,
        lot.expires_at,
        lot.remaining,
        lot.last_seq,
        lot.transaction_id,
        type_=JSON,
    )
