"""gringotts-api (MIT): what its FastAPI dependency `charge()` does for a request, in threads."""

from importlib import import_module
from typing import Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from benchmarks.calls.base import ThreadCalls
from benchmarks.seed import user_ids
from benchmarks.workload import RESERVE, Operation
from src.common.postgres.engines import database_url
from src.common.settings import get_settings


def prepare(admin: psycopg.Connection, url: str, user_count: int) -> None:
    """Make its tables and users with credits; our user ids serve as their API keys."""
    del admin
    crud: Any = import_module("gringotts.crud")
    models: Any = import_module("gringotts.models")
    auth: Any = import_module("gringotts.auth")
    engine = create_engine(url)
    models.Base.metadata.create_all(engine)
    with sessionmaker(engine)() as session:
        for user_id in user_ids(user_count):
            key_hash = auth.get_api_key_hash(str(user_id))
            crud.create_user(session, str(user_id), key_hash, credits=RESERVE)
    engine.dispose()


class Gringotts(ThreadCalls):
    """Find the user by API key, charge: without HTTP and without its idempotency layer."""

    tops_up = False
    replays = False

    def open(self, callers: int) -> None:
        """Make sessions that have a connection for every thread."""
        self._crud: Any = import_module("gringotts.crud")
        url = database_url(get_settings())
        self._engine = create_engine(url, pool_size=callers, max_overflow=0)
        self._sessions = sessionmaker(autocommit=False, autoflush=False, bind=self._engine)

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def call(self, caller: int, operation: Operation) -> bool:
        """Charge the user.

        Raises:
            RuntimeError: it refused, which no operation here gives it a reason to.
        """
        del caller
        with self._sessions() as session:
            user = self._crud.get_user_by_api_key(session, str(operation.user_id))
            if not self._crud.charge_user(session, user, operation.amount, endpoint="/spend"):
                raise RuntimeError(f"gringotts refused {operation}")
        return False
