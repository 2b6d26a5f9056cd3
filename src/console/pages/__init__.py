"""The console's pages, a module each."""

from src.console.pages import (
    approvals,
    audit_trail,
    credit_moves,
    doctor,
    inbox,
    keys,
    notices,
    overview,
    payments,
    reconciliation,
    refunds,
    reports,
    unmatched,
    user,
    user_changes,
    user_entries,
    users,
)

ROUTERS = (
    overview.router,
    users.router,
    user.router,
    user_changes.router,
    user_entries.router,
    inbox.router,
    notices.router,
    unmatched.router,
    reconciliation.router,
    reports.router,
    approvals.router,
    credit_moves.router,
    refunds.router,
    payments.router,
    keys.router,
    audit_trail.router,
    doctor.router,
)
"""Of every page; `src/console/__init__.py` says how to add one."""
