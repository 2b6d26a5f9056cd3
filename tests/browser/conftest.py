"""The console, served once for all tests of browsers."""

from collections.abc import Generator
from pathlib import Path

import pytest

from src.local_postgres import free_port
from tests.browser.served import EMAIL, Served, buy
from tests.cli.processes import Program
from tests.fixtures.folders import copy_data, folder_for_data


@pytest.fixture(scope="package")
def served(migrated_data: Path) -> Generator[Served]:
    """A service with somebody who has bought 1000, got 100 and spent 30."""
    port = free_port()
    with folder_for_data() as folder:
        copy_data(migrated_data, folder / "data")
        program = Program(folder, {"FLASHSLIDES_DATA_DIR": str(folder / "data")})
        with program.serve(port):
            user = program.run_json("user", "create", EMAIL)["user_id"]
            program.run("credits", "grant", user, "100", "--yes", "--key", "a")
            program.run("credits", "spend", user, "30", "--key", "b")
            served = Served(program, port, user)
            buy(program, served.address)
            yield served
