"""Every property here holds for both drivers."""

import pytest

from tests.postgres.drivers import DRIVERS, Driver


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Psycopg, then asyncpg."""
    assert isinstance(request.param, Driver)
    return request.param
