"""The triggers that keep a request for a second person's consent as it was asked (rule 13).

CHECK constraints say which rows there may be: by whom and until when it is decided. The triggers
say what may become of one: it is asked open, decided once and at that very time, and never deleted.
They refuse owners too. All raise P0001 `APPROVAL_FIXED: …`.
"""

from sqlalchemy import Connection, MetaData, event, text

_ASKED = (
    *("approval_id", "user_id", "transaction_id", "command", "requester", "idempotency_key"),
    *("request_digest", "created_at", "expires_at"),
)
_DECIDED = ("status", "decider", "decided_at")


def _row(name: str, columns: tuple[str, ...]) -> str:
    return f"({', '.join(f'{name}.{each}' for each in columns)})"


CREATE_FUNCTION = f"""
CREATE OR REPLACE FUNCTION approvals_guarded() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem text;
BEGIN
  IF tg_op = 'DELETE' OR tg_op = 'TRUNCATE' THEN
    problem := 'a request stays, whatever became of it';
  ELSIF tg_op = 'INSERT' THEN
    problem := CASE WHEN new.status <> 'open' THEN 'a request begins open'
      WHEN new.reason IS NULL THEN 'a request has a reason' END;
  ELSIF {_row("new", _ASKED)} IS DISTINCT FROM {_row("old", _ASKED)} THEN
    problem := 'what was asked does not change';
  ELSIF new.reason IS DISTINCT FROM old.reason AND new.reason IS NOT NULL THEN
    problem := 'a reason is not rewritten';
  ELSIF old.status <> 'open' AND ({_row("new", _DECIDED)} IS DISTINCT FROM {_row("old", _DECIDED)}
      OR (new.note IS DISTINCT FROM old.note AND new.note IS NOT NULL)) THEN
    problem := 'it is decided already';
  ELSIF old.status = 'open' AND new.status <> 'open'
      AND new.decided_at NOT BETWEEN transaction_timestamp() AND clock_timestamp() THEN
    problem := 'it is decided now, and at no other time';
  ELSIF new.reason IS NULL AND old.reason IS NOT NULL
      AND (new.status = 'open' AND new.expires_at > clock_timestamp()) THEN
    problem := 'whoever is to consent needs the reason';
  END IF;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = 'APPROVAL_FIXED: ' || problem;
  END IF;
  RETURN NULL;
END $$"""
CREATE_TRIGGERS = tuple(
    f"CREATE TRIGGER {name} {events} ON approvals FOR EACH {each}"
    " EXECUTE FUNCTION approvals_guarded()"
    for name, events, each in (
        ("approvals_guarded", "AFTER INSERT OR UPDATE OR DELETE", "ROW"),
        ("approvals_kept", "BEFORE TRUNCATE", "STATEMENT"),
    )
)
DROP_FUNCTION = "-- squawk-ignore ban-drop-function\nDROP FUNCTION approvals_guarded"
"""Once the table is gone, and its triggers with it."""


def create_after_create_all(metadata: MetaData) -> None:
    """Have `metadata.create_all` make the triggers too, so that it makes the migrations' schema."""
    event.listen(metadata, "after_create", _create)


def _create(_metadata: MetaData, connection: Connection, **_others: object) -> None:
    standing = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'approvals_guarded'"
        " AND tgrelid = to_regclass('approvals')"
    ).scalar_one()
    if not standing:
        for statement in (CREATE_FUNCTION, *CREATE_TRIGGERS):
            connection.execute(text(statement))
