"""Whether the journal's entries carry their hashes."""

from sqlalchemy import select

from src.common.doctor.checks import Check, Finding, Needs, fail, ok, psql, warn
from src.common.doctor.context import Context
from src.common.models.credit_ledger import CreditLedger
from src.common.postgres.sides import Side

_PUT_BACK = "INSERT INTO credit_ledgers (ledger_id, chained_at) VALUES ('…', now())"


def _chain(context: Context) -> Finding:
    """Whether every entry has a hash: the ledger's one row says so."""
    with context.looking() as session:
        ledger = session.execute(select(CreditLedger.chained_at)).one_or_none()
    if ledger is None:
        return fail(
            "The row of credit_ledgers is missing, whose id every user's hashes begin with.",
            f"take ledger_id from a backup; then {psql(_PUT_BACK)} && flashslides verify",
        )
    if ledger.chained_at is None:
        return warn("Some entries may have no hash.", "flashslides db chain")
    return ok(f"Every entry has its hash, since {ledger.chained_at:%Y-%m-%d}.")


CHECKS = (
    Check(
        "chain",
        _chain,
        Needs.TABLES,
        "Hashes show what was changed in a journal; an entry without one shows nothing.",
        may_lag=True,
        sides=tuple(Side),
    ),
)
