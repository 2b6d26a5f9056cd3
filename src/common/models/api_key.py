"""Keys with which other services call the API; only a hash of each is kept."""

from sqlalchemy import CheckConstraint, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import PRIVATE, Base, CreatedAt, Instant, UuidPrimaryKey


class ApiKey(Base):
    """One key of one service. The key itself is shown once, when it is made."""

    __tablename__ = "api_keys"

    key_id: Mapped[UuidPrimaryKey]
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True, info=PRIVATE)
    """SHA-256 of the key; the key has 256 random bits, so that no salt is needed."""
    last_four: Mapped[str] = mapped_column(String)
    """The key's last four characters, to tell keys apart."""
    service_name: Mapped[str] = mapped_column(String, index=True)
    """Who calls. It stays the same when the key is rotated."""
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    """What it may do: values of `Scope`, one or more."""
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Instant | None]
    """From then on it is refused; NULL is never."""
    revoked_at: Mapped[Instant | None]
    """When somebody revoked it; it is refused since."""

    __table_args__ = (
        CheckConstraint("octet_length(key_hash) = 32", "key_hash_is_sha256"),
        CheckConstraint("length(last_four) = 4", "last_four_length"),
        CheckConstraint("service_name <> ''", "service_name_not_empty"),
        CheckConstraint("cardinality(scopes) > 0", "scopes_not_empty"),
    )
