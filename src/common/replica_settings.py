"""Settings of the read replica: where it is, how far it may be behind, who reads from it."""

from pydantic import BaseModel, Field


class ReplicaSettings(BaseModel):
    """A streaming standby that answers what may be some seconds old, for whoever asks it to."""

    database_replica_host: str | None = None
    """The host of a streaming standby; name, user, password and `DATABASE_POOLER` are those of the
    primary. Not set, the primary answers everything."""
    database_replica_port: int = Field(default=5432, ge=1, le=65535)
    database_replica_lag_max_seconds: float = Field(default=10, ge=0)
    """How far behind it may be; beyond that the primary answers."""
    database_replica_timeout_seconds: int = Field(default=2, ge=2, le=60)
    """How long it may take to let us in and to say how far behind it is."""
    database_replica_console: bool = False
    """Whether the console's lists of users and purchases, its reports and its overview are read
    from it."""
