"""The console's audit trail: who did or saw what, append-only by trigger."""

import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    Identity,
    Index,
    MetaData,
    String,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from src.common.models.base import Base, CreatedAt

REASON_LENGTH_MAX = 500


class ConsoleAction(Base):
    """One thing that a person did in the console, or one page about a person that they saw.

    Written in the database transaction of what it tells of, so that there is neither without the
    other. It holds ids and figures, nobody's address or name.
    """

    __tablename__ = "console_actions"

    action_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[CreatedAt]
    actor: Mapped[str] = mapped_column(String)
    """The person, `user:` and an id."""
    action: Mapped[str] = mapped_column(String)
    """What was done or seen, such as `stripe_events.replay` or `users.see`."""
    user_id: Mapped[uuid.UUID | None]
    """The user it was about. No foreign key: looking at a page locks no user's row."""
    target: Mapped[str | None] = mapped_column(String)
    """The id of what it was about, where that is not the user."""
    reason: Mapped[str | None] = mapped_column(String)
    """Why, in the person's words, who is told to name nobody."""
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    form_key: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    """The key that came with the form: a form is recorded once, however often it is sent."""
    request_id: Mapped[str | None] = mapped_column(String)

    __table_args__ = (
        CheckConstraint("actor LIKE 'user:_%'", "actor_is_a_person"),
        CheckConstraint("action <> ''", "action_not_empty"),
        CheckConstraint(f"length(reason) BETWEEN 1 AND {REASON_LENGTH_MAX}", "reason_length"),
        CheckConstraint(
            "position('@' in concat(actor, target, reason, before::text, after::text)) = 0",
            "names_no_address",
        ),
        Index("ix_console_actions_user_id", "user_id", "action_id"),
        Index("ix_console_actions_actor", "actor", "action_id"),
    )


CREATE_GUARD = (
    """
CREATE OR REPLACE FUNCTION console_actions_kept() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'P0001',
    MESSAGE = 'AUDIT_TRAIL_KEPT: ' || tg_op || ' on ' || tg_table_name
      || ' is refused: the audit trail is append-only';
END $$""".strip(),
    (
        "CREATE TRIGGER console_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
        " ON console_actions FOR EACH STATEMENT EXECUTE FUNCTION console_actions_kept()"
    ),
)
"""What refuses UPDATE, DELETE and TRUNCATE, owners included."""


def create_guard_after_create_all(metadata: MetaData) -> None:
    """Have `metadata.create_all` make the trigger too, so that it makes the migrations' schema."""
    event.listen(metadata, "after_create", _create)


def _create(_metadata: MetaData, connection: Connection, **_others: object) -> None:
    standing = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'console_actions_append_only'"
        " AND tgrelid = to_regclass('console_actions')"
    ).scalar_one()
    if not standing:
        for statement in CREATE_GUARD:
            connection.execute(text(statement))
