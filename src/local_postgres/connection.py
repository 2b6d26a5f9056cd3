"""How clients connect to the server, and the private file that says it."""

import json
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.local_postgres.accounts import Account
from src.local_postgres.errors import LocalPostgresError, explained
from src.local_postgres.locations import Layout, layout_of, write_private

HOST = "127.0.0.1"
SUPERUSER = "postgres"
DATABASE = "flashslides"
_PASSWORD_BYTES = 24


@dataclass(frozen=True)
class ConnectionParameters:
    """How a client reaches the database; the password stays out of the repr."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str


@dataclass(frozen=True)
class StoredFacts:
    """What connection.json holds."""

    password: str = field(repr=False)
    port: int | None
    """None until the server has come up once; from then on the same, so that URLs stay right."""

    def parameters(self, port: int) -> ConnectionParameters:
        """Return how to connect to the server while it listens on `port`."""
        return ConnectionParameters(HOST, port, SUPERUSER, self.password, DATABASE)

    def with_port(self, port: int) -> "StoredFacts":
        """Return the same facts with another port."""
        return replace(self, port=port)


def read_connection(folder: Path | None = None) -> ConnectionParameters | None:
    """Read from disk how to connect, whether the server runs or not; None where none was made.

    Raises:
        LocalPostgresError: if this user may not read the facts, or they are damaged.
    """
    layout = layout_of(folder)
    with explained(layout.folder):
        facts = read_facts(layout)
        if facts is None or facts.port is None or not (layout.pgdata / "PG_VERSION").exists():
            return None
        return facts.parameters(facts.port)


def read_facts(layout: Layout) -> StoredFacts | None:
    """Read connection.json; None where it is missing.

    Raises:
        LocalPostgresError: if it is damaged.
    """
    try:
        stored = json.loads(layout.connection.read_text(encoding="utf-8"))
        return StoredFacts(password=str(stored["password"]), port=_port(stored["port"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LocalPostgresError(
            f"{layout.connection} is damaged. Remove it while the server is stopped: the next "
            f"start sets a new password; no data is lost."
        ) from error


def write_facts(layout: Layout, facts: StoredFacts, account: Account) -> None:
    """Keep the facts, readable by their owner only."""
    text = json.dumps({"password": facts.password, "port": facts.port})
    write_private(layout.connection, text + "\n", account)


def new_facts() -> StoredFacts:
    """Return facts with a fresh random password; the port is found at the first start."""
    return StoredFacts(password=secrets.token_urlsafe(_PASSWORD_BYTES), port=None)


def _port(stored: object) -> int | None:
    return None if stored is None else int(str(stored))
