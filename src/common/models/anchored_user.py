"""What the newest checkpoint says of each user: from this it is known who has changed since."""

import uuid

from sqlalchemy import CheckConstraint, Integer, LargeBinary, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base


class AnchoredUser(Base):
    """One user at the newest checkpoint. No foreign key: that would lock users while it is written.

    Whoever changes it changes which leaves come with the next checkpoint, and not its root: then
    the two do not fit, which `flashslides verify --anchors` says.
    """

    __tablename__ = "anchored_users"

    user_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    """How many entries the user had."""
    last_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """The newest entry's hash; 32 octets of 0 where there was none."""

    __table_args__ = (
        CheckConstraint("version >= 0", "version_not_negative"),
        CheckConstraint("octet_length(last_hash) = 32", "hash_length"),
    )
