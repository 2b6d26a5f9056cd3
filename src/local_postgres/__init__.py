"""The embedded PostgreSQL for development and tests: found, started, shared, stopped.

Importing this package is cheap and starts nothing. It knows nothing of the rest of the project.
"""

from src.local_postgres.bring_up import RunningServer, configured_port
from src.local_postgres.connection import ConnectionParameters, read_connection
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.locations import data_folder, holds_database, make_data_folder
from src.local_postgres.postmaster import free_port
from src.local_postgres.server import ServerStatus, running_server, start, status, stop

__all__ = [
    "ConnectionParameters",
    "LocalPostgresError",
    "RunningServer",
    "ServerStatus",
    "configured_port",
    "data_folder",
    "free_port",
    "holds_database",
    "make_data_folder",
    "read_connection",
    "running_server",
    "start",
    "status",
    "stop",
]
