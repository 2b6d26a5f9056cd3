"""Trigger functions: holds, debts, metadata and purchases agree with their entries.

Their queries are written as `ledger_triggers_journal.py` says. A spend runs none of them.
"""

OWED_BESIDE_CREDITS = """(d.outstanding > 0 AND (SELECT u.credits_balance FROM @here.users u
      WHERE u.user_id = d.user_id) <> 0)"""
_WRITTEN = """WITH RECURSIVE written AS (
        SELECT e.seq, e.kind, e.amount, e.related_seq, n.xmin AS writer, n.cmin AS command
        FROM @here.credit_debts n JOIN @here.users u ON u.user_id = n.user_id
          JOIN @here.credit_entries e ON e.user_id = u.user_id AND e.seq = u.credits_version
        WHERE n.user_id = d.user_id AND n.seq = d.seq AND e.xmin = n.xmin AND e.cmin = n.cmin
        UNION ALL
        SELECT e.seq, e.kind, e.amount, e.related_seq, w.writer, w.command
        FROM written w JOIN @here.credit_entries e
          ON e.user_id = d.user_id AND e.seq = w.seq - 1
        WHERE e.xmin = w.writer AND e.cmin = w.command)"""
"""The user's entries that the statement wrote: its newest, back to the first of another one."""
DEBT_REFUSED = """IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'debt %s of user %s, of which %s is outstanding, is of no payment, stands beside credits, or '
      'was changed otherwise than an entry says', wrong.seq, wrong.user_id, wrong.outstanding));
  END IF;
  RETURN NULL;"""

