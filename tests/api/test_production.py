"""What a production process loads."""

import subprocess
import sys

STAND_INS = ("src.offline_stripe", "src.local_postgres", "src.console")
PROGRAM = """
import sys
from src.api.src.main import create_app
create_app()
print(*(name for name in sys.modules if name.startswith("src.")))
"""


def test_production_loads_no_stand_in() -> None:
    """The API outside `local` has neither the offline Stripe nor the embedded server in it.

    Nor the console, where nobody configured a sign-in to it.
    """
    environment = {
        "ENV": "prod",
        "DATABASE_HOST": "db.internal",
        "DATABASE_NAME": "flashslides",
        "DATABASE_USER": "service",
        "DATABASE_PASSWORD": "a-long-password-of-this-test",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "src.common.credits.ledger" in loaded
    assert [name for name in loaded if name.startswith(STAND_INS)] == []
