"""Checks the books by sums in SQL, without the rules."""

_BOOKS = """
people AS (
    SELECT user_id, credits_balance, credits_version FROM users
    WHERE user_id = ANY (:user_ids)
),
entries AS (
    SELECT user_id, seq, kind, amount, balance_after, captured, related_seq, hold_expires_at,
           effective_at,
           lag(seq, 1, 0) OVER journal AS previous_seq,
           lag(balance_after, 1, 0) OVER journal AS previous_balance,
           lag(effective_at) OVER journal AS previous_effective_at,
           lead(seq) OVER journal IS NULL AS is_newest
    FROM credit_entries WHERE user_id = ANY (:user_ids)
    WINDOW journal AS (PARTITION BY user_id ORDER BY seq)
),
postings AS (
    SELECT user_id, seq, lot_seq, amount, remaining_after,
           lag(remaining_after, 1, 0) OVER lot AS previous_remaining,
           lead(seq) OVER lot IS NULL AS is_newest
    FROM credit_postings WHERE user_id = ANY (:user_ids)
    WINDOW lot AS (PARTITION BY user_id, lot_seq ORDER BY seq)
),
lots AS (SELECT * FROM credit_lots WHERE user_id = ANY (:user_ids)),
lot_totals AS (SELECT user_id, sum(remaining) AS total FROM lots GROUP BY user_id),
debt_totals AS (
    SELECT user_id, sum(outstanding) AS total FROM credit_debts
    WHERE user_id = ANY (:user_ids) GROUP BY user_id
),
journals AS (
    SELECT user_id, sum(amount) AS total, max(seq) AS version,
           max(balance_after) FILTER (WHERE is_newest) AS balance_after
    FROM entries GROUP BY user_id
),
balances AS (
    SELECT people.*, journals.total, journals.version, journals.balance_after,
           coalesce(lot_totals.total, 0) AS in_lots, coalesce(debt_totals.total, 0) AS debt,
           credits_version = 0 AND credits_balance <> 0
               AND journals.user_id IS NULL AND lot_totals.user_id IS NULL AS is_unopened
    FROM people
    LEFT JOIN journals USING (user_id)
    LEFT JOIN lot_totals USING (user_id)
    LEFT JOIN debt_totals USING (user_id)
),
entry_lines AS (
    SELECT user_id, seq, sum(amount) AS total FROM postings GROUP BY user_id, seq
),
lot_lines AS (
    SELECT user_id, lot_seq AS seq, sum(amount) AS total,
           max(seq) AS last_seq,
           max(remaining_after) FILTER (WHERE is_newest) AS remaining,
           sum(amount) FILTER (WHERE seq = lot_seq) AS granted
    FROM postings GROUP BY user_id, lot_seq
),
lots_and_lines AS (
    SELECT user_id, seq, lots.granted, lots.remaining, lots.last_seq, lots.is_open,
           lines.granted AS granted_by_lines, lines.remaining AS remaining_by_newest_line,
           lines.last_seq AS last_seq_by_lines, lines.total AS total_of_lines
    FROM lots FULL JOIN lot_lines AS lines USING (user_id, seq)
),
hold_lines AS (
    SELECT user_id, related_seq AS seq,
           coalesce(sum(captured), 0) AS captured,
           coalesce(sum(captured) FILTER (WHERE kind = 'capture'), 0) AS captured_in_time,
           coalesce(sum(amount) FILTER (WHERE kind <> 'spend'), 0) AS returned,
           bool_or(kind = 'release') AS is_released,
           bool_or(kind = 'hold_expiry') AS is_expired
    FROM entries
    WHERE kind IN ('capture', 'release', 'hold_expiry', 'spend') AND related_seq IS NOT NULL
    GROUP BY user_id, related_seq
),
hold_expiries AS (
    SELECT DISTINCT ON (user_id, coalesce(related_seq, seq))
           user_id, coalesce(related_seq, seq) AS seq, hold_expires_at AS expires_at
    FROM entries WHERE kind IN ('hold', 'renewal')
    ORDER BY user_id, coalesce(related_seq, seq), entries.seq DESC
),
hold_openings AS (
    SELECT user_id, seq, -amount AS amount FROM entries WHERE kind = 'hold'
),
hold_books AS (
    SELECT user_id, seq, holds.amount, holds.captured, holds.status, holds.expires_at,
           openings.amount AS amount_by_entry,
           coalesce(lines.captured, 0) AS captured_by_entries,
           coalesce(lines.captured_in_time, 0) AS captured_in_time,
           coalesce(lines.returned, 0) AS returned,
           CASE WHEN lines.is_released THEN 'released'
                WHEN lines.is_expired THEN 'expired'
                WHEN lines.returned > 0 OR lines.captured_in_time = openings.amount THEN 'captured'
                ELSE 'open' END AS status_by_entries,
           expiries.expires_at AS expires_at_by_entries
    FROM (SELECT * FROM credit_holds WHERE user_id = ANY (:user_ids)) AS holds
    FULL JOIN hold_openings AS openings USING (user_id, seq)
    LEFT JOIN hold_lines AS lines USING (user_id, seq)
    LEFT JOIN hold_expiries AS expiries USING (user_id, seq)
)
"""

