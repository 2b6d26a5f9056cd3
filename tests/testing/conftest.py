"""The kit on the run's own server: a second one would do nothing that this does not."""

import pytest

from src.testing.databases import Server as TestingServer
from tests.fixtures.databases import Server


@pytest.fixture(scope="session")
def flashslides_server(server: Server) -> TestingServer:
    """The template of the kit, beside that of the other tests."""
    return TestingServer(server.connection)
