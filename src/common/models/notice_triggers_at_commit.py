"""The second form of the triggers that write notices: row by row, at COMMIT (decision 0065).

Where the ledger's one statement is cut into several, its lots, debts and users are there at the end
only. What is told is the same, with one difference: what debts and money back tell is numbered
after the entries, however many operations the database transaction had.
"""

from src.common.models.notice_triggers import IS_NEWS, OF_FALLS, ROW_BY_ROW, TELL

_ADDED, _NEW = "FROM added e", "FROM (SELECT new.*) e"
_OF_INSTANT = """FROM (SELECT i.* FROM @here.credit_entries i WHERE i.user_id = new.user_id
      AND i.seq >= first AND i.effective_at = new.effective_at) e"""
_LAST = " AND f.seq = new.seq"

NOTICE_COMMIT_FUNCTIONS = {
    # The last entry of an instant tells of the fall, if there was one: of what this database
    # transaction wrote at that instant. `credit_entry_written_now` is of the ledger's second form.
    "credit_entries_told_at_commit": f"""
DECLARE
  first integer := new.seq;
BEGIN
  IF {IS_NEWS.replace(_ADDED, _NEW)} THEN
    IF NOT EXISTS (SELECT FROM @here.credit_entries i WHERE i.user_id = new.user_id
      AND i.seq = new.seq + 1 AND i.effective_at = new.effective_at) THEN
      WHILE EXISTS (SELECT FROM @here.credit_entries i WHERE i.user_id = new.user_id
          AND i.seq = first - 1 AND i.effective_at = new.effective_at)
        AND @here.credit_entry_written_now(new.user_id, first - 1)
      LOOP
        first := first - 1;
      END LOOP;
    END IF;
    {TELL.replace(OF_FALLS, OF_FALLS.replace(_ADDED, _OF_INSTANT) + _LAST).replace(_ADDED, _NEW)}
  END IF;
  RETURN NULL;
END""",  # noqa: S608  our own names
}

NOTICE_CHECKED = {
    "credit_entries_told_at_commit": (
        *("INSERT", "credit_entries"),
        *("true", "credit_entries_told_at_commit"),
    ),
    **{
        f"{name}_at_commit": (operation, table, condition, function)
        for (name, table), (operation, condition, function) in ROW_BY_ROW.items()
    },
}
"""By name: operation, table, condition, function."""