CHECKS = {
    # kind: (user_id, seq, expected, found) of every row that is not as it should be
    "BALANCE_IS_NOT_ITS_ENTRIES": """
        SELECT user_id, NULL::int, coalesce(total, 0), credits_balance FROM balances
        WHERE credits_balance <> coalesce(total, 0) AND NOT is_unopened""",
    "BALANCE_IS_NOT_ITS_NEWEST_ENTRYS": """
        SELECT user_id, NULL, coalesce(balance_after, 0), credits_balance FROM balances
        WHERE credits_balance <> coalesce(balance_after, 0) AND NOT is_unopened""",
    "BALANCE_IS_NOT_ITS_LOTS": """
        SELECT user_id, NULL, in_lots, credits_balance FROM balances
        WHERE credits_balance <> in_lots AND NOT is_unopened""",
    "VERSION_IS_NOT_THE_NEWEST_ENTRY": """
        SELECT user_id, NULL, coalesce(version, 0), credits_version FROM balances
        WHERE credits_version <> coalesce(version, 0)""",
    "DEBT_BESIDE_A_BALANCE": """
        SELECT user_id, NULL, 0, credits_balance FROM balances
        WHERE debt > 0 AND credits_balance > 0""",
    "DEBT_IS_NEGATIVE": """
        SELECT user_id, seq, 0, outstanding FROM credit_debts
        WHERE user_id = ANY (:user_ids) AND outstanding < 0""",
    "DEBT_OF_NO_PAYMENT": """
        SELECT user_id, debts.seq, 'a lot or the opening', entries.kind
        FROM credit_debts AS debts
        LEFT JOIN lots USING (user_id, seq) LEFT JOIN entries USING (user_id, seq)
        WHERE user_id = ANY (:user_ids) AND lots.user_id IS NULL
            AND entries.kind IS DISTINCT FROM 'opening'""",
    "ENTRY_IS_MISSING": """
        SELECT user_id, previous_seq + 1, previous_seq + 1, seq FROM entries
        WHERE seq <> previous_seq + 1""",
    "BALANCE_AFTER_IS_NOT_THE_SUM": """
        SELECT user_id, seq, previous_balance::bigint + amount, balance_after FROM entries
        WHERE balance_after <> previous_balance::bigint + amount""",
    "EFFECTIVE_AT_GOES_BACK": """
        SELECT user_id, seq, previous_effective_at, effective_at FROM entries
        WHERE effective_at < previous_effective_at""",
    "ENTRY_IS_NOT_ITS_POSTINGS": """
        SELECT user_id, seq, coalesce(total, 0), amount
        FROM entries FULL JOIN entry_lines USING (user_id, seq)
        WHERE amount IS DISTINCT FROM coalesce(total, 0)""",
    "REMAINING_AFTER_IS_NOT_THE_SUM": """
        SELECT user_id, seq, previous_remaining::bigint + amount, remaining_after FROM postings
        WHERE remaining_after <> previous_remaining::bigint + amount""",
    "LOT_IS_NOT_ITS_GRANT": """
        SELECT user_id, seq, granted_by_lines, granted FROM lots_and_lines
        WHERE granted IS DISTINCT FROM granted_by_lines""",
    "LOT_IS_NOT_ITS_POSTINGS": """
        SELECT user_id, seq, coalesce(total_of_lines, 0), remaining FROM lots_and_lines
        WHERE remaining IS DISTINCT FROM coalesce(total_of_lines, 0)""",
    "LOT_IS_NOT_ITS_NEWEST_POSTING": """
        SELECT user_id, seq, remaining_by_newest_line, remaining FROM lots_and_lines
        WHERE remaining IS DISTINCT FROM remaining_by_newest_line""",
    "LAST_SEQ_IS_NOT_THE_NEWEST_POSTING": """
        SELECT user_id, seq, last_seq_by_lines, last_seq FROM lots_and_lines
        WHERE last_seq IS DISTINCT FROM last_seq_by_lines""",
    "IS_OPEN_IS_WRONG": """
        SELECT user_id, seq, remaining > 0, is_open FROM lots WHERE is_open <> (remaining > 0)""",
    "HOLD_IS_NOT_ITS_ENTRY": """
        SELECT user_id, seq, amount_by_entry, amount FROM hold_books
        WHERE amount IS DISTINCT FROM amount_by_entry""",
    "CAPTURED_IS_NOT_ITS_ENTRIES": """
        SELECT user_id, seq, captured_by_entries, captured FROM hold_books
        WHERE captured <> captured_by_entries""",
    "RETURNED_IS_NOT_THE_REST": """
        SELECT user_id, seq,
               CASE status_by_entries WHEN 'open' THEN 0
               ELSE amount_by_entry - captured_in_time END, returned
        FROM hold_books
        WHERE returned <> CASE status_by_entries WHEN 'open' THEN 0
                          ELSE amount_by_entry - captured_in_time END""",
    "STATUS_IS_NOT_ITS_ENTRIES": """
        SELECT user_id, seq, status_by_entries, status FROM hold_books
        WHERE status <> status_by_entries""",
    "EXPIRY_IS_NOT_ITS_ENTRIES": """
        SELECT user_id, seq, expires_at_by_entries, expires_at FROM hold_books
        WHERE expires_at <> expires_at_by_entries""",
}

