"""A connection to a database without tables, for Alembic's commands and pytest-alembic's tests."""

from collections.abc import Generator

import pytest
from alembic.config import Config
from sqlalchemy import Connection, NullPool, create_engine

from src.common.postgres.engines import database_url
from src.common.postgres.migrations import alembic_config as our_alembic_config
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters


@pytest.fixture
def alembic_engine(empty_database: ConnectionParameters) -> Generator[Connection]:
    """A connection on which pytest-alembic runs everything; `env.py` takes it as it is."""
    assert empty_database
    engine = create_engine(database_url(get_settings()), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def alembic_config(alembic_engine: Connection) -> Config:
    """Our configuration, whose commands run on that connection."""
    return our_alembic_config(alembic_engine)
