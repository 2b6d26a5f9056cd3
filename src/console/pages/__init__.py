"""The console's pages, a module each."""

from src.console.pages import (
    audit_trail,
    doctor,
    inbox,
    keys,
    overview,
    reconciliation,
    reports,
    unmatched,
)

ROUTERS = (
    overview.router,
    inbox.router,
    unmatched.router,
    reconciliation.router,
    reports.router,
    keys.router,
    audit_trail.router,
    doctor.router,
)
"""Of every page; `src/console/__init__.py` says how to add one."""
