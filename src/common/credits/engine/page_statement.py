"""The statement that reads pages of many users' journals, of each its own length.

Written out, and its lookups apart by LATERAL: each is one of an index, whatever the tables' sizes
were when the plan was made. The arrays stand in subqueries, so that the planner cannot see their
length: it would make a new plan for each, which takes longer than executing it.
"""

from src.common.credits.domain.own_commands import purchase_key

ENTRY_COLUMNS = (
    *("seq", "kind", "amount", "balance_after", "captured", "related_seq", "idempotency_key"),
    *("reference", "actor", "effective_at", "created_at"),
)
POSTING_COLUMNS = ("lot_seq", "amount", "remaining_after")
PURCHASE_COLUMNS = (
    *("transaction_id", "stripe_session_id", "package_id", "amount_paid_cents", "currency"),
)


def _columns(table: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


_PURCHASE_KEY = purchase_key("")

PAGES = f"""
SELECT asked.place, users.is_active, {_columns("entry", ENTRY_COLUMNS)},
    {_columns("posting", POSTING_COLUMNS)}, metadata.document,
    {_columns("purchase", PURCHASE_COLUMNS)}
FROM unnest((SELECT $1::uuid[]), (SELECT $2::integer[]), (SELECT $3::integer[]))
    WITH ORDINALITY AS asked (user_id, before, entries, place)
JOIN LATERAL (SELECT is_active FROM users WHERE user_id = asked.user_id LIMIT 1) AS users ON true
LEFT JOIN LATERAL (
    SELECT {", ".join(ENTRY_COLUMNS)} FROM credit_entries
    WHERE user_id = asked.user_id AND seq < asked.before
    ORDER BY seq DESC LIMIT asked.entries
) AS entry ON true
LEFT JOIN LATERAL (
    SELECT {", ".join(POSTING_COLUMNS)} FROM credit_postings
    WHERE user_id = asked.user_id AND seq = entry.seq ORDER BY lot_seq
) AS posting ON true
LEFT JOIN LATERAL (
    SELECT document::text FROM credit_entry_metadata
    WHERE user_id = asked.user_id AND seq = entry.seq LIMIT 1
) AS metadata ON true
LEFT JOIN LATERAL (
    SELECT transactions.transaction_id, transactions.stripe_session_id, checkout_orders.package_id,
        transactions.amount_paid_cents, transactions.currency
    FROM transactions LEFT JOIN checkout_orders USING (stripe_session_id, user_id)
    WHERE starts_with(entry.idempotency_key, '{_PURCHASE_KEY}')
        AND transactions.stripe_session_id
            = substr(entry.idempotency_key, {len(_PURCHASE_KEY) + 1})
        AND transactions.user_id = asked.user_id
    LIMIT 1
) AS purchase ON true
ORDER BY asked.place, entry.seq DESC, posting.lot_seq
"""  # noqa: S608  constants of ours
"""A row a posting, an entry without any, or a user without entries.

`$1` are users, `$2` the numbers their pages end before, `$3` how many entries at most.
"""
