"""The console's pages, a module each."""

from src.console.pages import (
    approvals,
    audit_trail,
    credit_moves,
    doctor,
    inbox,
    keys,
    overview,
    reconciliation,
    refunds,
    reports,
    unmatched,
)

ROUTERS = (
    overview.router,
    inbox.router,
    unmatched.router,
    reconciliation.router,
    reports.router,
    approvals.router,
    credit_moves.router,
    refunds.router,
    keys.router,
    audit_trail.router,
    doctor.router,
)
"""Of every page; `src/console/__init__.py` says how to add one."""
