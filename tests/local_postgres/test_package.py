"""The package sits at the bottom: cheap to import, and independent of the rest."""

import subprocess
import sys

from tests.local_postgres.machine import REPOSITORY

_HEAVY = ("psycopg", "platformdirs", "sqlalchemy", "pydantic", "asyncio", "src.common")


def test_importing_the_package_is_cheap() -> None:
    """Commands that never touch the server do not pay for it, and no layer above is known."""
    code = f"import sys, src.local_postgres; print([m for m in {_HEAVY} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert loaded.stdout == "[]\n"
