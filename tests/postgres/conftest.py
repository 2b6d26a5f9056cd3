"""Every property here holds for both drivers."""

import pytest

from tests.cli.conftest import data_folder, run_command
from tests.postgres.drivers import DRIVERS, Driver

__all__ = ["data_folder", "run_command"]


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Psycopg, then asyncpg."""
    assert isinstance(request.param, Driver)
    return request.param
