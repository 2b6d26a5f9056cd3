"""Settings of the database: where it is, who we are there, pools, time-outs, a pooler between."""

import re
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from src.common.deployment import Deployment

DEFAULT_PASSWORDS = frozenset(
    {"", "admin", "changeme", "change-me", "flashslides", "password", "postgres", "secret"}
)

_PORT_MAX = 65_535


def _are_ports(written: str) -> str:
    ports = [each.strip() for each in written.split(",")]
    if not all(re.fullmatch("[0-9]{1,5}", each) and 1 <= int(each) <= _PORT_MAX for each in ports):
        raise ValueError(f"A port is a number from 1 to {_PORT_MAX}")
    return ",".join(ports)


Ports = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_are_ports)]
"""A port, or several separated by commas, as libpq writes them."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    """A name, an IP address, or the folder of a unix socket."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def addresses_of(hosts: str | None, ports: str) -> tuple[Address, ...]:
    """Each host with its port, in the order in which to try; none where there is no host."""
    if hosts is None:
        return ()
    named, numbered = hosts.split(","), ports.split(",")
    if len(numbered) == 1:
        numbered *= len(named)
    return tuple(Address(host, int(port)) for host, port in zip(named, numbered, strict=True))


class DatabasePooler(StrEnum):
    """What stands between us and PostgreSQL; decides statement caches and how time-outs are set."""

    NONE = "none"
    """Direct connections: caches on, time-outs as start-up options."""
    TRANSACTION = "transaction"
    """A transaction pooler that loses prepared statements (PgBouncer before 1.21): the
    document's `statement_cache_size=0`, time-outs set in each database transaction."""
    PREPARED = "prepared"
    """A transaction pooler that keeps them (PgBouncer 1.21 or later, max_prepared_statements)."""


class LedgerTriggers(StrEnum):
    """When the ledger's triggers look at what was written (decision 0065)."""

    STATEMENT = "statement"
    """At the end of each statement, all its rows at once."""
    COMMIT = "commit"
    """When the database transaction commits, row by row: for Citus."""


class Sharding(StrEnum):
    """Where the tables of a user are (decision 0066)."""

    NONE = "none"
    """In `public`, as all tables are."""
    SCHEMAS = "schemas"
    """In the schema of that user's group: `g0001`, `g0002`, …"""


class DatabaseSettings(Deployment):
    """How this process reaches the database."""

    database_host: str | None = None
    """A host name or the folder of a unix socket, or several of them separated by commas; None
    means the embedded server."""
    database_port: Ports = "5432"
    """One port for all hosts, or one for each, separated by commas."""
    database_target_session_attrs: Literal["any", "primary", "read-write"] | None = None
    """Which of several hosts will do, in libpq's words; None means `primary` where there are
    several, and `any` where there is one."""
    database_name: str = "flashslides"
    database_user: str = "postgres"
    database_password: SecretStr | None = None
    """From SSM `/flashslides/{ENV}/api/DATABASE_PASSWORD` in deployments."""
    database_direct_host: str | None = None
    """The server's own address, or several, for migrations where `database_host` is a pooler's."""
    database_direct_port: Ports = "5432"

    database_pool_size: int = Field(default=20, ge=1)
    database_max_overflow: int = Field(default=10, ge=0)
    database_pool_pre_ping: bool = True
    database_async_pool_size: int = Field(default=20, ge=1)
    database_async_max_overflow: int = Field(default=10, ge=0)
    database_async_pool_pre_ping: bool = False
    database_pool_timeout_seconds: float = Field(default=10, gt=0)
    """How long a request may wait for a free connection before it is answered DATABASE_BUSY."""
    database_connect_timeout_seconds: int = Field(default=5, ge=1)
    """How long each host has to let us in, before the next one is tried."""
    database_tcp_user_timeout_ms: int = Field(default=10_000, ge=0)
    """After how long without an acknowledgement of what was sent a connection is lost; 0 means as
    long as the system waits."""
    database_pooler: DatabasePooler = DatabasePooler.NONE
    database_ledger_triggers: LedgerTriggers = LedgerTriggers.STATEMENT
    """Which form of the ledger's triggers `flashslides db upgrade` puts in place."""
    sharding: Sharding = Sharding.NONE
    """Whether each group of users has a schema; a database keeps what it was made for."""
    database_application_name: str = "flashslides"
    database_lock_timeout_ms: int = Field(default=5_000, ge=0)
    database_statement_timeout_ms: int = Field(default=30_000, ge=0)
    database_idle_in_transaction_session_timeout_ms: int = Field(default=60_000, ge=0)

    @field_validator("database_password", mode="before")
    @classmethod
    def _strip_newline(cls, value: object) -> object:
        """A password may have blanks, which are its own."""
        return value.rstrip("\r\n") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _refuse_unsafe_passwords(self) -> Self:
        if self.is_local:
            return self
        password = self.database_password.get_secret_value() if self.database_password else ""
        if password.strip().lower() in {*DEFAULT_PASSWORDS, self.database_user.strip().lower()}:
            raise ValueError(
                "DATABASE_PASSWORD is missing, a well-known default or the user's name, which "
                f"ENV={self.env} refuses; "
                f"set it, or the SSM parameter /flashslides/{self.env}/api/DATABASE_PASSWORD"
            )
        return self

    @field_validator("database_host", "database_direct_host")
    @classmethod
    def _refuse_empty_hosts(cls, value: str | None) -> str | None:
        """To libpq a host without a name is whatever server has the usual socket."""
        if value is None:
            return None
        hosts = [each.strip() for each in value.split(",")]
        if not all(hosts):
            raise ValueError("A host between two commas has no name")
        return ",".join(hosts)

    @model_validator(mode="after")
    def _refuse_ports_of_no_host(self) -> Self:
        """Which port belongs to which host would be a guess."""
        for name, host, port in (
            ("", self.database_host, self.database_port),
            ("DIRECT_", self.database_direct_host, self.database_direct_port),
        ):
            hosts = host.count(",") + 1 if host else 0
            ports = port.count(",") + 1
            if ports not in {1, hosts}:
                raise ValueError(
                    f"DATABASE_{name}PORT names {ports} ports, and DATABASE_{name}HOST {hosts} "
                    "hosts; name one port for all hosts, or one for each"
                )
        return self

    @property
    def database_addresses(self) -> tuple[Address, ...]:
        """Where the database may be, in the order in which to try; none for the embedded server."""
        return addresses_of(self.database_host, self.database_port)

    @property
    def session_attrs(self) -> str:
        """Which of the hosts will do, in libpq's words."""
        several = "primary" if len(self.database_addresses) > 1 else "any"
        return self.database_target_session_attrs or several
