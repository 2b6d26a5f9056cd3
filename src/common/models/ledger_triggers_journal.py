"""Trigger functions: users' balances, entries and postings, as inserted, add up.

`ledger_triggers_ddl.py` has those that refuse UPDATE and DELETE.

How their queries are written (decision 0020):

- Rows are looked up by scalar subqueries, which no planner turns into a scan of a whole table.
- A window function compares a row before its change with the row after it. A join of the two
  transition tables would keep the plan of the first, small statement, and take the square of a
  large one's rows.
- No query has a parameter, so each is planned once (`ledger_triggers_ddl.py` says how).
- A short query that finds most rows right comes first. Starting a query costs more, the more tables
  it could look into, which a statement of a single row would feel.

Rows with the same `xmin` and `cmin` were written by one statement. Only that statement may write an
entry's lines, hold, debts and metadata.
"""

ENTRIES_FOLLOW = """SELECT a.user_id, a.seq INTO wrong
  FROM (SELECT e.*, lag(e.seq) OVER book AS before, lead(e.seq) OVER book AS next,
      lag(e.balance_after) OVER book AS balance_before,
      lag(e.effective_at) OVER book AS effective_before,
      e.created_at > statement_timestamp() + interval '5 minutes' AS is_ahead
    FROM added e WINDOW book AS (PARTITION BY e.user_id ORDER BY e.seq)) a
  WHERE NOT CASE
      WHEN a.before IS NOT NULL THEN a.before = a.seq - 1
        AND a.balance_after = a.balance_before + a.amount
        AND a.effective_at >= a.effective_before
        AND (NOT a.is_ahead OR a.created_at = a.effective_before)
      WHEN a.seq = 1 THEN a.balance_after = a.amount AND NOT a.is_ahead
        AND a.effective_at >= '2000-01-01T00:00:00Z'
      ELSE coalesce((SELECT a.balance_after = e.balance_after + a.amount
          AND a.effective_at >= e.effective_at
          AND (NOT a.is_ahead OR a.created_at = e.effective_at)
        FROM @here.credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq - 1), false)
    END
    OR a.effective_at > a.created_at
    OR (a.next IS NULL AND NOT coalesce(a.seq <= (SELECT u.credits_version FROM @here.users u
      WHERE u.user_id = a.user_id), false))
    OR (a.amount <> 0 AND NOT EXISTS (SELECT FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq OFFSET 0))"""
_ENTRIES_PLAINLY = f"""{ENTRIES_FOLLOW}
    OR NOT (a.related_seq IS NULL AND a.captured IS NULL AND a.hold_expires_at IS NULL
      AND a.kind = ANY ('{{opening,grant,spend,adjustment,lot_expiry}}'::text[]))
  LIMIT 1;"""
ENTRIES = f"""{ENTRIES_FOLLOW}
    OR NOT CASE
      WHEN a.related_seq IS NULL AND a.kind <> 'hold' THEN a.captured IS NULL
        AND a.hold_expires_at IS NULL
        AND a.kind <> ALL (
          '{{capture,release,hold_expiry,renewal,debt_repayment,reversal}}'::text[])
      WHEN a.kind = ANY ('{{clawback,reinstatement,reversal}}'::text[]) THEN a.captured IS NULL
        AND a.hold_expires_at IS NULL AND a.related_seq < a.seq
      WHEN a.kind = 'debt_repayment' THEN a.captured IS NULL AND a.hold_expires_at IS NULL
        AND coalesce((SELECT d.xmin = e.xmin AND d.cmin = e.cmin
          FROM @here.credit_debts d JOIN @here.credit_entries e ON e.user_id = d.user_id
          WHERE d.user_id = a.user_id AND d.seq = a.related_seq AND e.seq = a.seq), false)
      WHEN a.kind = ANY ('{{hold,capture,release,hold_expiry,renewal,spend}}'::text[])
        THEN a.captured IS NOT DISTINCT FROM CASE a.kind WHEN 'hold' THEN NULL
          WHEN 'capture' THEN greatest(a.captured, 1) WHEN 'spend' THEN -a.amount ELSE 0 END
        AND CASE WHEN a.kind = ANY ('{{hold,renewal}}'::text[])
          THEN coalesce(a.hold_expires_at > a.created_at
            AND a.hold_expires_at <= a.created_at + interval '720 hours', false)
          ELSE a.hold_expires_at IS NULL END
        AND (a.kind = 'hold') = (a.related_seq IS NULL)
        AND coalesce((SELECT h.xmin = e.xmin AND h.cmin = e.cmin
          FROM @here.credit_holds h JOIN @here.credit_entries e ON e.user_id = h.user_id
          WHERE h.user_id = a.user_id AND h.seq = coalesce(a.related_seq, a.seq)
            AND e.seq = a.seq), false)
      ELSE false
    END
  LIMIT 1;"""  # noqa: S608  our own names