_CHECK = """
SELECT '{kind}' AS kind, user_id, CAST(seq AS int) AS seq,
       CAST(expected AS text) AS expected, CAST(found AS text) AS found
FROM ({rows}) AS rows (user_id, seq, expected, found)"""

STATEMENT = "\n".join(
    [
        "WITH",
        _BOOKS,
        " UNION ALL ".join(_CHECK.format(kind=kind, rows=rows) for kind, rows in CHECKS.items()),
        "ORDER BY user_id, seq NULLS FIRST, kind",
    ]
)
"""Every difference in the books of `:user_ids`: kind, user_id, seq, expected, found."""

_BOOKS_OF_SOMEBODY = " UNION ALL ".join(
    f"SELECT user_id, seq FROM {table} WHERE user_id BETWEEN :first AND :last"  # noqa: S608  our own tables
    for table in (
        "credit_entries",
        "credit_entry_metadata",
        "credit_postings",
        "credit_lots",
        "credit_holds",
        "credit_debts",
    )
)

ORPHANS = f"""
SELECT 'USER_IS_MISSING' AS kind, user_id, min(seq) AS seq, 'a user' AS expected,
       CAST(NULL AS text) AS found
FROM ({_BOOKS_OF_SOMEBODY}) AS books
WHERE NOT EXISTS (
    SELECT FROM users WHERE users.user_id = books.user_id AND user_id BETWEEN :first AND :last
)
GROUP BY user_id ORDER BY user_id"""  # noqa: S608  our own tables
"""Books between `:first` and `:last`, both included, that belong to nobody, in the same shape."""
