"""The document's purchase on our models and engine: the ledger books it at the commit."""

from benchmarks.calls.purchases import Purchases, purchase
from benchmarks.workload import Operation
from src.common.async_database import dispose_async_db, get_async_db, init_async_db
from src.common.models.transaction import Transaction
from src.common.models.user import User


class OrmPurchase(Purchases):
    """The document's code, with its own `get_async_db`."""

    async def open(self, callers: int) -> None:
        """Connect with the settings' pool."""
        del callers
        await init_async_db()

    async def close(self) -> None:
        """Close the pool."""
        await dispose_async_db()

    async def call(self, caller: int, operation: Operation) -> bool:
        """Run the document's code."""
        del caller
        await purchase(get_async_db, User, Transaction, operation)
        return False
