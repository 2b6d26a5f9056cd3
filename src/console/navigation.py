"""The navigation: every page that a person can go to from anywhere, in its order."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.console.permissions import Permission

if TYPE_CHECKING:
    from src.console.people import Person


@dataclass(frozen=True)
class Place:
    """A line of the navigation, shown to those who may see the page."""

    title: str
    route: str
    permission: Permission


NAVIGATION = (
    Place("Overview", "console_overview", Permission.OVERVIEW_SEE),
    Place("Users", "console_users", Permission.USERS_SEE),
    Place("Payments", "console_payments", Permission.PAYMENTS_SEE),
    Place("Inbox", "console_inbox", Permission.INBOX_SEE),
    Place("Notices", "console_notices", Permission.NOTICES_SEE),
    Place("Unmatched", "console_unmatched", Permission.UNMATCHED_SEE),
    Place("Reconciliation", "console_reconciliations", Permission.RECONCILIATIONS_SEE),
    Place("Reports", "console_reports", Permission.REPORTS_SEE),
    Place("Approvals", "console_approvals", Permission.APPROVALS_SEE),
    Place("API keys", "console_keys", Permission.KEYS_SEE),
    Place("Audit trail", "console_audit", Permission.AUDIT_SEE),
    Place("Doctor", "console_doctor", Permission.DOCTOR_SEE),
)


def may_open(person: "Person", route: str) -> bool:
    """Whether a page of the navigation is one that this person may see, and be led to."""
    return any(place.route == route and person.may(place.permission) for place in NAVIGATION)