UNDOING = """SELECT a.user_id, a.seq INTO wrong FROM added a
    WHERE a.kind = 'reversal' AND NOT coalesce((SELECT CASE
        WHEN a.amount > 0 THEN o.amount < 0
          AND o.kind = ANY ('{spend,hold,adjustment}'::text[])
          AND (o.kind <> 'hold' OR (SELECT sum(r.amount) FROM @here.credit_entries r
              WHERE r.user_id = o.user_id AND r.related_seq = o.seq AND r.kind = 'reversal')
            <= (SELECT coalesce(sum(c.captured), 0) FROM @here.credit_entries c
              WHERE c.user_id = o.user_id AND c.related_seq = o.seq AND c.kind = 'capture'))
          AND NOT EXISTS (SELECT FROM @here.credit_postings p
            WHERE p.user_id = a.user_id AND p.seq = a.seq AND coalesce((
              SELECT -t.amount FROM @here.credit_postings t
              WHERE t.user_id = o.user_id AND t.seq = o.seq AND t.lot_seq = p.lot_seq), 0)
              < (SELECT sum((SELECT q.amount FROM @here.credit_postings q
                  WHERE q.user_id = r.user_id AND q.seq = r.seq AND q.lot_seq = p.lot_seq))
                FROM @here.credit_entries r
                WHERE r.user_id = o.user_id AND r.related_seq = o.seq AND r.kind = 'reversal')
            OFFSET 0)
        ELSE o.amount > 0 AND o.kind = ANY ('{grant,adjustment}'::text[])
          AND EXISTS (SELECT FROM @here.credit_lots l WHERE l.user_id = o.user_id
            AND l.seq = o.seq AND l.source <> 'purchase' OFFSET 0)
          AND NOT EXISTS (SELECT FROM @here.credit_postings p
            WHERE p.user_id = a.user_id AND p.seq = a.seq AND p.lot_seq <> o.seq OFFSET 0)
      END FROM @here.credit_entries o WHERE o.user_id = a.user_id AND o.seq = a.related_seq), false)
    LIMIT 1;"""

