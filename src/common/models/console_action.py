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
from src.common.models.console_session import SESSION_HOURS

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
        Index(
            "ix_console_sign_ins",
            "actor",
            "created_at",
            postgresql_where=text("action = 'sign_in'"),
        ),
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
CREATE_PRESENCE = (
    """
CREATE OR REPLACE FUNCTION console_actions_by_who_is_here() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  person uuid := CASE WHEN new.actor ~ '^user:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN substr(new.actor, 6)::uuid END;
  is_here boolean;
  has_come boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %1$I.console_sessions WHERE person_id = $1'
    ' AND NOT is_link AND ended_at IS NULL AND expires_at > clock_timestamp()),'
    ' EXISTS (SELECT FROM %1$I.console_actions WHERE actor = $2 AND action = %2$L'
    ' AND created_at > clock_timestamp() - interval %3$L)', tg_table_schema, 'sign_in', 'LONG_AGO')
    INTO is_here, has_come USING person, new.actor;
  IF NOT is_here OR NOT (has_come OR new.action = 'sign_in') THEN
    RAISE EXCEPTION USING ERRCODE = 'P0001',
      MESSAGE = 'AUDIT_TRAIL_ABSENT: ' || new.actor || ' is not signed in to the console';
  END IF;
  RETURN NULL;
END $$""".strip().replace("LONG_AGO", f"{SESSION_HOURS + 1} hours"),
    (
        "CREATE TRIGGER console_actions_by_who_is_here AFTER INSERT ON console_actions"
        " FOR EACH ROW EXECUTE FUNCTION console_actions_by_who_is_here()"
    ),
)
"""What refuses an action of somebody who has no session now, or whose sign-in the trail does not
have within the longest time that a session lasts; owners included. Where that changes, a
migration has to make the function anew in databases that stand."""


def create_guard_after_create_all(metadata: MetaData) -> None:
    """Have `metadata.create_all` make the trigger too, so that it makes the migrations' schema."""
    event.listen(metadata, "after_create", _create)


def _create(_metadata: MetaData, connection: Connection, **_others: object) -> None:
    standing = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'console_actions_append_only'"
        " AND tgrelid = to_regclass('console_actions')"
    ).scalar_one()
    if not standing:
        for statement in (*CREATE_GUARD, *CREATE_PRESENCE):
            connection.execute(text(statement))
