"""Every check there is, in the order in which they run."""

import difflib
from collections.abc import Sequence

from src.common.doctor import (
    anchors,
    chain,
    clocks,
    configuration,
    connections,
    migrations,
    money,
    notices,
    operations,
    preferences,
    replica,
    server,
    storage,
    stripe_account,
)
from src.common.doctor.checks import Check
from src.common.exceptions import Invalid

CHAPTERS: dict[str, tuple[Check, ...]] = {
    "Settings and reach": configuration.CHECKS,
    "Migrations": migrations.CHECKS,
    "Connections and locks": connections.CHECKS,
    "Preferences": preferences.CHECKS,
    "Stripe": stripe_account.CHECKS,
    "Clocks": clocks.CHECKS,
    "Money and credits": (*money.CHECKS, *chain.CHECKS),
    "Anchors": anchors.CHECKS,
    "Background work": operations.CHECKS,
    "Notices": notices.CHECKS,
    "The server": (*server.CHECKS, *replica.CHECKS),
    "Tables and indexes": storage.CHECKS,
}
"""By what they are about."""
CHECKS: tuple[Check, ...] = tuple(check for checks in CHAPTERS.values() for check in checks)


def named(names: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these names, in the order they run; all, where there is no name.

    Raises:
        Invalid: VALIDATION_ERROR, there is no such check.
    """
    known = [check.name for check in CHECKS]
    if strangers := sorted(set(names) - set(known)):
        alike = {name: difflib.get_close_matches(name, known, n=1) for name in strangers}
        said = (f"{name} ({match[0]}?)" if match else name for name, match in alike.items())
        raise Invalid(
            f"There is no check {', '.join(said)}: `flashslides doctor --list` has them all",
            "VALIDATION_ERROR",
            field="name",
        )
    return tuple(check for check in CHECKS if not names or check.name in names)
