"""`alembic check` on an empty database: do the migrations make the tables the models describe?"""

import os
import tempfile
from pathlib import Path

from alembic import command

from src.common.migrations import alembic_config, upgrade_to_head
from src.local_postgres import running_server


def main() -> None:
    """Migrate a database of our own, then compare; exits non-zero where something is missing."""
    with (
        tempfile.TemporaryDirectory(prefix="flashslides-check-") as folder,
        running_server(Path(folder) / "data") as server,
    ):
        os.environ |= {
            "ENV": "local",
            "DATABASE_HOST": server.connection.host,
            "DATABASE_PORT": str(server.connection.port),
            "DATABASE_NAME": server.connection.database,
            "DATABASE_USER": server.connection.user,
            "DATABASE_PASSWORD": server.connection.password,
        }
        upgrade_to_head()
        command.check(alembic_config())


if __name__ == "__main__":
    main()
