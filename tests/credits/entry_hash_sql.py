"""The hash of a stored entry, from its rows, as PostgreSQL makes it."""

from benchmarks.entry_hash import entry_hash, line, lot
from src.common.models.credit_entry import CreditEntry

_LINES = f"""coalesce((
    SELECT string_agg({line("p.lot_seq", "p.amount", "p.remaining_after")}, ''::bytea
                      ORDER BY p.lot_seq)
    FROM credit_postings p WHERE (p.user_id, p.seq) = (e.user_id, e.seq)), ''::bytea)"""  # noqa: S608
_LOT = lot("l.source", "l.priority", "l.granted", "l.expires_at", "l.transaction_id")
_MADE = f"""(coalesce((
    SELECT {_LOT} FROM credit_lots l WHERE (l.user_id, l.seq) = (e.user_id, e.seq)), ''::bytea)
    || coalesce((SELECT 'h'::bytea || int4send(h.amount)
    FROM credit_holds h WHERE (h.user_id, h.seq) = (e.user_id, e.seq)), ''::bytea)
    || coalesce((SELECT 'd'::bytea || int4send(d.opening_debt) FROM credit_debts d
    WHERE (d.user_id, d.seq) = (e.user_id, e.seq) AND d.opening_debt > 0), ''::bytea))"""  # noqa: S608
ENTRY_HASH = entry_hash(
    {name: f"e.{name}" for name in CreditEntry.__table__.columns.keys()},  # noqa: SIM118  no mapping
    "e.previous",
    _LINES,
    _MADE,
)
"""Of a row `e` of `credit_entries` that has the hash before it as `previous`."""
