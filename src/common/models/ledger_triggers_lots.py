"""Trigger functions: lots agree with their entries and postings.

Their queries are written as `ledger_triggers_journal.py` says.
"""

_LOTS_MOVED = """SELECT a.user_id, a.seq, a.remaining, a.seq_before, a.last_seq INTO wrong
  FROM (SELECT r.*, lag(r.remaining) OVER lot AS remaining_before,
      lag(r.last_seq) OVER lot AS seq_before
    FROM (SELECT b.user_id, b.seq, b.remaining, b.last_seq, false AS is_new FROM before b
      UNION ALL SELECT a.user_id, a.seq, a.remaining, a.last_seq, true FROM after a) r
    WINDOW lot AS (PARTITION BY r.user_id, r.seq ORDER BY r.is_new)) a
  WHERE a.is_new AND a.last_seq IS DISTINCT FROM a.seq_before"""
_LOTS_PLAINLY = f"""{_LOTS_MOVED}
    AND NOT coalesce((SELECT a.seq_before = a.last_seq - 1 AND p.remaining_after = a.remaining
        AND a.remaining - a.remaining_before = p.amount
      FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq), false)
  LIMIT 1;"""  # noqa: S608  our own names
_LOTS = f"""{_LOTS_MOVED}
    AND NOT coalesce((SELECT p.remaining_after = a.remaining
        AND a.remaining - a.remaining_before = CASE
          WHEN a.seq_before = a.last_seq - 1 OR NOT EXISTS (SELECT FROM @here.credit_entries e
            WHERE e.user_id = a.user_id AND e.seq = a.last_seq - 1 AND e.seq > a.seq_before
              AND e.xmin = p.xmin AND e.cmin = p.cmin OFFSET 0)
          THEN p.amount
          ELSE (SELECT sum(q.amount) FROM @here.credit_postings q
            WHERE q.user_id = a.user_id AND q.lot_seq = a.seq AND q.seq <= a.last_seq
              AND q.seq > greatest(a.seq_before, CASE WHEN EXISTS (
                  SELECT FROM @here.credit_entries e WHERE e.user_id = a.user_id
                    AND e.seq = a.last_seq - 1000 AND e.xmin = p.xmin AND e.cmin = p.cmin OFFSET 0)
                THEN 0 ELSE a.last_seq - 1000 END)) END
      FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq), false)
  LIMIT 1;"""  # noqa: S608  our own names

LOT_FUNCTIONS = {
    # A new lot comes from an entry that brings credits in, has all of them, and expires after it.
    # If it has a purchase, that is the user's and bought as many credits.
    "credit_lots_made": """
DECLARE
  wrong record;
BEGIN
  SELECT a.user_id, a.seq, a.remaining, a.last_seq INTO wrong FROM after a
  WHERE a.remaining IS DISTINCT FROM (SELECT p.remaining_after FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.last_seq AND p.lot_seq = a.seq)
    OR NOT coalesce((SELECT p.amount = a.granted AND p.remaining_after = a.granted
      FROM @here.credit_postings p
      WHERE p.user_id = a.user_id AND p.seq = a.seq AND p.lot_seq = a.seq), false)
    OR NOT coalesce((SELECT CASE e.kind WHEN 'grant' THEN a.priority >= 0
          WHEN 'adjustment' THEN a.source = 'adjustment' AND a.expires_at IS NULL
          WHEN 'opening' THEN a.source = 'opening' AND a.expires_at IS NULL ELSE false END
        AND coalesce(a.expires_at > e.created_at AND a.expires_at < '9999-01-02T00:00:00Z', true)
      FROM @here.credit_entries e WHERE e.user_id = a.user_id AND e.seq = a.seq), false)
    OR (a.transaction_id IS NOT NULL AND NOT coalesce((SELECT t.user_id = a.user_id
        AND t.credits_added = a.granted AND NOT t.predates_ledger
      FROM @here.transactions t WHERE t.transaction_id = a.transaction_id), false))
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'lot %s of user %s, of which %s remains, is not what its entry made, its purchase paid for '
      'or its postings %s and %s say', wrong.seq, wrong.user_id, wrong.remaining, wrong.seq,
      wrong.last_seq));
  END IF;
  RETURN NULL;
END""",
    # What remains is what remained and the new postings. Mostly there is one: it comes right after
    # the posting before it, or the entry between is of an earlier statement. Otherwise they are
    # added up, back to the first entry of this statement: the index is by user and entry, not by
    # lot.
    "credit_lots_balanced": f"""
DECLARE
  wrong record;
BEGIN
  {_LOTS_PLAINLY}
  IF found THEN
    {_LOTS}
  END IF;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'lot %s of user %s holds %s, which what it held and its postings after %s to %s do not say',
      wrong.seq, wrong.user_id, wrong.remaining, wrong.seq_before, wrong.last_seq));
  END IF;
  RETURN NULL;
END""",
    "credit_lots_fixed": """
BEGIN
  PERFORM @here.credit_ledger_unbalanced(format(
    'lot %s of user %s: only what remains changes, by a new posting', old.seq, old.user_id));
  RETURN NULL;
END""",
}
"""By name, the bodies of the functions; `@here` is the schema of our tables."""
