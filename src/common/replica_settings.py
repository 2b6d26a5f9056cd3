"""Settings of the read replica: where it is, how far it may be behind, who reads from it."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from src.common.database_settings import Address, DatabaseSettings, Ports, addresses_of


class ReplicaSettings(DatabaseSettings):
    """A streaming standby that answers what may be some seconds old, for whoever asks it to."""

    database_replica_host: str | None = None
    """The host of a streaming standby, or of several, separated by commas; the rest is as of the
    primary. Not set, the primary answers everything."""
    database_replica_port: Ports = "5432"
    database_replica_lag_max_seconds: float = Field(default=10, ge=0)
    """How far behind it may be; beyond that the primary answers."""
    database_replica_timeout_seconds: int = Field(default=2, ge=2, le=60)
    """How long each host may take to let us in, and one to say how far behind it is."""
    database_replica_console: bool = False
    """Whether the console's lists of users and purchases, its reports and its overview are read
    from it."""

    @field_validator("database_replica_host")
    @classmethod
    def _refuse_empty_replica_hosts(cls, value: str | None) -> str | None:
        return cls._refuse_empty_hosts(value)

    @model_validator(mode="after")
    def _refuse_a_replica_of_nobody(self) -> Self:
        if self.database_replica_host is None:
            return self
        if self.database_host is None:
            raise ValueError("DATABASE_REPLICA_HOST is set and DATABASE_HOST, its primary, is not")
        try:
            addresses_of(self.database_replica_host, self.database_replica_port)
        except ValueError:
            raise ValueError(
                "DATABASE_REPLICA_PORT and DATABASE_REPLICA_HOST: name one port for all hosts, or "
                "one for each"
            ) from None
        return self

    @property
    def replica_addresses(self) -> tuple[Address, ...]:
        """Where it may be, in the order in which to try; none where there is no replica."""
        return addresses_of(self.database_replica_host, self.database_replica_port)

    @property
    def replica_address(self) -> str | None:
        """The same in words; None where there is no replica."""
        return ", ".join(map(str, self.replica_addresses)) or None