HOLD_FUNCTIONS = {
    # A hold is what its entries say: the one that opened it, and those that acted on it.
    "credit_holds_balanced": """
DECLARE
  wrong record;
BEGIN
  SELECT h.user_id, h.seq, h.status INTO wrong
  FROM after h CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.captured), 0) AS captured,
      coalesce(sum(e.captured) FILTER (WHERE e.kind = 'capture'), 0) AS in_time,
      coalesce(sum(e.amount) FILTER (WHERE e.kind <> 'spend'), 0) AS returned,
      max(e.seq) FILTER (WHERE e.kind <> 'spend') AS newest,
      min(e.seq) FILTER (WHERE e.kind = 'spend') AS retaken,
      (array_agg(e.kind ORDER BY e.seq DESC) FILTER (WHERE e.kind <> 'spend'))[1] AS kind,
      (array_agg(e.hold_expires_at ORDER BY e.seq DESC) FILTER (WHERE e.kind = 'renewal'))[1]
        AS renewed_to
    FROM @here.credit_entries e WHERE e.user_id = h.user_id AND e.related_seq = h.seq
      AND e.kind = ANY ('{capture,release,hold_expiry,renewal,spend}'::text[])) s
  WHERE NOT coalesce((SELECT o.kind = 'hold' AND o.amount = -h.amount
        AND h.expires_at = coalesce(s.renewed_to, o.hold_expires_at)
      FROM @here.credit_entries o WHERE o.user_id = h.user_id AND o.seq = h.seq), false)
    OR h.captured <> s.captured
    OR h.status <> CASE WHEN s.kind = 'release' THEN 'released'
      WHEN s.kind = 'hold_expiry' THEN 'expired'
      WHEN s.kind = 'capture' AND (s.returned > 0 OR s.in_time = h.amount) THEN 'captured'
      ELSE 'open' END
    OR s.returned <> CASE h.status WHEN 'open' THEN 0 ELSE h.amount - s.in_time END
    OR (s.retaken IS NOT NULL AND (h.status <> 'expired' OR s.retaken < s.newest))
    OR (s.returned > 0 AND EXISTS (SELECT FROM @here.credit_postings p
      WHERE p.user_id = h.user_id AND p.seq = s.newest
        AND p.amount > coalesce((SELECT -t.amount FROM @here.credit_postings t
          WHERE t.user_id = h.user_id AND t.seq = h.seq AND t.lot_seq = p.lot_seq), 0) OFFSET 0))
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'hold %s of user %s is %s, or otherwise not what its entries say', wrong.seq, wrong.user_id,
      wrong.status));
  END IF;
  RETURN NULL;
END""",
    # A debt belongs to a payment or to the opening. Whoever has one has no credits. It changes only
    # with entries that say so. How much may be owed `verify` finds out, from what Stripe told.
    "credit_debts_made": f"""
DECLARE
  wrong record;
BEGIN
  SELECT d.user_id, d.seq, d.outstanding INTO wrong FROM after d
  WHERE {OWED_BESIDE_CREDITS}
    OR NOT coalesce((SELECT e.kind = 'opening' OR (d.opening_debt = 0
        AND EXISTS (SELECT FROM @here.credit_lots l
          WHERE l.user_id = d.user_id AND l.seq = d.seq AND l.source = 'purchase' OFFSET 0))
      FROM @here.credit_entries e WHERE e.user_id = d.user_id AND e.seq = d.seq), false)
    OR NOT coalesce(({_WRITTEN}
      SELECT bool_or(w.kind = ANY ('{{clawback,reinstatement,opening}}'::text[]))
      FROM written w), false)
  LIMIT 1;
  {DEBT_REFUSED}
END""",  # noqa: S608  our own names
    "credit_debts_balanced": f"""
DECLARE
  wrong record;
BEGIN
  SELECT d.user_id, d.seq, d.outstanding INTO wrong
  FROM (SELECT r.*, lag(r.outstanding) OVER debt AS owed_before
    FROM (SELECT b.user_id, b.seq, b.outstanding, false AS is_new FROM before b
      UNION ALL SELECT a.user_id, a.seq, a.outstanding, true FROM after a) r
    WINDOW debt AS (PARTITION BY r.user_id, r.seq ORDER BY r.is_new)) d
  WHERE d.is_new AND ({OWED_BESIDE_CREDITS}
    OR NOT coalesce(({_WRITTEN}
      SELECT bool_or(w.kind = ANY ('{{clawback,reinstatement}}'::text[]))
        OR sum(-w.amount) FILTER (WHERE w.kind = 'debt_repayment' AND w.related_seq = d.seq)
          = d.owed_before - d.outstanding
      FROM written w), false))
  LIMIT 1;
  {DEBT_REFUSED}
END""",  # noqa: S608  our own names
    # Metadata is written by the statement that writes its entry.
    "credit_metadata_added": """
DECLARE
  wrong record;
BEGIN
  SELECT m.user_id, m.seq INTO wrong FROM added m
  WHERE NOT coalesce((SELECT e.xmin = n.xmin AND e.cmin = n.cmin
    FROM @here.credit_entry_metadata n JOIN @here.credit_entries e
      ON e.user_id = n.user_id AND e.seq = n.seq
    WHERE n.user_id = m.user_id AND n.seq = m.seq), false)
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'metadata of entry %s of user %s was not written with it', wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END""",
    # Metadata is deleted only when its user has been erased.
    "credit_metadata_erased": """
DECLARE
  wrong record;
BEGIN
  SELECT m.user_id, m.seq INTO wrong FROM gone m
  WHERE NOT coalesce((SELECT u.erased_at IS NOT NULL FROM @here.users u
    WHERE u.user_id = m.user_id), false)
  LIMIT 1;
  IF found THEN
    PERFORM @here.credit_ledger_unbalanced(format(
      'metadata of entry %s of user %s stays until the user is erased', wrong.seq, wrong.user_id));
  END IF;
  RETURN NULL;
END""",
    "transactions_fixed": """
BEGIN
  PERFORM @here.credit_ledger_unbalanced(format(
    'transaction %s: what was bought, by whom and for how much never changes, and none is from '
    'before the ledger that was not there then', new.transaction_id));
  RETURN NULL;
END""",
}
"""By name, the bodies of the functions; `@here` is the schema of our tables."""
