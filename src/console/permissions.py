"""Who may see and do what in the console: one matrix of roles and permissions."""

from enum import StrEnum


class Role(StrEnum):
    """What somebody works as. Who has several may do what any of them may."""

    VIEWER = "viewer"
    SUPPORT = "support"
    FINANCE = "finance"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a page shows, or an action does."""

    OVERVIEW_SEE = "overview:see"
    USERS_SEE = "users:see"
    """Their personal data included."""
    USERS_CHANGE = "users:change"
    USERS_ERASE = "users:erase"
    CREDITS_GIVE = "credits:give"
    CREDITS_TAKE = "credits:take"
    CREDITS_REVERSE = "credits:reverse"
    HOLDS_RELEASE = "holds:release"
    PAYMENTS_SEE = "payments:see"
    PAYMENTS_REFUND = "payments:refund"
    INBOX_SEE = "inbox:see"
    """Stripe's events, their bodies included."""
    INBOX_CHANGE = "inbox:change"
    NOTICES_SEE = "notices:see"
    """What endpoints are told, and how that goes."""
    NOTICES_REPLAY = "notices:replay"
    ENDPOINTS_CHANGE = "endpoints:change"
    UNMATCHED_SEE = "unmatched:see"
    UNMATCHED_SETTLE = "unmatched:settle"
    RECONCILIATIONS_SEE = "reconciliations:see"
    RECONCILIATIONS_RUN = "reconciliations:run"
    REPORTS_SEE = "reports:see"
    REPORTS_DOWNLOAD = "reports:download"
    APPROVALS_SEE = "approvals:see"
    APPROVALS_DECIDE = "approvals:decide"
    KEYS_SEE = "keys:see"
    KEYS_CHANGE = "keys:change"
    AUDIT_SEE = "audit:see"
    DOCTOR_SEE = "doctor:see"


_EVERYBODY = {
    Permission.OVERVIEW_SEE,
    Permission.USERS_SEE,
    Permission.PAYMENTS_SEE,
    Permission.INBOX_SEE,
    Permission.NOTICES_SEE,
    Permission.UNMATCHED_SEE,
    Permission.RECONCILIATIONS_SEE,
    Permission.DOCTOR_SEE,
}

MATRIX: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_EVERYBODY),
    Role.SUPPORT: frozenset(
        _EVERYBODY
        | {
            Permission.CREDITS_GIVE,
            Permission.CREDITS_TAKE,
            Permission.CREDITS_REVERSE,
            Permission.HOLDS_RELEASE,
            Permission.PAYMENTS_REFUND,
            Permission.INBOX_CHANGE,
            Permission.NOTICES_REPLAY,
            Permission.APPROVALS_SEE,
        }
    ),
    Role.FINANCE: frozenset(
        _EVERYBODY
        | {
            Permission.UNMATCHED_SETTLE,
            Permission.RECONCILIATIONS_RUN,
            Permission.REPORTS_SEE,
            Permission.REPORTS_DOWNLOAD,
            Permission.APPROVALS_SEE,
        }
    ),
    Role.ADMIN: frozenset(Permission),
}
"""What each role may; what is not named, it may not."""


def permitted(roles: frozenset[Role]) -> frozenset[Permission]:
    """What somebody with these roles may."""
    return frozenset[Permission]().union(*(MATRIX[role] for role in roles))
