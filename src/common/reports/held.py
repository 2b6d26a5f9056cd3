"""Which lots captured credits came from, in SQL: off the hold's lots in burn order (rules 6, 7).

Opening a hold posts what it takes from each lot, and closing it what goes back. What is kept in
between has no postings: here it is counted off, as `rules.returned` does. Amounts are `int`, as
those of postings are: then sums over both are `bigint`, which adds up faster than `numeric`.
"""

CAPTURED = """
captures AS (
    SELECT user_id, seq, related_seq AS hold_seq, effective_at, captured,
           sum(captured) OVER (PARTITION BY user_id, related_seq ORDER BY seq) - captured AS kept
    FROM credit_entries
    WHERE kind = 'capture' AND captured > 0 AND related_seq IS NOT NULL  -- as its index says
),
captured_holds AS (SELECT DISTINCT user_id, hold_seq FROM captures),
allocations AS (
    SELECT lines.user_id, lines.seq AS hold_seq, lines.lot_seq, -lines.amount AS taken,
           sum(-lines.amount) OVER (
               PARTITION BY lines.user_id, lines.seq
               ORDER BY lots.priority, lots.expires_at NULLS LAST, lots.seq
           ) + lines.amount AS begun
    FROM captured_holds AS holds
    JOIN credit_postings AS lines
        ON lines.user_id = holds.user_id AND lines.seq = holds.hold_seq
    JOIN credit_lots AS lots ON lots.user_id = lines.user_id AND lots.seq = lines.lot_seq
),
captured AS (
    SELECT user_id, captures.seq, lot_seq, effective_at,
           CAST(least(kept + captured, begun + taken) - greatest(kept, begun) AS int) AS amount
    FROM captures JOIN allocations USING (user_id, hold_seq)
    WHERE least(kept + captured, begun + taken) > greatest(kept, begun)
)"""
"""`captured`: credits (+) that each capture kept of each lot."""

HELD_NOW = """
open_lines AS (
    SELECT lines.user_id, lines.lot_seq, -lines.amount AS taken, holds.captured,
           sum(-lines.amount) OVER (
               PARTITION BY lines.user_id, lines.seq
               ORDER BY lots.priority, lots.expires_at NULLS LAST, lots.seq
           ) + lines.amount AS begun
    FROM credit_holds AS holds
    JOIN credit_postings AS lines ON lines.user_id = holds.user_id AND lines.seq = holds.seq
    JOIN credit_lots AS lots ON lots.user_id = lines.user_id AND lots.seq = lines.lot_seq
    WHERE holds.status = 'open'
),
held_now AS (
    SELECT user_id, lot_seq,
           CAST(taken - least(greatest(captured - begun, 0), taken) AS int) AS amount
    FROM open_lines
)"""
"""`held_now`: credits (+) of each lot in each hold that is booked as open."""

OF_HOLDS = "('hold', 'capture', 'release', 'hold_expiry')"
"""The kinds whose lines move credits between a lot and a hold."""