JOURNAL_FUNCTIONS = {
    # What had expired by the newest entry is booked: otherwise no later entry could follow. Nobody
    # has both credits and debts (rules 5 and 8).
    "credit_users_balanced": """
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.credits_balance, a.credits_version INTO wrong
  FROM (SELECT r.*,
      lag(r.credits_version) OVER (PARTITION BY r.user_id ORDER BY r.is_new) AS version_before
    FROM (SELECT b.user_id, b.credits_balance, b.credits_version, false AS is_new FROM before b
      UNION ALL SELECT a.user_id, a.credits_balance, a.credits_version, true FROM after a) r) a
  WHERE a.credits_version <> a.version_before
    AND NOT coalesce((SELECT a.credits_version > a.version_before
        AND e.balance_after = a.credits_balance
        AND (SELECT coalesce(sum(l.remaining), 0) = e.balance_after
            AND coalesce(min(l.expires_at) > e.effective_at, true)
          FROM @here.credit_lots l WHERE l.user_id = a.user_id AND l.is_open)
        AND NOT EXISTS (SELECT FROM @here.credit_holds h WHERE h.user_id = a.user_id
          AND h.status = 'open' AND h.expires_at <= e.effective_at OFFSET 0)
        AND (e.balance_after = 0 OR NOT EXISTS (SELECT FROM @here.credit_debts d
          WHERE d.user_id = a.user_id AND d.outstanding > 0 OFFSET 0))
      FROM @here.credit_entries e
      WHERE e.user_id = a.user_id AND e.seq = a.credits_version), false)
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, which entries, lots, holds and debts do not '
      'say', wrong.user_id, wrong.credits_balance, wrong.credits_version));
  END IF;
  RETURN NULL;
END""",
    # At commit: a balance that changed has an entry that says so.
    "credit_users_booked": """
DECLARE
  booked record;
BEGIN
  SELECT u.credits_balance AS balance, u.credits_version AS version,
    (SELECT e.balance_after FROM @here.credit_entries e
      WHERE e.user_id = u.user_id AND e.seq = u.credits_version) AS last_balance
  INTO booked FROM @here.users u WHERE u.user_id = new.user_id;
  IF booked.balance <> coalesce(booked.last_balance, 0)
    OR (booked.version > 0 AND booked.last_balance IS NULL)
    OR (booked.version = 0 AND tg_op = 'UPDATE')
  THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'user %s has credits_balance %s at version %s, its last entry says %s',
      new.user_id, booked.balance, booked.version, booked.last_balance));
  END IF;
  RETURN NULL;
END""",
    # The entry before is mostly in the same statement, and is looked up where it is not. No entry
    # is booked in the future, except at the instant of the last one, which a clock that was ahead
    # then may have given. A hold lasts for 30 days at most (`commands.HOLD_SECONDS_MAX`). Entries
    # that undo others move the same lots the other way, and in all no more than those did.
    "credit_entries_balanced": f"""
DECLARE
  wrong record;
BEGIN
  {_ENTRIES_PLAINLY}
  IF found THEN
    {ENTRIES}
    IF NOT found AND EXISTS (SELECT FROM added a WHERE a.kind = 'reversal') THEN
      {UNDOING}
    END IF;
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'entry %s of user %s does not follow from the one before it, or is of another time, or has '
      'no postings, or comes without its hold or debt, or undoes what is not there to be undone, '
      'or the user is missing or stays behind it',
      wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END""",  # noqa: S608  our own names
    # A lot holds what its newest line says. An entry's lines come with the entry and have its
    # amount's sign. They are added up once an entry, not once a line: there may be as many as the
    # user has lots. Credits that come in make a new lot and go into no other.
    "credit_postings_balanced": """
DECLARE
  wrong record;
BEGIN
  SELECT s.user_id, s.seq, s.lot_seq INTO wrong
  FROM (SELECT a.*, lag(a.remaining_after) OVER lot AS before, lead(a.seq) OVER lot AS next,
      row_number() OVER entry AS line, count(*) OVER entry AS lines,
      sum(a.amount) OVER entry AS total, min(a.amount) OVER entry AS least,
      max(a.amount) OVER entry AS most, max(a.lot_seq) OVER entry AS newest_lot
    FROM added a WINDOW lot AS (PARTITION BY a.user_id, a.lot_seq ORDER BY a.seq),
      entry AS (PARTITION BY a.user_id, a.seq)) s
  WHERE s.before + s.amount <> s.remaining_after
    OR ((s.line = 1 OR s.next IS NULL) AND NOT coalesce((
      SELECT (s.next IS NOT NULL OR (l.last_seq, l.remaining) = (s.seq, s.remaining_after))
        AND (s.line > 1 OR (SELECT e.xmin = l.xmin AND e.cmin = l.cmin
            AND e.amount = s.total AND (s.least > 0 OR s.most < 0)
            AND CASE WHEN s.least > 0 AND e.kind = ANY ('{grant,opening,adjustment}'::text[])
              THEN s.newest_lot = s.seq AND s.lines = 1 ELSE s.newest_lot < s.seq END
            AND (e.kind <> 'lot_expiry' OR (s.lines = 1 AND l.expires_at <= e.effective_at
              AND s.remaining_after = 0))
          FROM @here.credit_entries e WHERE e.user_id = s.user_id AND e.seq = s.seq))
      FROM @here.credit_lots l WHERE l.user_id = s.user_id AND l.seq = s.lot_seq), false))
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format('posting (%s, %s) of user %s agrees neither with '
      'its lot nor its entry', wrong.seq, wrong.lot_seq, wrong.user_id));
  END IF;
  RETURN NULL;
END""",
}
"""By name, the bodies of the functions; `@here` is the schema of our tables."""
