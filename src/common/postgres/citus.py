"""Whether a database is of Citus's: it says so itself, nothing is set (decision 0070)."""

from sqlalchemy import Connection, text

_HAS_CITUS = text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")


def is_citus(connection: Connection) -> bool:
    """Whether it has Citus's extension."""
    has_citus: bool = connection.execute(_HAS_CITUS).scalar_one()
    return has_citus
