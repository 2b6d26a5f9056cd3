"""Pure functions for accounts: text that can be stored, names, preferences, reserved e-mails."""

from collections.abc import Mapping
from typing import Any

from src.common.models.user import User


def storable(text: str) -> str:
    """`text` without what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="ignore").decode()


def split_full_name(full_name: str | None) -> tuple[str | None, str | None]:
    """First and last name of a full name: the first word, and all the others."""
    first, _, last = " ".join((full_name or "").split()).partition(" ")
    return first or None, last or None


def merged_preferences(
    current: Mapping[str, Any] | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """`current` with `changes` on top, key by key; None removes a key; NULL starts from `{}`."""
    merged = {**(current or {}), **changes}
    return {key: value for key, value in merged.items() if value is not None}


def erased_email(user: User) -> str:
    """The address that stands in for an erased user's (rule 11)."""
    return f"erased+{user.user_id}@invalid"


def is_reserved_email(email: str) -> bool:
    """Whether an erased user may need this address; nobody can have one there (RFC 2606)."""
    return email.lower().startswith("erased+") and email.lower().endswith("@invalid")
